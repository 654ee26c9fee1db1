"""Kill a process, then a whole node, of a training on several, and compare its end with that of an undisturbed one.

The training of ``kill_drill.py`` runs in two processes on CPUs: on one node, whose first process is killed, and on two
nodes of one process (two torchruns on this machine), of which the second is killed with all its processes and started
again, as a cluster does. Each time torchrun starts what is left again, which resumes; the end must equal that of a
training that nobody disturbed, bit for bit. Exits with status 1 otherwise.
"""

import argparse
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from kill_drill import INTERVAL, content, make_config, same

from mixdet.cli.main import run_tool
from mixdet.engine.lock import LOCK
from mixdet.errors import UserError
from mixdet.text import print

TRAIN = Path(__file__).resolve().parents[1] / 'train.py'
LIMIT = 900  # s, of a training
RESTARTS = {'TORCH_DISABLE_SHARE_RDZV_TCP_STORE': '1'}  # as tools/dist_train.sh


class Drill:
    """A training on ``nodes`` nodes of ``processes`` processes, in ``work_dir``."""

    def __init__(self, config: Path, work_dir: Path, nodes: int, processes: int) -> None:
        self.work_dir = work_dir
        with socket.socket() as free:
            free.bind(('127.0.0.1', 0))
            self._port = free.getsockname()[1]
        torchrun = [sys.executable, '-m', 'torch.distributed.run', f'--nproc_per_node={processes}', '--max-restarts=3']
        if nodes == 1:
            torchrun += ['--standalone']
        else:
            torchrun += [f'--nnodes={nodes}', '--rdzv-backend=c10d', f'--rdzv-endpoint=127.0.0.1:{self._port}']
            torchrun += ['--rdzv-id=drill', '--local-addr=127.0.0.1']
        arguments = [str(config), '--launcher', 'pytorch', '--work-dir', str(work_dir), '--resume']
        self._command = [*torchrun, str(TRAIN), *arguments]
        self.agents = [self.start()]
        if nodes > 1:
            self._wait_for_store()  # which the first node keeps
            self.agents += [self.start() for _ in range(nodes - 1)]

    def start(self) -> subprocess.Popen:
        """Start torchrun on one node."""
        environment = {**os.environ, **RESTARTS, 'OMP_NUM_THREADS': '1', 'CUDA_VISIBLE_DEVICES': ''}
        with self.work_dir.with_suffix('.log').open('a', encoding='utf-8') as log:
            return subprocess.Popen(self._command, stdout=log, stderr=log, env=environment)

    def wait_for(self, path: Path) -> None:
        """Wait until ``path`` is there. Raises UserError if the training ends before."""
        deadline = time.monotonic() + LIMIT
        while not path.exists():
            if time.monotonic() > deadline or self.agents[0].poll() is not None:
                raise UserError(f'the training did not come to {path.name}; see {self.work_dir}.log')
            time.sleep(0.05)

    def finish(self) -> dict:
        """Wait for the end of the training; what it ended with. Raises UserError if it failed."""
        for agent in self.agents:
            if agent.wait(LIMIT):
                raise UserError(f'torchrun ended with status {agent.returncode}; see {self.work_dir}.log')
        found = content(self.work_dir)
        # each process validates with its own statistics of batch-norms, of which the first one's are saved
        found['history'] = {key: values for key, values in found['history'].items() if not key.startswith('val/')}
        return found

    def stop(self) -> None:
        """Kill what is left."""
        for agent in self.agents:
            kill_tree(agent)

    def _wait_for_store(self) -> None:
        deadline = time.monotonic() + LIMIT
        while time.monotonic() < deadline:
            with socket.socket() as probe:
                if probe.connect_ex(('127.0.0.1', self._port)) == 0:
                    return
            time.sleep(0.05)


def kill_tree(agent: subprocess.Popen) -> None:
    """Kill ``agent`` with all its processes, which have sessions of their own."""
    doomed = [agent.pid] if agent.poll() is None else []
    for pid in doomed:  # grows
        for status in Path('/proc').glob('[0-9]*/stat'):
            with contextlib.suppress(OSError):
                if int(status.read_bytes().rpartition(b')')[2].split()[1]) == pid:
                    doomed.append(int(status.parent.name))
    for pid in doomed:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    agent.wait()


def undisturbed(drill: Drill) -> None:
    """Do nothing to the training."""


def kill_process(drill: Drill) -> None:
    """Kill the first process, which holds the lock of the work dir."""
    drill.wait_for(drill.work_dir / f'iter_{2 * INTERVAL}.pth')
    os.kill(json.loads((drill.work_dir / LOCK).read_text(encoding='utf-8'))['pid'], signal.SIGKILL)


def lose_node(drill: Drill) -> None:
    """Kill the last node with all its processes, and start it again."""
    drill.wait_for(drill.work_dir / f'iter_{2 * INTERVAL}.pth')
    kill_tree(drill.agents[-1])
    drill.agents[-1] = drill.start()


DRILLS = {
    'undisturbed': (1, 2, undisturbed),
    'a process lost': (1, 2, kill_process),
    'a node lost': (2, 1, lose_node),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--epochs', type=int, default=12, help='length of a training (default: 12)')
    parser.add_argument('--work-dir', help='an empty folder to keep (default: a temporary one)')
    args = parser.parse_args()

    torch.set_num_threads(1)
    folder = Path(args.work_dir or tempfile.mkdtemp(prefix='node_drill-')).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / 'drill.py'
    make_config(folder, args.epochs).dump(config)
    ends = {}
    for name, (nodes, processes, disturb) in DRILLS.items():
        began = time.perf_counter()
        drill = Drill(config, folder / name.replace(' ', '_'), nodes, processes)
        try:
            disturb(drill)
            ends[name] = drill.finish()
        finally:
            drill.stop()
        equal = same(ends[name], ends['undisturbed'])
        print(f'{name}: {"equal" if equal else "DIFFERENT"}, {time.perf_counter() - began:.0f} s', flush=True)
    if not all(same(end, ends['undisturbed']) for end in ends.values()):
        sys.exit(1)
    if not args.work_dir:
        shutil.rmtree(folder)


if __name__ == '__main__':
    run_tool(main)
