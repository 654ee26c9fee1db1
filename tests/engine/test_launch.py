from pathlib import Path

import pytest

from mixdet.engine.launch import check_restarts, resume_command


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    """No launcher started this process."""
    for name in ('TORCHELASTIC_RUN_ID', 'TORCHELASTIC_MAX_RESTARTS', 'SLURM_NTASKS', 'OMPI_COMM_WORLD_SIZE'):
        monkeypatch.delenv(name, raising=False)


def test_the_command_is_the_one_given_with_resume():
    assert resume_command(['tools/train.py', 'a b.py', '--amp']) == "python tools/train.py 'a b.py' --amp --resume"
    assert resume_command(['train.py', 'c.py', '--resume', 'x.pth', '--amp']) == 'python train.py c.py --amp --resume'
    assert resume_command(['train.py', 'c.py', '--resume', '--new-schedule']) == 'python train.py c.py --resume'
    assert resume_command(['train.py', 'c.py', '--resume=x.pth']) == 'python train.py c.py --resume'
    assert resume_command(['train.py', 'c.py', '--resume', '--amp']) == 'python train.py c.py --amp --resume'
    assert resume_command(['train.py', 'a.pth']) == 'python train.py a.pth --resume'


@pytest.mark.parametrize(
    ('before', 'shown'),
    [
        (['/v/bin/python', '/v/bin/torchrun', '--standalone'], 'torchrun --standalone'),
        (['/v/bin/python', '-m', 'torch.distributed.run', '--nnodes=2'], 'python -m torch.distributed.run --nnodes=2'),
        (['bash', 'script'], 'torchrun'),
    ],
)
def test_torchruns_own_command_is_part_of_it(monkeypatch, before, shown):
    argv = ['train.py', 'c d.py', '--launcher', 'pytorch']
    other = ['--launcher', 'pytorch'] if 'script' in before else argv
    monkeypatch.setattr(Path, 'read_bytes', lambda path: b''.join(word.encode() + b'\0' for word in [*before, *other]))
    for name, value in {**VARIABLES, 'WORLD_SIZE': '4'}.items():
        monkeypatch.setenv(name, value)
    command = resume_command(argv)
    assert command.startswith(f'{shown} ') and command.endswith(" train.py 'c d.py' --launcher pytorch --resume")


VARIABLES = dict(
    TORCHELASTIC_RUN_ID='x',
    LOCAL_WORLD_SIZE='4',
    GROUP_RANK='1',
    MASTER_ADDR='node0',
    MASTER_PORT='29500',
    TORCHELASTIC_MAX_RESTARTS='0',
)


@pytest.mark.parametrize(
    ('size', 'restarts', 'shown'),
    [
        ('4', '3', 'torchrun --standalone --nproc_per_node=4 --max-restarts=3'),
        ('8', '0', 'torchrun --nnodes=2 --node_rank=1 --master_addr=node0 --master_port=29500 --nproc_per_node=4'),
    ],
)
def test_torchruns_variables_do_where_its_command_is_unknown(monkeypatch, size, restarts, shown):
    monkeypatch.setattr('os.getppid', lambda: 0)
    for name, value in {**VARIABLES, 'WORLD_SIZE': size, 'TORCHELASTIC_MAX_RESTARTS': restarts}.items():
        monkeypatch.setenv(name, value)
    assert resume_command(['train.py', 'c.py']) == f'{shown} train.py c.py --resume'


def test_slurm_and_mpi(monkeypatch):
    slurm, mpi = ['train.py', 'c.py', '--launcher', 'slurm'], ['train.py', 'c.py', '--launcher=mpi']
    assert resume_command(slurm) == 'python train.py c.py --launcher slurm --resume'
    monkeypatch.setenv('SLURM_NTASKS', '16')
    monkeypatch.setenv('OMPI_COMM_WORLD_SIZE', '4')
    assert resume_command(slurm) == 'srun --ntasks 16 python train.py c.py --launcher slurm --resume'
    assert resume_command(mpi) == 'mpirun -np 4 python train.py c.py --launcher=mpi --resume'
    assert resume_command(['train.py']) == 'python train.py --resume'


def test_restarts_need_resume(monkeypatch):
    assert check_restarts(None) and check_restarts('auto')
    monkeypatch.setenv('TORCHELASTIC_MAX_RESTARTS', '3')
    assert check_restarts('auto') and not check_restarts(None) and not check_restarts('a.pth')
