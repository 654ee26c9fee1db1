"""Changing a config from the command line; misspelt keys are errors."""

import difflib
import inspect
from collections.abc import Callable
from typing import Optional, Union

from mmengine.config import Config
from mmengine.registry import MODELS, Registry
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from mixdet.errors import UserError, first_line

LOADER_KEYS = {'dataset', 'sampler', 'batch_sampler', 'collate_fn', 'worker_init_fn', 'num_batch_per_epoch'}
RUNNER_KEYS = {'work_dir', 'launcher', 'custom_imports', 'compile', 'tta_model', 'tta_pipeline', 'runner_type'}


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


def _check_option(cfg: Config, option: str) -> None:
    node = cfg._cfg_dict
    path: list[str] = []
    for part in option.split('.'):
        if isinstance(node, (list, tuple)):
            if not part.isdigit() or int(part) >= len(node):
                raise UserError(
                    f'--cfg-options {option}: {".".join(path)} is a list of {len(node)}; {part!r} is not an index of it'
                )
            node = node[int(part)]
        elif isinstance(node, dict):
            if part not in node:
                _check_new_key(node, part, option, path)
                return
            node = node[part]
        elif node is None:
            return  # the config leaves it open, such as init_cfg=None: any key is accepted
        else:
            raise UserError(f'--cfg-options {option}: {".".join(path)} is {node!r}, it has no keys')
        path.append(part)


def _check_new_key(node: dict, part: str, option: str, path: list[str]) -> None:
    """Raise UserError unless ``part``, a key not set in ``node``, is a parameter of what ``node`` configures."""
    known = set(node)
    if not path:
        known |= set(inspect.signature(Runner.__init__).parameters) | RUNNER_KEYS
    elif 'type' in node:
        known |= _parameters(node['type'])
    elif path[-1].endswith('_dataloader'):
        known |= set(inspect.signature(DataLoader.__init__).parameters) | LOADER_KEYS
    if part in known:
        return
    near = difflib.get_close_matches(part, known, n=1)
    hint = f'did you mean {near[0]}?' if near else f'known keys: {", ".join(sorted(map(str, known))[:15])}'
    raise UserError(f'--cfg-options {option}: unknown key {part!r} in {".".join(path) or "the config"}; {hint}')


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
