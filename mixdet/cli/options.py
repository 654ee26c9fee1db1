"""Changing a config from the command line; misspelt keys are errors."""

import ast
import contextlib
import difflib
import inspect
from collections.abc import Callable
from typing import Any, Optional, Union

from mmengine.config import Config, DictAction
from mmengine.registry import MODELS, Registry
from torch.utils.data import DataLoader

from mixdet.cli.variables import (
    keys_named,
    read_with,
    setting_names,
    settings_of,
    unreached,
    value_at,
    variable_options,
)
from mixdet.engine.config import load_config
from mixdet.engine.schedule import LENGTHS, fit_schedule
from mixdet.errors import UserError, first_line

LOADER_KEYS = {'dataset', 'sampler', 'batch_sampler', 'collate_fn', 'worker_init_fn', 'num_batch_per_epoch'}


class OptionAction(DictAction):
    """MMEngine's action for KEY=VALUE, which also keeps the spaces in names and says what it cannot read."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: Optional[str] = None) -> None:
        """Add the options to ``namespace``."""
        for value in values or ():
            if '=' not in value:
                raise UserError(f'{option_string} {value}: must be KEY=VALUE')
        super().__call__(parser, namespace, values, option_string)

    @staticmethod
    def _parse_iterable(val: str) -> Any:
        """Python's lists, tuples and dicts as Python reads them; anything else as MMEngine does."""
        text = val.strip()
        if text[:1] in ('"', "'") and text[-1:] == text[:1]:
            text = text[1:-1]
        if text[:1] in ('(', '[', '{'):
            try:
                value = ast.literal_eval(text)
            except (ValueError, SyntaxError) as error:  # names without quotes, unless a bracket is missing
                if any(text.count(left) != text.count(right) for left, right in ('()', '[]', '{}')):
                    raise UserError(f'--cfg-options ...={val}: a bracket is missing') from error
                return DictAction._parse_iterable(val)
            return (value,) if text[0] == '(' and not isinstance(value, tuple) else value
        return DictAction._parse_iterable(val) if ',' in text else DictAction._parse_int_float_bool(text)


def config_with_options(path: str, options: dict[str, Any]) -> tuple[Config, list[str]]:
    """The config in ``path`` changed by ``options`` (dotted key to value), and what a user should know of it.

    An option for a variable of the config, such as ``max_epochs``, has everything computed anew that depends on the
    variable. One for the length of the training moves the schedule of the learning rate as well.

    Raises:
        UserError: if the config cannot be read; if an option has a key that neither the config has nor the class it
            configures accepts, or sets a variable that nothing depends on.
    """
    cfg = load_config(path)
    for option, value in options.items():
        _check_option(cfg, option, value, path)
    variables, rest = variable_options(cfg, options), dict(options)
    for key in LENGTHS:
        if f'train_cfg.{key}' in rest and _follows(path, cfg, key, rest[f'train_cfg.{key}']):
            variables[key] = rest.pop(f'train_cfg.{key}')
    cfg = read_with(path, cfg, variables)
    notes = [
        f'--cfg-options {" ".join(variables)}: the config itself sets {kept}' for kept in unreached(cfg, variables)
    ]
    for key in LENGTHS:
        before, after = value_at(cfg, f'train_cfg.{key}'), rest.get(f'train_cfg.{key}')
        if isinstance(before, int) and isinstance(after, int) and 0 < after != before:
            merge_options(cfg, {f'train_cfg.{key}': after})
            changes = fit_schedule(cfg, before)
            if changes:
                notes.append(f'train_cfg.{key} {before} -> {after}, and with it {", ".join(changes)}')
    merge_options(cfg, {key: value for key, value in rest.items() if key not in variables})
    return cfg, notes


def _follows(path: str, cfg: Config, key: str, length: Any) -> bool:
    """Whether the config computes the length of its training from its variable ``key``."""
    if not isinstance(length, int) or not isinstance(cfg.get(key), int) or cfg[key] != cfg.train_cfg.get(key):
        return False
    return value_at(read_with(path, cfg, {key: length}), f'train_cfg.{key}') == length


