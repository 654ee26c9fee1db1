"""Variables of a config that are set from the command line: the config file is read again with their new values."""

import difflib
import functools
import inspect
from collections.abc import Iterator
from typing import Any

from mmengine.config import Config
from mmengine.runner import Runner

from mixdet.compat.config_variables import variables_set
from mixdet.engine.config import load_config
from mixdet.errors import UserError

# settings that are not parameters of the Runner
OTHER_SETTINGS = {
    'work_dir',
    'launcher',
    'custom_imports',
    'compile',
    'tta_model',
    'tta_pipeline',
    'runner_type',
    'activation_checkpointing',
    'efficient_conv_bn_eval',
}
FOLDERS = ('root', 'dir', 'prefix', 'path', 'folder')  # ends of the names of variables that hold one


@functools.cache
def setting_names() -> frozenset[str]:
    """Top-level names of a config that the Runner or the tools read; others are variables of the config's own."""
    return frozenset(inspect.signature(Runner.__init__).parameters) - {'self', 'cfg'} | OTHER_SETTINGS


def is_setting(name: str) -> bool:
    """Whether ``name`` is one of ``setting_names``."""
    return name in setting_names()


def variable_options(cfg: Config, options: dict[str, Any]) -> dict[str, Any]:
    """Those of ``options`` that set a variable of ``cfg`` which is no setting of its own, or one inside it.

    A setting with a plain value, such as ``work_dir``, counts as a variable: others may be computed from it.
    """
    chosen = {}
    for option, value in options.items():
        name, _, rest = option.partition('.')
        if name in cfg and (not is_setting(name) or not (rest or _is_structure(cfg[name]) or _is_structure(value))):
            chosen[option] = _like(cfg[name], name, value) if not rest else value
    return chosen


def read_with(path: str, cfg: Config, variables: dict[str, Any]) -> Config:
    """The config in ``path`` with ``variables`` set; ``cfg`` is the one without.

    Raises:
        UserError: if the config cannot be read with them, or one changes nothing because nothing is computed from it.
    """
    if not variables:
        return cfg
    changed = _read(path, variables)
    for option, value in variables.items():
        name = option.partition('.')[0]
        if is_setting(name) or value_at(cfg, option) == value:
            continue
        others = {key: other for key, other in variables.items() if key != option}
        if settings_of(_read(path, others) if others else cfg) == settings_of(changed):
            keys = keys_named(cfg, option)
            hint = f'set {" or ".join(keys[:3])}' if keys else 'set what you want to change by its full key'
            raise UserError(f'--cfg-options {option}: nothing in {path} is computed from it; {hint}')
    return changed


def settings_of(cfg: Config) -> dict[str, Any]:
    """What a Runner is built from, without the variables."""
    return {name: value for name, value in cfg.to_dict().items() if is_setting(name)}


def unreached(cfg: Config, variables: dict[str, Any]) -> list[str]:
    """Settings named as a variable in ``variables`` if none has got its value: 'train_cfg.max_epochs=12', ..."""
    found = []
    for option, value in variables.items():
        if '.' not in option and not is_setting(option):
            values = {key: value_at(cfg, key) for key in keys_named(cfg, option) if key.endswith(f'.{option}')}
            if value not in values.values():
                found += [f'{key}={kept}' for key, kept in values.items()]
    return found


def keys_named(cfg: Config, option: str) -> list[str]:
    """Keys of the settings in ``cfg`` whose last part is that of ``option``, or close to it where none is equal."""
    name = option.rpartition('.')[2]
    keys = [key for setting in cfg if is_setting(setting) for key in _leaves(cfg[setting], setting)]
    equal = [key for key in keys if key.rpartition('.')[2] == name]
    if equal:
        return equal
    near = difflib.get_close_matches(name, {key.rpartition('.')[2] for key in keys}, n=1, cutoff=0.8)
    return [key for key in keys if near and key.rpartition('.')[2] == near[0]]


def value_at(cfg: Any, key: str) -> Any:
    """The value in ``cfg`` at the dotted ``key``; None if there is none."""
    for part in key.split('.'):
        if isinstance(cfg, (list, tuple)):
            cfg = cfg[int(part)] if part.isdigit() and int(part) < len(cfg) else None
        else:
            cfg = cfg.get(part) if isinstance(cfg, (dict, Config)) else None
    return cfg


def _read(path: str, variables: dict[str, Any]) -> Config:
    try:
        with variables_set(variables):
            return load_config(path)
    except UserError as error:
        raise UserError(f'--cfg-options {" ".join(variables)}: {error}') from error


def _leaves(node: Any, key: str) -> Iterator[str]:
    """Keys of all that is inside ``node`` and neither a dict nor a list of dicts."""
    if isinstance(node, dict):
        for name, value in node.items():
            yield from _leaves(value, f'{key}.{name}')
    elif _is_structure(node):
        for i, value in enumerate(node):
            yield from _leaves(value, f'{key}.{i}')
    else:
        yield key


def _is_structure(value: Any) -> bool:
    return isinstance(value, dict) or (isinstance(value, (list, tuple)) and any(isinstance(v, dict) for v in value))


def _like(old: Any, name: str, value: Any) -> Any:
    """``value`` as ``old`` is written: a single name for a list of names, a folder without its final slash."""
    if not isinstance(value, str):
        return value
    if isinstance(old, (list, tuple)):
        return type(old)([value])
    is_folder = isinstance(old, str) and old.endswith('/') and name.endswith(FOLDERS)
    return f'{value}/' if is_folder and value and not value.endswith('/') else value
