"""The command that started a training, to print it again: with torchrun, Slurm or MPI before it."""

import os
import shlex
from pathlib import Path

# of other launchers: the words before the script, and the variable with the number of processes
LAUNCHERS = {'slurm': ('srun --ntasks', 'SLURM_NTASKS'), 'mpi': ('mpirun -np', 'OMPI_COMM_WORLD_SIZE')}


def resume_command(argv: list[str]) -> str:
    """The command ``argv`` with ``--resume`` from the latest checkpoint, which has the new schedule by then."""
    kept = [
        word
        for before, word in zip(['', *argv], argv)
        if not word.startswith(('--resume', '--new-schedule')) and not (before == '--resume' and word.endswith('.pth'))
    ]
    return shlex.join([*_launcher(argv), *kept, '--resume'])


def check_restarts(resume: object) -> bool:
    """Whether torchrun, if it started this process, may start it again: only with ``resume`` from the latest.

    A process that is started again without it would begin anew, and replace the checkpoints.
    """
    return os.environ.get('TORCHELASTIC_MAX_RESTARTS', '0') == '0' or resume == 'auto'


def _launcher(argv: list[str]) -> list[str]:
    """What comes before the script of ``argv``."""
    if 'TORCHELASTIC_RUN_ID' in os.environ:
        return _parents_words(argv) or _torchrun()
    given = ' '.join(argv).replace('--launcher=', '--launcher ')
    for name, (words, variable) in LAUNCHERS.items():
        if f'--launcher {name}' in given and variable in os.environ:
            return [*words.split(), os.environ[variable], 'python']
    return ['python']


def _parents_words(argv: list[str]) -> list[str]:
    """The words of torchrun's own command before ``argv``; none where the system does not tell them."""
    try:
        command = os.fsdecode(Path(f'/proc/{os.getppid()}/cmdline').read_bytes()).split('\0')[:-1]
    except OSError:
        return []
    if command[-len(argv) :] != argv or len(command) <= len(argv):
        return []
    words = command[: -len(argv)]
    if len(words) > 1 and Path(words[1]).name == 'torchrun':
        return ['torchrun', *words[2:]]
    return ['python', *words[1:]]


def _torchrun() -> list[str]:
    """torchrun with what its variables tell of its arguments."""
    of = os.environ
    processes = int(of['LOCAL_WORLD_SIZE'])
    nodes = int(of['WORLD_SIZE']) // processes
    if nodes == 1:
        place = ['--standalone']
    else:
        place = [f'--nnodes={nodes}', f'--node_rank={of["GROUP_RANK"]}']
        place += [f'--master_addr={of["MASTER_ADDR"]}', f'--master_port={of["MASTER_PORT"]}']
    restarts = of.get('TORCHELASTIC_MAX_RESTARTS', '0')
    return [
        'torchrun',
        *place,
        f'--nproc_per_node={processes}',
        *([f'--max-restarts={restarts}'] if restarts != '0' else []),
    ]
