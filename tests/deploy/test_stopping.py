import os
import signal

import pytest

from mixdet.deploy.stopping import SIGNALS, StopSignals

ALL = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


@pytest.fixture(autouse=True)
def handlers():
    """Those of a process in the foreground; the tests' own one may have been started to ignore signals."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    for number in SIGNALS:
        signal.signal(number, signal.default_int_handler)
    yield dict.fromkeys(SIGNALS, signal.default_int_handler)
    for number, handler in before.items():
        signal.signal(number, handler)


def test_what_is_stopped():
    assert list(SIGNALS) == ALL


@pytest.mark.parametrize('number', ALL)
def test_the_work_goes_on_until_it_asks(number, capsys):
    done = []
    with pytest.raises((KeyboardInterrupt, SystemExit)) as stopped, StopSignals() as signals:
        signals.check()
        os.kill(os.getpid(), number)
        done.append('the rest of an image')
        signals.check()
        done.append('another image')
    assert done == ['the rest of an image']
    name = signal.Signals(number).name
    assert f'{name}: stopping after this image; again to stop at once' in capsys.readouterr().err
    assert stopped.type is KeyboardInterrupt if number == signal.SIGINT else stopped.value.code == 128 + number


def test_a_second_signal_stops_at_once():
    with pytest.raises(SystemExit) as stopped, StopSignals():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
        pytest.fail('went on')
    assert stopped.value.code == 143


def test_handlers_are_put_back_and_what_is_ignored_stays_so(handlers):
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    with StopSignals() as signals:
        os.kill(os.getpid(), signal.SIGHUP)
        signals.check()
        assert signal.getsignal(signal.SIGTERM) == signals._receive
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    assert all(signal.getsignal(number) == handlers[number] for number in (signal.SIGINT, signal.SIGTERM))
