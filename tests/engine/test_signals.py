"""A watch on signals, in processes of their own, which it may end."""

import os
import signal
import sys
import time

import pytest
from forked import end_of, fork, run

from mixdet.engine import signals
from mixdet.engine.signals import SignalWatch

pytestmark = pytest.mark.skipif(sys.platform != 'linux', reason='forks')


def watch(got, seconds, repeat=0.0):
    """A watch on SIGTERM, begun; ``got`` gets the signals that were handled."""
    for number in (signal.SIGTERM, signal.SIGUSR2):
        signal.signal(number, lambda number, frame: got.append(number))
    made = SignalWatch([signal.SIGTERM], seconds, repeat, late)
    made.start()
    return made


def late(number):
    print('late', number, flush=True)
    os._exit(5)


def send(number=signal.SIGTERM):
    os.kill(os.getpid(), number)


def test_a_process_that_does_not_end_is_ended(tmp_path):
    def act():
        watch([], 0.05)
        send()
        time.sleep(60)

    assert run(act, tmp_path / 'out') == (5, f'late {int(signal.SIGTERM)}\n')


def test_other_signals_and_a_watch_that_was_stopped_do_nothing(tmp_path):
    def act():
        got = []
        made = watch(got, 0.05)
        send(signal.SIGUSR2)
        made.stop()
        made.stop()
        made = watch(got, 600)
        send()
        made.stop()
        send()
        assert got == [signal.SIGUSR2, signal.SIGTERM, signal.SIGTERM]
        assert signals._watches == [] and signal.set_wakeup_fd(-1) == -1

    assert run(act, tmp_path / 'out') == (0, '')


@pytest.mark.parametrize(('seconds', 'repeat'), [(600, 0.0), (0.3, 600.0)])
def test_a_second_signal_shortens_the_wait_if_it_is_another_request(tmp_path, monkeypatch, seconds, repeat):
    monkeypatch.setattr(signals, 'HURRY', 0.05)

    def act():
        watch([], seconds, repeat)
        for _ in range(2):
            send()
            time.sleep(0.1)
        time.sleep(60)

    assert run(act, tmp_path / 'out')[0] == 5


def test_what_a_forked_process_receives_is_its_own(tmp_path):
    def act():
        got = []
        watch(got, 0.01)
        assert end_of(fork(send)) == 0
        time.sleep(0.1)
        assert got == []

    assert run(act, tmp_path / 'out') == (0, '')
