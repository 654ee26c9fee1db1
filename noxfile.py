"""The supported stacks, each a session in a fresh environment: ``nox --list``.

``nox`` runs the quick sessions, about a minute and a half each, which every change must pass. ``nox -t torch`` runs
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
OLDEST = ('torch==2.1.0', 'numpy==1.26.0', 'mmengine==0.10.3', 'mmcv-lite==2.0.0', 'mmdet==3.3.0')
FORKS = ('onedl-mmengine==0.10.12', 'onedl-mmcv==2.3.6', 'onedl-mmdetection==3.5.1')
# what a stack can break, beside what building all configs and training the demo show: imports, registries, checkpoints
# and configs; resuming; networks, operators and export
QUICK_TESTS = ('tests/compat', 'tests/test_registry.py', 'tests/engine/test_checkpoint.py')
RESUMING = ('tests/engine/test_resume.py',)
TORCH_TESTS = (
    *('tests/compat/test_checkpoints.py', 'tests/engine/test_checkpoint.py', 'tests/engine/test_amp.py'),
    *('tests/layers/test_native.py', 'tests/layers/test_implementations.py', 'tests/layers/test_prepacked.py'),
    *('tests/deploy/test_fusing.py', 'tests/deploy/test_export.py', 'tests/deploy/test_exportable.py'),
)
ENVIRONMENT = dict(OMP_NUM_THREADS='1')
DEMO = 'ssdlite_mixnet-s_1xb8-12e_demo'
EPOCH = ('--cfg-options', 'train_cfg.max_epochs=1', 'train_cfg.val_interval=1', 'default_hooks.checkpoint.interval=1')
ONNX = ('onnx', 'onnxruntime', 'onnxscript')
DEVICES = ('tflite', 'executorch', 'coreml')  # extras, each with the tests of its format
TEST_TOOLS = ('pytest', 'pytest-xdist', 'hypothesis')
# uv does not read pip's settings, in which there may be an index with PyTorch's CPU builds
for setting, separator in (('FIND_LINKS', ','), ('EXTRA_INDEX_URL', ' '), ('INDEX_URL', ' ')):
    if f'PIP_{setting}' in os.environ:
        os.environ.setdefault(f'UV_{setting}', separator.join(os.environ[f'PIP_{setting}'].split()))
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
    """Install, build all configs, train and evaluate the demo, run ``tests``, and write the row of docs/support.md."""
    start = time.monotonic()
    session.install(*packages, *TEST_TOOLS, 'pip', 'setuptools')
    before = installed(session)
    session.install('-e', '.')
    changed = {name for name, version in before.items() if installed(session).get(name) != version}
    if changed:
        session.error(f'installing mixdet has changed {sorted(changed)}')
    folder = session.create_tmp()
    failed = [] if run(session, 'python', '-m', 'pip', 'check', env=ENVIRONMENT) else ['pip check']
    with session.chdir(folder):  # outside the checkout
        if not run(session, 'python', '-W', 'ignore', '-c', BUILD_ALL, str(ROOT / 'configs'), env=ENVIRONMENT):
            failed.append('configs')
        if demo and not train_and_test(session, ROOT / 'tools'):
            failed.append('demo')
    report = Path(folder, 'tests.xml').resolve()
    options = ('-q', '-p', 'no:cacheprovider', '-n', 'auto', '--maxprocesses', '4', f'--junitxml={report}')
    if not run(session, 'python', '-m', 'pytest', *options, *tests, *session.posargs, env=ENVIRONMENT):
        failed.extend(failed_files(report))
    finish(session, failed, start)


def installed(session: nox.Session) -> dict[str, str]:
    """Version of every package in the session's environment."""
    listing = session.run('python', '-m', 'pip', 'list', '--format=json', silent=True, stderr=None)
    return {package['name']: package['version'] for package in json.loads(listing)}


