"""The process that trains and tests runs of a study, one after another, and the one that starts several of them."""

import contextlib
import gc
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.runner import Runner

from mixdet.engine.atomic import make_folder, write_new_text
from mixdet.engine.config import config_text, load_config
from mixdet.errors import UserError
from mixdet.reproduction.run_results import RunResult, make_result, write_run_result
from mixdet.reproduction.sharing import Progress, Settings
from mixdet.reproduction.study import Run, run_config
from mixdet.text import print

RESTART = 75  # status of a process that wants to be started again, with nothing left over from a run that failed
CRASHES = 3  # times that a process is started again after it ended in another way
LAST_LINES = 8  # of the log that are shown of a run that failed
FORWARDED = (signal.SIGINT, signal.SIGTERM)


class Worker:
    """Does runs, and says in a line how each ended; what they print themselves goes to a log beside their work dir.

    Args:
        progress: where results are kept.
        data_root: folder with a folder for each data set.
        build_runner: builds the Runner of a config, with its training and its test; the second argument is the
            config's file.
        command: of a run, without its rows, data and seeds.
        jobs: how many such processes there are.
        checkpoint_interval: epochs between two checkpoints.
    """

    def __init__(
        self,
        progress: Progress,
        data_root: Path,
        build_runner: Callable[[Config, str], Runner],
        command: str,
        jobs: int = 1,
        checkpoint_interval: int = 1,
    ) -> None:
        self.progress, self.data_root, self.build_runner = progress, data_root, build_runner
        self.command, self.jobs, self.checkpoint_interval = command, jobs, checkpoint_interval

    def do(self, run: Run, settings: Settings) -> None:
        """Train and test ``run``, going on with what is in its work dir, and write its result.

        A failure is shown and noted. Raises SystemExit after one that is not the user's: the device may be in any
        state then.
        """
        log, began, restart = self.progress.beside(run, '.log'), time.monotonic(), False
        try:
            with output_in(log):
                try:
                    result = self._train_and_test(run, settings)
                except Exception:
                    traceback.print_exc()
                    raise
            numbers = ', '.join(f'{name} {result.stats[key]:.3f}' for name, key in (('AP', 'mAP'), ('AP50', 'mAP_50')))
            print(f'{run.name}: {numbers}, {time.monotonic() - began:.0f} s', flush=True)
            self.progress.beside(run, '.failures').unlink(missing_ok=True)
            return
        except UserError as error:
            print(f'{run.name} failed: {error}', flush=True)
        except Exception:
            lines = log.read_text(encoding='utf-8', errors='replace').splitlines()[-LAST_LINES:]
            print('\n  '.join([f'{run.name} failed, see {log}:', *lines]), flush=True)
            restart = True
        finally:
            gc.collect()
            if torch.cuda.is_initialized() and not restart:
                torch.cuda.empty_cache()
        self.progress.note_failure(run)
        if restart:
            raise SystemExit(RESTART)

    def _train_and_test(self, run: Run, settings: Settings) -> RunResult:
        study, work_dir = self.progress.study, self.progress.work_dir
        folder, config = self.progress.folder(run), self.progress.beside(run, '.py')
        text = config_text(run_config(study, run, settings, self.data_root, work_dir, self.checkpoint_interval))
        if not config.is_file():
            write_new_text(config, text)
        elif config.read_text(encoding='utf-8') != text:
            cure = f'give another --work-dir, or remove it and {folder}'
            raise UserError(f'{config} was written with other settings; {cure}')
        cfg = load_config(str(config))
        cfg.work_dir, cfg.resume = str(folder), any(folder.glob('*.pth'))
        runner = self.build_runner(cfg, str(config))
        runner.train()
        began = time.monotonic()
        metrics = runner.test_loop.run()  # of the network as it is now: the last checkpoint
        command = f'{self.command} --data {run.data} --rows {run.row} --seeds {run.seed}'
        result = make_result(run, settings, runner, metrics, time.monotonic() - began, command, self.jobs)
        write_run_result(result, self.progress.result_file(run))
        return result


@contextlib.contextmanager
def output_in(path: Path) -> Iterator[None]:
    """Inside, what this process prints, by whatever means, is added to the file ``path``."""
    make_folder(path.parent)
    streams = (sys.stdout, sys.stderr)
    for stream in streams:
        stream.flush()
    kept = [os.dup(descriptor) for descriptor in (1, 2)]
    try:
        with path.open('a', encoding='utf-8') as file:
            for descriptor in (1, 2):
                os.dup2(file.fileno(), descriptor)
        yield
    finally:
        for stream in streams:
            stream.flush()
        for descriptor, old in zip((1, 2), kept):
            os.dup2(old, descriptor)
            os.close(old)


def run_processes(command: Sequence[str], jobs: int) -> int:
    """Run ``command`` in ``jobs`` processes until each has ended; returns 0, or 128 and the signal that stopped them.

    SIGINT and SIGTERM are passed on, once each: the trainings save and end. A process that asks for it by the status
    ``RESTART`` is started again; so is one that crashes, a few times.
    """
    stopped: list[int] = []
    processes = [_start(command) for _ in range(jobs)]

    def stop(number: int, _: object) -> None:
        stopped.append(number)
        for process in processes:
            if process.poll() is None:
                process.send_signal(number)

    handlers = {number: signal.signal(number, stop) for number in FORWARDED}
    crashes = [0] * jobs
    try:
        for i in range(jobs):
            while True:
                status = processes[i].wait()
                crashes[i] += status not in (0, RESTART)
                if status == 0 or stopped or crashes[i] > CRASHES:
                    break
                processes[i] = _start(command)
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    return 128 + stopped[0] if stopped else 0


def _start(command: Sequence[str]) -> subprocess.Popen:
    return subprocess.Popen(command, start_new_session=True)  # a terminal's Ctrl-C reaches it through this process only
