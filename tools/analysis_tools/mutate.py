"""Mutation testing: does a test fail when a line is broken? python tools/analysis_tools/mutate.py layers ssdlite.

One thing at a time is changed in a copy of the repository (a comparison, an operator, a constant, a condition, a
return value, a statement left out), and the tests of its module are run, then those of its room. A mutant that passes
all of them survives. Like mutmut, this tool forks from a process that has PyTorch and MMDetection loaded; unlike it, it
also changes tables, constants and decorated functions, takes a sample, and leaves messages alone. cosmic-ray starts
Python anew for each mutant, which takes longer here than the tests.
"""

import argparse
import ast
import copy
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Optional

from mixdet.cli.main import run_tool
from mixdet.engine.atomic import check_new, write_text
from mixdet.errors import UserError
from mixdet.text import print

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ('layers', 'ssdlite', 'deploy', 'engine')
LOADED = ('compat',)  # imported before the fork, so that a change would not be seen
COMPARISONS = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
OPERATORS = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.FloorDiv, ast.FloorDiv: ast.Mult, ast.Div: ast.Mult,
    ast.Mod: ast.Mult, ast.Pow: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
}  # fmt: skip
MODULES = ('torch', 'torch._dynamo', 'mmcv', 'mmdet.models', 'mmdet.datasets', 'mmdet.evaluation', 'mmdet.engine.hooks',
           'mmengine.runner', 'matplotlib.pyplot', 'hypothesis', 'pytest')  # fmt: skip
SLACK = 20.0  # s; a mutant may take so much longer than four times the time of the unchanged tests


class Mutant(NamedTuple):
    """``file`` with ``source`` in the place of its content; what was changed in which ``line``."""

    file: Path
    line: int
    change: str
    source: str


def mutants(file: Path) -> list[Mutant]:
    """All mutants of a Python file. Annotations, decorators, strings, imports and ``raise`` stay."""
    text = file.read_text(encoding='utf-8')
    count = sum(1 for _ in _places(ast.parse(text)))
    found = []
    for number in range(count):
        tree = ast.parse(text)
        node, parent, field, index = next(place for i, place in enumerate(_places(tree)) if i == number)
        before = ast.unparse(node)
        changed = _change(copy.deepcopy(node))
        if index is None:
            setattr(parent, field, changed)
        else:
            getattr(parent, field)[index] = changed
        change = f'{before.splitlines()[0]}  ->  {ast.unparse(changed).splitlines()[0]}'
        found.append(Mutant(file, node.lineno, change, ast.unparse(ast.fix_missing_locations(tree)) + '\n'))
    return found


def _places(node: ast.AST) -> Iterator[tuple[ast.AST, ast.AST, str, Optional[int]]]:
    """Every node that can be changed, with the place where it hangs."""
    for field, value in ast.iter_fields(node):
        if field in ('annotation', 'returns', 'decorator_list', 'type_comment'):
            continue
        for index, child in enumerate(value if isinstance(value, list) else [value]):
            if not isinstance(child, ast.AST) or isinstance(
                child, (ast.Import, ast.ImportFrom, ast.Raise, ast.JoinedStr)
            ):
                continue
            if _change(copy.deepcopy(child)) is not None:
                yield child, node, field, index if isinstance(value, list) else None
            yield from _places(child)


def _change(node: ast.AST) -> Optional[ast.AST]:
    """``node`` changed, or None if it is of no kind that is."""
    if isinstance(node, ast.Compare) and type(node.ops[0]) in COMPARISONS:
        node.ops[0] = COMPARISONS[type(node.ops[0])]()
    elif isinstance(node, (ast.BinOp, ast.AugAssign)) and type(node.op) in OPERATORS:
        node.op = OPERATORS[type(node.op)]()
    elif isinstance(node, ast.BoolOp):
        node.op = ast.Or() if isinstance(node.op, ast.And) else ast.And()
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        return node.operand
    elif isinstance(node, ast.IfExp):
        node.body, node.orelse = node.orelse, node.body
    elif isinstance(node, ast.Constant) and isinstance(node.value, (bool, int, float)):
        node.value = not node.value if isinstance(node.value, bool) else node.value + 1
    elif isinstance(node, ast.Return) and node.value is not None and ast.unparse(node.value) != 'None':
        node.value = ast.Constant(None)
    elif isinstance(node, ast.Expr):
        return ast.Pass() if isinstance(node.value, ast.Call) else None
    elif isinstance(node, ast.Assign):
        return ast.Pass() if isinstance(node.targets[0], (ast.Attribute, ast.Subscript)) else None
    else:
        return None
    return node


def tests_of(file: Path) -> list[Path]:
    """The tests to run for a module, in turn: its own, if it has a file of that name, and its room's."""
    room = ROOT / 'tests' / file.parent.name
    own = room / f'test_{file.stem}.py'
    return [*([own] if own.is_file() else []), room]