def merge_options(cfg: Config, options: dict) -> None:
    """Merge ``options`` (dotted key to value) into ``cfg``.

    Raises:
        UserError: if an option has a key that neither the config has nor the class it configures accepts.
    """
    for key in options:
        _check_option(cfg, key)
    try:
        cfg.merge_from_dict(options)
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise UserError(f'--cfg-options {" ".join(options)}: {first_line(error)}') from error


def _check_option(cfg: Config, option: str, value: Any = None, path: Optional[str] = None) -> None:
    """Raise UserError unless ``option`` has a known key; ``value`` and the config's ``path`` serve the suggestion."""
    node = cfg._cfg_dict
    place: list[str] = []
    for part in option.split('.'):
        if isinstance(node, (list, tuple)):
            if not part.isdigit() or int(part) >= len(node):
                raise UserError(
                    f'--cfg-options {option}: {".".join(place)} is a list of {len(node)}; {part!r} is not an index '
                    'of it'
                )
            node = node[int(part)]
        elif isinstance(node, dict):
            if part not in node:
                known = _known_keys(node, place)
                if part not in known:
                    near = _similar(cfg, part, known, value, path) if not place else _closest(part, known)
                    hint = f'did you mean {near}?' if near else f'known keys: {", ".join(sorted(map(str, known))[:15])}'
                    where = '.'.join(place) or 'the config'
                    raise UserError(f'--cfg-options {option}: unknown key {part!r} in {where}; {hint}')
                return
            node = node[part]
        elif node is None:
            return  # the config leaves it open, such as init_cfg=None: any key is accepted
        else:
            raise UserError(f'--cfg-options {option}: {".".join(place)} is {node!r}, it has no keys')
        place.append(part)


def _known_keys(node: dict, place: list[str]) -> set[str]:
    """The keys of ``node``, which is at ``place`` in a config, and the parameters of what it configures."""
    known = set(node)
    if not place:
        known |= setting_names()
    elif 'type' in node:
        known |= _parameters(node['type'])
    elif place[-1].endswith('_dataloader'):
        known |= set(inspect.signature(DataLoader.__init__).parameters) | LOADER_KEYS
    return known


def _closest(part: str, known: set[str]) -> Optional[str]:
    return next(iter(difflib.get_close_matches(part, known, n=1)), None)


def _similar(cfg: Config, name: str, known: set[str], value: Any, path: Optional[str]) -> Optional[str]:
    """What may be meant by the unknown ``name``: a key of that name, a top-level name, or a key like it.

    A variable is suggested only if setting it to ``value`` changes something.
    """
    keys = keys_named(cfg, name)
    if keys and keys[0].rpartition('.')[2] == name:
        return keys[0]
    near = _closest(name, known)
    if near and (near in setting_names() or path is None):
        return near
    with contextlib.suppress(UserError):
        if near and path and settings_of(read_with(path, cfg, {near: value})) != settings_of(cfg):
            return near
    return keys[0] if keys else near


def _parameters(name: Union[str, Callable]) -> set[str]:
    """Names of the constructor's parameters of a registered class, with those it passes on to its bases."""
    cls = _find_class(name) if isinstance(name, str) else name
    names = set()
    for base in getattr(cls, '__mro__', [cls] if cls else []):
        if '__init__' not in vars(base) or base is object:
            continue
        parameters = inspect.signature(base.__init__).parameters.values()
        names |= {parameter.name for parameter in parameters}
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
            break
    return names - {'self', 'args', 'kwargs'}


def _find_class(name: str) -> Optional[Callable]:
    """The class of that name in the registries of MMDetection, MMEngine or mixdet; None if there is none."""
    with MODELS.switch_scope_and_registry('mmdet'):
        import mmdet.registry as mmdet_registries

        import mixdet.registry as mixdet_registries

        for module in (mmdet_registries, mixdet_registries):
            for registry in vars(module).values():
                if isinstance(registry, Registry):
                    cls = registry.get(name)
                    if cls is not None:
                        return cls
    return None
