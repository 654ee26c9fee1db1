import os
import sys
import time

import pytest
from forked import end_of, fork

from mixdet.engine.holder import Holder, place, read_holder, start_of

pytestmark = pytest.mark.skipif(sys.platform != 'linux', reason='reads /proc')


def holder(**changes):
    me = dict(host='a', pid=os.getpid(), place=place(), start=start_of(os.getpid()), since='now', inode=1)
    return Holder(**{**me, **changes})


def test_this_process_is_alive_and_here():
    assert place() and holder().is_here() and holder().is_alive()
    assert str(holder(pid=7)) == 'process 7 on a, since now'


@pytest.mark.parametrize('change', [dict(start='1'), dict(pid=2**22 + 1)])  # its number used again; no such process
def test_another_process_of_its_number_is_not_the_holder(change):
    assert not holder(**change).is_alive()


@pytest.mark.parametrize('elsewhere', ['', 'another boot'])
def test_a_process_id_means_nothing_elsewhere(elsewhere):
    assert not holder(place=elsewhere).is_here()


def test_a_zombie_is_dead():
    child = fork(lambda: None)
    while start_of(child) is not None:  # until it has ended; it is not yet waited for
        time.sleep(0.01)
    assert not holder(pid=child, start='1').is_alive()
    end_of(child)


@pytest.mark.parametrize(('error', 'alive'), [(PermissionError, True), (ProcessLookupError, False)])
def test_processes_of_others_may_be_hidden(monkeypatch, error, alive):
    def kill(pid, number):
        raise error

    monkeypatch.setattr(os, 'kill', kill)
    assert holder(pid=2**22 + 1).is_alive() == alive


@pytest.mark.parametrize('content', [b'', b'\xff\x00', b'{', b'[]', b'{"host": 1}', b'9' * 5000])
def test_junk_names_nobody(tmp_path, content):
    (tmp_path / 'lock').write_bytes(content)
    descriptor = os.open(tmp_path / 'lock', os.O_RDONLY)
    assert read_holder(descriptor) is None
    os.close(descriptor)
