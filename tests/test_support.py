"""The import check, the package's metadata, README and docs/support.md name the same versions."""

import ast
import re
from pathlib import Path

import pytest
from helpers import ROOT

from mixdet.compat import checkpoints, stack
from mixdet.deploy.export import MINIMUM_TORCH_HALF
from mixdet.deploy.formats import FORMATS

SUPPORT = (ROOT / 'docs/support.md').read_text(encoding='utf-8')
README = (ROOT / 'README.md').read_text(encoding='utf-8')
NOXFILE = (ROOT / 'noxfile.py').read_text(encoding='utf-8')
CHECKPOINTS = Path(checkpoints.__file__).read_text(encoding='utf-8')


def constant(name, file='setup.py'):
    """A constant of a file that cannot be imported without being run, or without a package that is not here."""
    module = ast.parse((ROOT / file).read_text(encoding='utf-8'))
    (value,) = (
        node.value for node in module.body if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name
    )
    return ast.literal_eval(value)


def noxfile(name):
    return constant(name, 'noxfile.py')


def supported(package):
    """The second column of docs/support.md's first table."""
    return re.search(rf'^\| {package} \| (.+?) \|', SUPPORT, re.MULTILINE)[1]


def test_python():
    pythons = constant('PYTHONS')
    assert pythons[0] == stack.PYTHON
    assert supported('Python') == f'{pythons[0]} to {pythons[-1]}'
    assert f'Python {pythons[0]} to {pythons[-1]}, PyTorch {stack.TORCH.minimum} or newer' in README


@pytest.mark.parametrize(
    ('package', 'requirement'), [('PyTorch', stack.TORCH), ('NumPy', stack.NUMPY), ('MMEngine', stack.MMENGINE)]
)
def test_minimum(package, requirement):
    assert supported(package).startswith(f'{requirement.minimum} ')


def test_numpy_is_required_as_it_is_checked():
    assert f"'numpy>={stack.NUMPY.minimum}'" in (ROOT / 'setup.py').read_text()
    assert f'NumPy {stack.NUMPY.minimum} or newer' in README


def test_the_packages_of_the_extras_pass_the_import_check():
    pins = dict(re.findall(r'^([\w-]+)==([\w.]+)', (ROOT / 'constraints.txt').read_text(), re.MULTILINE))
    for requirement in (stack.TORCH, stack.MMENGINE, stack.MMDET, stack.MMCV['3.3']):
        name, _, version = requirement.pip.partition('==')
        assert pins[name] == version
        assert stack.is_at_least(version, requirement.minimum) and not stack.is_at_least(version, requirement.below)
    for line in constant('onedl'):
        name, version = re.match(r'([\w-]+)>=([\d.]+)', line).groups()
        requirement = next(r for r in (stack.MMENGINE, stack.MMDET, stack.MMCV['newer']) if name in r.distributions)
        assert stack.is_at_least(version, requirement.minimum) and not stack.is_at_least(version, requirement.below)
        assert f'{name}=={version}' in (requirement.fork, requirement.pip)


def test_sessions_have_the_tested_and_the_oldest_versions():
    pins = (ROOT / 'constraints.txt').read_text().splitlines()
    assert noxfile('TORCH') in pins and set(noxfile('UPSTREAM')) < set(pins)
    assert [re.sub('==(.+)', r'>=\1', pin) for pin in noxfile('FORKS')] == [
        line.partition(',')[0] for line in constant('onedl')
    ]
    oldest = dict(re.fullmatch(r'([a-z]+)[a-z-]*==([\d.]+)', pin).groups() for pin in noxfile('OLDEST'))
    for requirement in (stack.TORCH, stack.NUMPY, stack.MMENGINE, stack.MMDET, stack.MMCV['3.3']):
        assert f'{oldest[requirement.name]}.'.startswith(f'{requirement.minimum}.'), requirement.name


def test_what_older_pytorchs_lack():
    rows = re.findall(r'^\| (2\.\d) \| (.+?) \|', SUPPORT, re.MULTILINE)
    for name, row in FORMATS.items():
        named = [needed for needed, what in rows if f'tools/export.py --format {name}`' in what]
        assert named == [row.minimum_torch] * (row.minimum_torch > '2.1')
    assert [needed for needed, what in rows if '--half' in what] == [MINIMUM_TORCH_HALF]
    (safe,) = re.findall(r"^SAFE_LOADING = is_at_least\(torch.__version__, '(.+)'\)", CHECKPOINTS, re.MULTILINE)
    assert [needed for needed, what in rows if what.startswith('loading checkpoints')] == [safe]
    assert f'no code in a checkpoint is executed (with PyTorch {safe} or later)' in ' '.join(README.split())


def test_every_session_of_a_stack_has_passed():
    functions = [node for node in ast.parse(NOXFILE).body if isinstance(node, ast.FunctionDef) and node.decorator_list]
    sessions = {node.name for node in functions if re.search(r'\b(check_stack|finish)\(', ast.unparse(node))}
    rows = re.findall(r'^\| `([\w.-]+)` \|.* \| (\w+)[^|]* \|$', SUPPORT, re.MULTILINE)
    assert sessions and all(result == 'passed' for _, result in rows)
    assert {name.partition('-')[0] for name, _ in rows} <= sessions
    tested = {row.split(' | ')[1][:4] for row in re.findall(r'^\| `.+$', SUPPORT, re.MULTILINE)}
    assert tested <= set(constant('PYTHONS'))
