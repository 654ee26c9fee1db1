"""The import check, the package's metadata, README and docs/support.md name the same versions."""

import ast
import re

import pytest
from helpers import ROOT

from mixdet.compat import stack

SUPPORT = (ROOT / 'docs/support.md').read_text(encoding='utf-8')
README = (ROOT / 'README.md').read_text(encoding='utf-8')
SETUP = ast.parse((ROOT / 'setup.py').read_text(encoding='utf-8'))


def constant(name):
    """A constant of setup.py, which cannot be imported without being run."""
    (value,) = (
        node.value for node in SETUP.body if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name
    )
    return ast.literal_eval(value)


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


def test_every_session_of_a_stack_has_passed():
    sessions = set(re.findall(r'^def (\w+)\(session.*\n    """.+"""\n    .*?check_stack', NOXFILE, re.MULTILINE))
    rows = re.findall(r'^\| `([\w.-]+)` \|.* \| (\w+)[^|]* \|$', SUPPORT, re.MULTILINE)
    assert sessions and all(result == 'passed' for _, result in rows)
    assert {name.partition('-')[0] for name, _ in rows} <= sessions
    tested = {row.split(' | ')[1][:4] for row in re.findall(r'^\| `.+$', SUPPORT, re.MULTILINE)}
    assert tested <= set(constant('PYTHONS'))


NOXFILE = (ROOT / 'noxfile.py').read_text(encoding='utf-8')
