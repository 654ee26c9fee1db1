"""Reading a config file with other values of its variables.

Defect answered: mmengine 0.10.7 merges options into the result of a config. An option for a variable that the config
computes with, such as ``max_epochs`` or ``data_root``, then changes that variable and nothing else. Can go when
``Config.fromfile`` takes values of variables.
"""

import ast
import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Optional

from mmengine.config import config as mmengine_config

_options: dict[str, Any] = {}  # those in force
_HEADER_FIELDS = ('targets', 'target')  # of a statement that binds names


@contextlib.contextmanager
def variables_set(options: Mapping[str, Any]) -> Iterator[None]:
    """Inside, the variables of each config file that is read have other values.

    A variable keeps its value wherever a file of the chain of ``_base_`` (or ``read_base``) assigns to it, so that
    whatever is computed from it follows.

    Args:
        options: value by variable, or by the place inside one: ``max_epochs``, ``train_pipeline.1.scale``. Where a file
            has no such place in the variable, its value is left alone.
    """
    seams = {name: getattr(mmengine_config, name) for name in ('RemoveAssignFromAST', 'ImportTransformer', 'load')}
    load = seams['load']

    def load_data(*args: Any, **kwargs: Any) -> Any:  # a config in JSON or YAML
        data = load(*args, **kwargs)
        return {name: replaced(name, value) for name, value in data.items()} if isinstance(data, dict) else data

    _options.update(options)
    for name in ('RemoveAssignFromAST', 'ImportTransformer'):  # classic and lazy configs
        setattr(mmengine_config, name, type(name, (_SettingVariables, seams[name]), {}))
    mmengine_config.load = load_data
    try:
        yield
    finally:
        _options.clear()
        for name, seam in seams.items():
            setattr(mmengine_config, name, seam)


def replaced(name: str, value: Any) -> Any:
    """What the variable ``name`` becomes when a config file gives it ``value``; called by the files themselves."""
    for option, new in _options.items():
        variable, *path = option.split('.')
        if variable == name:
            value = _with_item(value, path, new)
    return value


def _with_item(node: Any, path: Sequence[str], new: Any) -> Any:
    """``node`` with ``new`` at ``path``: changed in place, but for tuples; unchanged if it has no such place."""
    if not path:
        return new
    node = {} if node is None else node  # left open, such as backend_args
    key = _key(node, path[0])
    if key is None:
        return node
    item = _with_item(node.get(key) if isinstance(node, dict) else node[key], path[1:], new)
    if isinstance(node, tuple):
        return (*node[:key], item, *node[key + 1 :])
    node[key] = item
    return node


def _key(node: Any, part: str) -> Any:
    """``part`` as a key of ``node``; None if it is none."""
    if isinstance(node, dict):
        return part
    if isinstance(node, (list, tuple)) and part.isdigit() and int(part) < len(node):
        return int(part)
    return None


class _SettingVariables(ast.NodeTransformer):
    """After each statement of a config file that assigns to a variable of ``_options``, replaces the variable."""

    def visit_Module(self, node: ast.Module) -> ast.Module:
        """Transform as MMEngine does, then add the statements."""
        self.generic_visit(node)
        node.body = _with_replacements(node.body)
        return ast.fix_missing_locations(node)


def _with_replacements(statements: list[ast.stmt]) -> list[ast.stmt]:
    known = {option.partition('.')[0] for option in _options}
    result: list[ast.stmt] = []
    for statement in statements:
        result.append(statement)
        if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            continue  # has variables of its own
        for block in ('body', 'orelse', 'finalbody'):
            if getattr(statement, block, None):
                setattr(statement, block, _with_replacements(getattr(statement, block)))
        for handler in getattr(statement, 'handlers', ()):
            handler.body = _with_replacements(handler.body)
        bound = [_replacement(name) for name in _bound_names(statement) if name in known]
        if isinstance(statement, ast.For):
            statement.body = [*bound, *statement.body]
        else:
            result += bound
    return result


def _bound_names(statement: ast.stmt) -> list[str]:
    """The variables that ``statement`` itself assigns to."""
    if isinstance(statement, ast.AnnAssign) and statement.value is None:
        return []
    header = [getattr(statement, field, None) for field in _HEADER_FIELDS]
    nodes: list[Optional[ast.AST]] = []
    for part in header:
        nodes += part if isinstance(part, list) else [part]
    names = [inner for node in nodes if node is not None for inner in ast.walk(node) if isinstance(inner, ast.Name)]
    return list(dict.fromkeys(name.id for name in names if isinstance(name.ctx, ast.Store)))


def _replacement(name: str) -> ast.stmt:
    """The statement that replaces the variable; an import by name would be an entry of the config, or lazy."""
    return ast.parse(f"{name} = __import__({__name__!r}, fromlist=['replaced']).replaced({name!r}, {name})").body[0]
