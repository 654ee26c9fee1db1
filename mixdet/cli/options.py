"""Changing a config from the command line without silent misspellings."""

import difflib
import inspect

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
        UserError: if an option names a key that neither the config nor the class it belongs to knows.
    """
    for key in options:
        _check_option(cfg, key)
    try:
        cfg.merge_from_dict(options)
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise UserError(f'--cfg-options {" ".join(options)}: {first_line(error)}') from error


def _check_option(cfg: Config, option: str) -> None:
    node = cfg._cfg_dict
    path = []
    for part in option.split('.'):
        if isinstance(node, (list, tuple)):
            if not part.isdigit() or int(part) >= len(node):
                raise UserError(
                    f'--cfg-options {option}: {".".join(path)} is a list of {len(node)}, {part!r} is not in it'
                )
            node = node[int(part)]
        elif isinstance(node, dict):
            if part not in node:
                _check_new_key(node, part, option, path)
                return
            node = node[part]
        elif node is None:
            return  # a whole branch that the config leaves open, such as init_cfg
        else:
            raise UserError(f'--cfg-options {option}: {".".join(path)} is {node!r}, it has no keys')
        path.append(part)


def _check_new_key(node: dict, part: str, option: str, path: list[str]) -> None:
    """Raise UserError unless ``part`` is a parameter of what ``node`` configures, though the config does not set it."""
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
    hint = f'did you mean {near[0]}?' if near else f'known here: {", ".join(sorted(map(str, known))[:15])}'
    raise UserError(f'--cfg-options {option}: there is no key {part!r} in {".".join(path) or "the config"}; {hint}')


def _parameters(name) -> set[str]:
    """Names of the constructor's parameters of a registered class, also those it passes on to its bases."""
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


def _find_class(name: str):
    """The class of that name in whichever of MMDetection's, MMEngine's or mixdet's registries has it."""
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