def train_and_test(session: nox.Session, tools: Path) -> bool:
    """An epoch of a fifth of the demo through a base by name, a resume for a second one, and its evaluation."""
    config = Path('demo.py')
    config.write_text(f"_base_ = 'mixdet::demo/{DEMO}.py'\ntrain_dataloader = dict(dataset=dict(indices=80))\n")
    train = ('python', str(tools / 'train.py'), str(config), *EPOCH)
    return (
        run(session, *train, env=ENVIRONMENT)
        and run(session, *train, 'train_cfg.max_epochs=2', '--resume', env=ENVIRONMENT)
        and run(session, 'python', str(tools / 'test.py'), str(config), 'work_dirs/demo/epoch_2.pth', env=ENVIRONMENT)
    )


def failed_files(report: Path) -> list[str]:
    """The test files in which a test has failed, by pytest's report."""
    text = report.read_text(encoding='utf-8') if report.exists() else ''
    names = set(re.findall(r'<testcase classname="([\w.]+)"[^>]*><(?:failure|error)', text))
    return sorted(f'{name.replace(".", "/")}.py' for name in names) or ['tests']


def run(session: nox.Session, *command: str, env: dict[str, str]) -> bool:
    """Whether the command succeeds."""
    try:
        session.run(*command, env=env)
    except nox.command.CommandFailed:
        return False
    return True


def finish(session: nox.Session, failed: list[str], start: float) -> None:
    """Write what was tested, when and with what result into the table of docs/support.md, and fail if anything did."""
    versions = json.loads(session.run('python', '-c', VERSIONS, silent=True).splitlines()[-1])
    python = versions.pop('python')
    stack = ', '.join(f'{package} {version}' for package, version in versions.items())
    result = 'passed' if not failed else f'failed: {", ".join(failed)}'
    minutes = f'{(time.monotonic() - start) / 60:.0f} min'
    row = f'| `{session.name}` | {python} | {stack} | {datetime.date.today()} | {minutes} | {result} |'
    text = SUPPORT.read_text(encoding='utf-8')
    pattern = re.compile(rf'^\| `{re.escape(session.name)}` \|.*$', re.MULTILINE)
    text = pattern.sub(row, text) if pattern.search(text) else text.replace('<!-- rows -->', f'{row}\n<!-- rows -->')
    SUPPORT.write_text(text, encoding='utf-8')
    if failed:
        session.error(result)


@nox.session(python='3.11', tags=['quick'])
def numpy1(session: nox.Session) -> None:
    """The default stack with NumPy 1.26."""
    check_stack(session, (TORCH, *UPSTREAM, 'numpy<2'), QUICK_TESTS, demo=False)


@nox.session(python='3.11', tags=['quick'])
def forks(session: nox.Session) -> None:
    """The maintained forks of MMDetection, mmcv and MMEngine."""
    check_stack(session, (TORCH, *FORKS), (*QUICK_TESTS, *RESUMING))


@nox.session(python='3.11', tags=['quick'])
def setuptools(session: nox.Session) -> None:
    """The newest setuptools, which has no pkg_resources."""
    check_stack(session, (TORCH, *UPSTREAM, 'setuptools>=82'), QUICK_TESTS, demo=False)


@nox.session(python='3.11', tags=['quick'])
def wheel(session: nox.Session) -> None:
    """The wheel, outside the checkout: configs by name, the ablation configs, training, evaluation, resuming."""
    start = time.monotonic()
    folder = Path(session.create_tmp()).resolve()
    session.install(TORCH, *UPSTREAM, 'pip', 'setuptools<82', 'build')
    session.run('python', '-m', 'build', '-q', '--outdir', str(folder), str(ROOT))
    session.install(str(next(folder.glob('*.whl'))))
    failed = [] if run(session, 'python', '-m', 'pip', 'check', env=ENVIRONMENT) else ['pip check']
    with session.chdir(folder):
        where = 'import mixdet, pathlib; print(pathlib.Path(mixdet.__file__).parent / ".mim")'
        mim = Path(session.run('python', '-W', 'ignore', '-c', where, silent=True).splitlines()[-1])
        session.run('python', str(mim / 'tools/ablation_configs.py'), 'ablations', '--figure', '6')
        for configs in ('ablations', str(mim / 'configs')):
            if not run(session, 'python', '-W', 'ignore', '-c', BUILD_ALL, configs, env=ENVIRONMENT):
                failed.append(configs)
        if not train_and_test(session, mim / 'tools'):
            failed.append('demo')
    finish(session, failed, start)


