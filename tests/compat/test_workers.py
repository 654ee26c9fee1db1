"""The two defects are there without the shim, and gone with it."""

import errno
import multiprocessing
import signal
import subprocess
import sys
import threading

import pytest
from torch.utils.data._utils import signal_handling

from mixdet.compat import workers

pytestmark = pytest.mark.skipif(sys.platform == 'win32', reason='signals of POSIX')


@pytest.fixture(autouse=True)
def handler():
    """The handler of SIGCHLD is restored."""
    before = signal.getsignal(signal.SIGCHLD)
    yield
    signal.signal(signal.SIGCHLD, before)


def test_torchs_handler_is_taken_back_and_not_set_again(monkeypatch):
    monkeypatch.setattr(signal_handling, '_SIGCHLD_handler_set', False)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal_handling._set_SIGCHLD_handler()
    assert workers._is_torchs(signal.getsignal(signal.SIGCHLD))
    for _ in range(2):
        workers.report_deaths_to_the_loader_alone()
        signal_handling._set_SIGCHLD_handler()
        assert signal.getsignal(signal.SIGCHLD) is signal.SIG_DFL


def test_a_handler_of_the_users_stays(monkeypatch):
    monkeypatch.setattr(signal_handling, '_SIGCHLD_handler_set', False)

    def mine(*args):
        pass

    signal.signal(signal.SIGCHLD, mine)
    workers.report_deaths_to_the_loader_alone()
    assert signal.getsignal(signal.SIGCHLD) is mine
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    thread = threading.Thread(target=workers.report_deaths_to_the_loader_alone)  # which may not set handlers
    thread.start()
    thread.join()


SENDS = """
import multiprocessing, sys, time
from mixdet.compat.workers import die_of_unsent_batches

class Unsendable:
    def __reduce__(self):
        raise OSError(28, 'No space left on device')

if len(sys.argv) > 1:
    die_of_unsent_batches()
queue = multiprocessing.get_context('fork').Queue()
queue.put(Unsendable())
queue.close()
queue.join_thread()
"""


def test_a_worker_that_cannot_send_ends():
    def status(*args):
        done = subprocess.run([sys.executable, '-c', SENDS, *args], capture_output=True, text=True, timeout=120)
        return done.returncode, 'Traceback' in done.stderr

    assert status() == (0, True)  # and whoever waits for it waits on
    assert status('die') == (errno.ENOSPC, False)
    assert multiprocessing.queues.Queue._on_queue_feeder_error.__module__ == 'multiprocessing.queues'
