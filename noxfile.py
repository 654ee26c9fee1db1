"""The supported stacks, each a session in a fresh environment: ``nox --list``.

``nox`` runs the quick sessions, about a minute and a half each, which every change should pass. ``nox -t torch`` runs
those with the oldest and the newest PyTorch, up to eight minutes each. A session of a stack writes its row of
docs/support.md. It is skipped where its Python is missing; with uv installed, environments are made in seconds.
"""

import datetime
import json
import os
import re
import time
from pathlib import Path

import nox

nox.options.default_venv_backend = 'uv|virtualenv'
nox.options.tags = ['quick']
ROOT = Path(__file__).resolve().parent
SUPPORT = ROOT / 'docs/support.md'
TORCH = 'torch==2.13.0'
UPSTREAM = ('mmengine==0.10.7', 'mmcv-lite==2.1.0', 'mmdet==3.3.0')
OLDEST = ('mmengine==0.10.3', 'mmcv-lite==2.0.1', 'mmdet==3.3.0')
FORKS = ('onedl-mmengine==0.10.12', 'onedl-mmcv==2.3.6', 'onedl-mmdetection==3.5.1')
# where stacks differ: imports, registries, checkpoints and resuming; then networks, evaluation and export
QUICK_TESTS = ('tests/compat', 'tests/test_registry.py', 'tests/engine/test_resume.py', 'tests/layers/test_native.py')
TESTS = ('tests/compat', 'tests/test_registry.py', 'tests/engine', 'tests/layers', 'tests/ssdlite', 'tests/deploy')
DEMO = 'ssdlite_mixnet-s_1xb8-12e_demo'
EPOCH = ('--cfg-options', 'train_cfg.max_epochs=1', 'train_cfg.val_interval=1', 'default_hooks.checkpoint.interval=1')
VERSIONS = """
import json, platform, importlib.metadata
found = {d.metadata['Name'].lower().replace('_', '-'): d.version for d in importlib.metadata.distributions()}
names = 'torch numpy mmengine mmcv mmcv-lite mmdet onedl-mmengine onedl-mmcv onedl-mmdetection'.split()
print(json.dumps(dict(python=platform.python_version(), **{name: found[name] for name in names if name in found})))
"""
BUILD_ALL = """
import sys, pathlib, mixdet
from mmengine.config import Config
from mmengine.registry import init_default_scope, MODELS
init_default_scope('mmdet')
paths = [path for path in sorted(pathlib.Path(sys.argv[1]).rglob('*.py')) if '_base_' not in path.parts]
for path in paths:
    MODELS.build(Config.fromfile(path).model)
print(len(paths), 'configs build')
"""


def check_stack(session: nox.Session, packages: tuple[str, ...], tests: tuple[str, ...], demo: bool = True) -> None:
    """Install, run ``tests`` and one epoch of the demo with its evaluation, and write the row of docs/support.md."""
    start = time.monotonic()
    session.install(*packages, 'pytest', 'hypothesis', 'pip', 'setuptools')
    before = installed(session)
    session.install('-e', '.')
    changed = {name for name, version in before.items() if installed(session).get(name) != version}
    if changed:
        session.error(f'installing mixdet has changed {sorted(changed)}')
    session.run('python', '-m', 'pip', 'check', success_codes=[0, 1])  # upstream's own conflicts are shown
    folder = session.create_tmp()
    versions = json.loads(session.run('python', '-c', VERSIONS, silent=True).splitlines()[-1])
    failed = []
    environment = dict(OMP_NUM_THREADS='1')
    with session.chdir(folder):  # outside the checkout
        if not run(session, 'python', '-W', 'ignore', '-c', BUILD_ALL, str(ROOT / 'configs'), env=environment):
            failed.append('configs')
        if demo and not train_and_test(session, ROOT / 'tools', environment):
            failed.append('demo')
    for folder in tests:
        arguments = ('-q', '-p', 'no:cacheprovider', *session.posargs)
        if not run(session, 'python', '-m', 'pytest', folder, *arguments, env=environment):
            failed.append(folder)
    write_row(session.name, versions, failed, time.monotonic() - start)
    if failed:
        session.error(f'failed: {", ".join(failed)}')


def installed(session: nox.Session) -> dict[str, str]:
    """Version of every package in the session's environment."""
    listing = session.run('python', '-m', 'pip', 'list', '--format=json', silent=True, stderr=None)
    return {package['name']: package['version'] for package in json.loads(listing)}


def train_and_test(session: nox.Session, tools: Path, environment: dict[str, str]) -> bool:
    """An epoch of the demo through a base by name, its evaluation, and a resume for a second epoch."""
    config = Path('demo.py')
    config.write_text(f"_base_ = 'mixdet::demo/{DEMO}.py'\n")
    train = ('python', str(tools / 'train.py'), str(config), *EPOCH)
    return (
        run(session, *train, env=environment)
        and run(session, *train, 'train_cfg.max_epochs=2', '--resume', env=environment)
        and run(session, 'python', str(tools / 'test.py'), str(config), 'work_dirs/demo/epoch_2.pth', env=environment)
    )


def run(session: nox.Session, *command: str, env: dict[str, str]) -> bool:
    """Whether the command succeeds."""
    try:
        session.run(*command, env=env)
    except nox.command.CommandFailed:
        return False
    return True