class Laboratory:
    """A copy of the repository in which mutants are tried, in forks of this process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        names = ['git', 'ls-files', '-z', '--cached', '--others', '--exclude-standard']
        for name in filter(None, subprocess.check_output(names, cwd=ROOT, text=True).split('\0')):
            if (ROOT / name).is_file():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, folder / name)
        os.environ.update(PYTHONPATH=f'{folder}{os.pathsep}{folder / "tests"}', PYTHONDONTWRITEBYTECODE='1')
        sys.dont_write_bytecode = True
        self.times: dict[Path, float] = {}

    def verdict(self, mutant: Mutant) -> str:
        """``killed``, ``timeout`` or ``survived``."""
        target = self.folder / mutant.file.relative_to(ROOT)
        target.write_text(mutant.source, encoding='utf-8')
        try:
            for tests in tests_of(mutant.file):
                status = self.run(tests, 4 * self.times[tests] + SLACK)
                if status != 0:
                    return 'timeout' if status is None else 'killed'
        finally:
            shutil.copy(mutant.file, target)
        return 'survived'

    def check(self, tests: Path) -> None:
        """Run tests on the unchanged code, for their time. Raises UserError if they fail."""
        if tests not in self.times:
            start = time.perf_counter()
            if self.run(tests, 3600) != 0:
                lines = (self.folder / 'pytest.log').read_text(encoding='utf-8', errors='replace').strip().splitlines()
                reason = next((line for line in lines if line.startswith(('FAILED', 'ERROR'))), lines[-1])
                raise UserError(f'{tests.relative_to(ROOT)} fails without any mutation: {reason}')
            self.times[tests] = time.perf_counter() - start

    def run(self, tests: Path, seconds: float) -> Optional[int]:
        """Exit status of pytest in a fork; None if it took longer than ``seconds`` and was ended."""
        child = os.fork()
        if child == 0:
            self._pytest(tests.relative_to(ROOT))
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.02)
        os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)
        return None

    def _pytest(self, tests: Path) -> None:
        """In the fork: run the tests of the copy, and end."""
        status = 1
        try:
            os.setsid()
            os.chdir(self.folder)
            log = os.open('pytest.log', os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(log, 1)
            os.dup2(log, 2)
            _forget_rooms(self.folder)
            sys.path[:0] = [str(self.folder), str(self.folder / 'tests')]
            import pytest

            status = int(
                pytest.main([str(tests), '-x', '-q', '-p', 'no:cacheprovider', '-p', 'no:randomly', '-p', 'no:xdist'])
            )
        finally:
            os._exit(status)


def _forget_rooms(copy_folder: Path) -> None:
    """Have the fork import the rooms anew, from the copy; what patches MMEngine and the empty registries stay."""
    from mmengine.registry import Registry

    import mixdet
    from mixdet import registry

    mixdet.__path__ = [str(copy_folder / 'mixdet')]
    for name in list(sys.modules):
        if name.startswith('mixdet.') and name.split('.')[1] not in (*LOADED, 'registry', 'errors', 'version'):
            del sys.modules[name]
    for value in vars(registry).values():
        if isinstance(value, Registry):
            value._module_dict.clear()
            value._imported = False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('targets', nargs='*', default=ROOMS, help=f'rooms or files (default: {" ".join(ROOMS)})')
    parser.add_argument('--sample', type=int, default=0, metavar='N', help='mutants of each target; 0: all of them')
    parser.add_argument('--seed', type=int, default=0, help='of the sample')
    parser.add_argument('--out', type=Path, metavar='FILE.json', help='write the verdicts to this file')
    args = parser.parse_args()
    if args.out and not args.out.absolute().parent.is_dir():
        raise UserError(f'--out {args.out}: the folder {args.out.parent} does not exist')
    if args.out:
        check_new(args.out, '--out')

    import importlib

    os.environ.setdefault('TRITON_INTERPRET', '1')  # as the tests set it; Triton reads it when it is imported
    for name in MODULES:
        importlib.import_module(name)
    import torch

    torch.set_num_threads(1)  # a fork has none of its parent's threads
    results = []
    with tempfile.TemporaryDirectory(prefix='mutate-') as folder:
        laboratory = Laboratory(Path(folder))
        for target in args.targets:
            chosen = [mutant for file in _files(target) for mutant in mutants(file)]
            if args.sample and len(chosen) > args.sample:
                chosen = sorted(random.Random(args.seed).sample(chosen, args.sample))
            for tests in dict.fromkeys(tests for mutant in chosen for tests in tests_of(mutant.file)):
                laboratory.check(tests)
            for mutant in chosen:
                verdict = laboratory.verdict(mutant)
                place = f'{mutant.file.relative_to(ROOT)}:{mutant.line}'
                results.append(dict(target=target, place=place, change=mutant.change, verdict=verdict))
                if verdict == 'survived':
                    print(f'{place}: {mutant.change}', flush=True)
            verdicts = [result['verdict'] for result in results if result['target'] == target]
            caught = len(verdicts) - verdicts.count('survived')
            print(
                f'{target}: {caught} of {len(verdicts)} mutants caught ({caught / max(len(verdicts), 1):.0%})',
                flush=True,
            )
            if args.out:
                write_text(args.out, json.dumps(results, indent=1) + '\n')


def _files(target: str) -> list[Path]:
    """The Python files of a room or of a path. Raises UserError if there are none."""
    path = Path(target).resolve() if target.endswith('.py') else ROOT / 'mixdet' / target
    files = [path] if path.is_file() else sorted(path.glob('*.py'))
    if not files or ROOT / 'mixdet' not in files[0].parents or files[0].parent.name in ('mixdet', *LOADED):
        raise UserError(f'{target}: must be a room of mixdet, or a file in one, other than {", ".join(LOADED)}')
    return [file for file in files if file.name != '__init__.py']


if __name__ == '__main__':
    run_tool(main)