@nox.session(python='3.11', tags=['quick'])
def resolver(session: nox.Session) -> None:
    """What installing would change, by dry runs: constraints.txt for each Python, and each extra over users' stacks."""
    session.install('pytest', 'uv', 'pip', 'setuptools>=77.0.3', 'wheel')
    session.run(
        'python',
        '-m',
        'pytest',
        '-q',
        '--noconftest',
        'tests/test_resolver.py',
        env={'MIXDET_RESOLVER': '1', 'UV_PYTHON_DOWNLOADS': 'never'},
    )


@nox.session(python=['3.10'], tags=['torch'])
def torch21(session: nox.Session) -> None:
    """PyTorch 2.1, NumPy 1.26."""
    check_stack(session, ('torch==2.1.2', 'numpy<2', *UPSTREAM, 'setuptools<82'), TORCH_TESTS)


@nox.session(python=['3.10'], tags=['torch'])
def oldest(session: nox.Session) -> None:
    """The oldest supported version of everything."""
    check_stack(session, (*OLDEST, 'setuptools<82'), QUICK_TESTS)


@nox.session(python=['3.12'], tags=['torch'])
def torch24(session: nox.Session) -> None:
    """PyTorch 2.4, which does not load checkpoints safely and exports to TorchScript alone."""
    check_stack(session, ('torch==2.4.1', *UPSTREAM, 'setuptools<82'), TORCH_TESTS)


@nox.session(python=['3.12'], tags=['torch'])
def torch25(session: nox.Session) -> None:
    """PyTorch 2.5, the last that does not load checkpoints safely."""
    check_stack(
        session,
        ('torch==2.5.1', *UPSTREAM, 'setuptools<82'),
        ('tests/compat/test_checkpoints.py', 'tests/deploy/test_export.py'),
        demo=False,
    )


@nox.session(python=['3.12'], tags=['torch'])
def torch26(session: nox.Session) -> None:
    """PyTorch 2.6, the first that can do everything."""
    check_stack(session, ('torch==2.6.0', *UPSTREAM, *ONNX, 'setuptools<82'), TORCH_TESTS)


@nox.session(python=['3.13'], tags=['torch'])
def newest(session: nox.Session) -> None:
    """The newest PyTorch and NumPy."""
    check_stack(session, ('torch', 'numpy', *UPSTREAM, *ONNX, 'setuptools<82'), TORCH_TESTS)


@nox.session(python=['3.11'], tags=['torch'])
def compiled_mmcv(session: nox.Session) -> None:
    """mmcv with compiled operators, from the wheel that MIXDET_MMCV_WHEEL names."""
    compiled = os.environ.get('MIXDET_MMCV_WHEEL')
    if not compiled:
        session.skip('MIXDET_MMCV_WHEEL names no wheel')
    check_stack(session, (TORCH, 'mmengine==0.10.7', compiled, 'mmdet==3.3.0', 'setuptools<82'), QUICK_TESTS)


@nox.session(python=['3.11'], tags=['devices'])
@nox.parametrize('extra', DEVICES)
def devices(session: nox.Session, extra: str) -> None:
    """A format for phones and small computers, whose packages are too large for CI: ``nox -t devices``."""
    session.install(TORCH, *UPSTREAM, *TEST_TOOLS, 'setuptools<82', '-e', f'.[{extra}]')
    tests = ('tests/deploy/test_pt2e.py', f'tests/deploy/formats/test_{extra}.py')
    options = ('-q', '-rs', '-p', 'no:cacheprovider')
    session.run('python', '-m', 'pytest', *options, *tests, *session.posargs, env=ENVIRONMENT)