def write_row(name: str, versions: dict[str, str], failed: list[str], seconds: float) -> None:
    """Write what was tested, when and with what result into the table of docs/support.md."""
    python = versions.pop('python')
    stack = ', '.join(f'{package} {version}' for package, version in versions.items())
    result = 'passed' if not failed else f'failed: {", ".join(failed)}'
    row = f'| `{name}` | {python} | {stack} | {datetime.date.today()} | {seconds / 60:.0f} min | {result} |'
    text = SUPPORT.read_text(encoding='utf-8')
    pattern = re.compile(rf'^\| `{re.escape(name)}` \|.*$', re.MULTILINE)
    text = pattern.sub(row, text) if pattern.search(text) else text.replace('<!-- rows -->', f'{row}\n<!-- rows -->')
    SUPPORT.write_text(text, encoding='utf-8')


@nox.session(python='3.11', tags=['quick'])
def numpy1(session: nox.Session) -> None:
    """The default stack with NumPy 1.26."""
    check_stack(session, (TORCH, *UPSTREAM, 'numpy<2'), QUICK_TESTS, demo=False)


@nox.session(python='3.11', tags=['quick'])
def forks(session: nox.Session) -> None:
    """The maintained forks of MMDetection, mmcv and MMEngine."""
    check_stack(session, (TORCH, *FORKS), QUICK_TESTS)


@nox.session(python='3.11', tags=['quick'])
def setuptools(session: nox.Session) -> None:
    """The newest setuptools, which has no pkg_resources."""
    check_stack(session, (TORCH, *UPSTREAM, 'setuptools>=82'), ('tests/compat',), demo=False)


@nox.session(python='3.11', tags=['quick'])
def wheel(session: nox.Session) -> None:
    """The wheel, outside the checkout: configs by name, the ablation configs, training, evaluation, resuming."""
    folder = Path(session.create_tmp()).resolve()
    session.install(TORCH, *UPSTREAM, 'pip', 'setuptools<82', 'build')
    session.run('python', '-m', 'build', '-q', '--outdir', str(folder), str(ROOT))
    session.install(str(next(folder.glob('*.whl'))))
    session.run('python', '-m', 'pip', 'check', success_codes=[0, 1])
    with session.chdir(folder):
        where = 'import mixdet, pathlib; print(pathlib.Path(mixdet.__file__).parent / ".mim")'
        mim = Path(session.run('python', '-W', 'ignore', '-c', where, silent=True).splitlines()[-1])
        environment = dict(OMP_NUM_THREADS='1')
        session.run('python', str(mim / 'tools/ablation_configs.py'), 'ablations', '--figure', '6')
        session.run('python', '-W', 'ignore', '-c', BUILD_ALL, 'ablations', env=environment)
        session.run('python', '-W', 'ignore', '-c', BUILD_ALL, str(mim / 'configs'), env=environment)
        if not train_and_test(session, mim / 'tools', environment):
            session.error('the demo failed')


@nox.session(python='3.11', tags=['quick'])
def old_torch(session: nox.Session) -> None:
    """Every module is imported by a PyTorch without what PyTorch 2.1 lacks."""
    session.install(TORCH, *UPSTREAM, 'pytest', 'hypothesis', 'setuptools<82')
    session.install('-e', '.')
    session.run('python', '-m', 'pytest', '-q', 'tests/test_old_torch.py')


@nox.session(python='3.11', tags=['quick'])
def resolver(session: nox.Session) -> None:
    """What installing would change, by dry runs: constraints.txt for each Python, and each extra over users' stacks."""
    session.install('pytest', 'uv', 'pip', 'setuptools>=77.0.3', 'wheel')
    session.run('python', '-m', 'pytest', '-q', '--noconftest', 'tests/test_resolver.py', env={'MIXDET_RESOLVER': '1'})


@nox.session(python=['3.10'], tags=['torch'])
def torch21(session: nox.Session) -> None:
    """PyTorch 2.1, NumPy 1.26."""
    check_stack(session, ('torch==2.1.2', 'numpy<2', *UPSTREAM, 'setuptools<82'), TESTS)


@nox.session(python=['3.10'], tags=['torch'])
def oldest(session: nox.Session) -> None:
    """The oldest supported version of everything."""
    check_stack(session, ('torch==2.1.2', 'numpy==1.26.4', *OLDEST, 'setuptools<82'), QUICK_TESTS)


@nox.session(python=['3.12'], tags=['torch'])
def torch24(session: nox.Session) -> None:
    """PyTorch 2.4, which does not load checkpoints safely and does not write ONNX."""
    check_stack(session, ('torch==2.4.1', *UPSTREAM), TESTS)


@nox.session(python=['3.12'], tags=['torch'])
def torch26(session: nox.Session) -> None:
    """PyTorch 2.6, the first that can do everything."""
    check_stack(session, ('torch==2.6.0', *UPSTREAM, 'onnx', 'onnxruntime', 'onnxscript'), TESTS)


@nox.session(python=['3.13'], tags=['torch'])
def newest(session: nox.Session) -> None:
    """The newest PyTorch and NumPy."""
    check_stack(session, ('torch', 'numpy', *UPSTREAM, 'onnx', 'onnxruntime', 'onnxscript'), TESTS)


@nox.session(python=['3.11'], tags=['torch'])
def compiled_mmcv(session: nox.Session) -> None:
    """mmcv with compiled operators, from the wheel that MIXDET_MMCV_WHEEL names."""
    compiled = os.environ.get('MIXDET_MMCV_WHEEL')
    if not compiled:
        session.skip('MIXDET_MMCV_WHEEL names no wheel')
    check_stack(session, (TORCH, 'mmengine==0.10.7', compiled, 'mmdet==3.3.0', 'setuptools<82'), QUICK_TESTS)
