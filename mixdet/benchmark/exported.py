"""Time and memory that exported files take."""

import argparse
import functools
import resource
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mixdet.benchmark.timing import Timing, time_in_turns
from mixdet.compat.checkpoints import files_are_trusted
from mixdet.deploy.exported import load_exported
from mixdet.errors import UserError
from mixdet.text import print

RUNS = 3
PER_MIB = 2**20 if sys.platform == 'darwin' else 2**10  # of the unit of ru_maxrss


def latencies(
    openers: Mapping[str, Callable[[int], Any]], batch: dict[str, Any], threads: int, seconds: float
) -> dict[str, Timing]:
    """Time of ``test_step`` with one image, from pixels to detections, of several detectors in turn.

    Args:
        openers: for each name what makes its detector, to run on so many threads.
        batch: from a data loader of MMDetection; its first image is taken.
        threads: PyTorch's and those of the runtimes; PyTorch's are restored afterwards.
        seconds: how long to measure, all together.
    """
    first = {name: values[:1] for name, values in batch.items()}
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        detectors = {name: opener(threads) for name, opener in openers.items()}
        calls: dict[str, Callable[[], Any]] = {
            name: functools.partial(detector.test_step, first) for name, detector in detectors.items()
        }
        with torch.inference_mode():
            return time_in_turns(calls, seconds, warmup=3)
    finally:
        torch.set_num_threads(before)


def memory(path: Path) -> float:
    """MiB that opening an exported file and running it on one thread add to the most memory of a process of its own.

    Raises UserError if that process fails.
    """
    trust = ['--unsafe-load'] if files_are_trusted() else []
    command = [sys.executable, '-W', 'ignore', '-m', 'mixdet.benchmark.exported', str(path), *trust]
    done = subprocess.run(command, capture_output=True, text=True, errors='replace')
    if done.returncode:
        last = [*done.stderr.splitlines(), 'no message'][-1]
        raise UserError(f'{path}: measuring its memory failed with status {done.returncode}: {last}')
    return float(done.stdout.splitlines()[-1])


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / PER_MIB


def main() -> None:
    """Print the MiB for the file that the command names."""
    parser = argparse.ArgumentParser()
    parser.add_argument('path')
    parser.add_argument('--unsafe-load', action='store_true')
    args = parser.parse_args()
    before = _peak()
    run, metadata = load_exported(args.path, args.unsafe_load, threads=1)
    for _ in range(RUNS):
        run(np.zeros((1, 3, *metadata.input_size), np.float32))
    print(f'{_peak() - before:.1f}')


if __name__ == '__main__':
    main()
