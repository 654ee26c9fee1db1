"""Every test begins alike and leaves the process as it found it, so that the order of the tests does not matter."""

import functools
import logging
import os
import random
import signal
import sys
import threading
from types import ModuleType

import numpy as np
import torch
from mmengine import registry as registries
from mmengine.registry import DefaultScope, Registry
from mmengine.utils import ManagerMixin

from mixdet.compat import checkpoints

PACKAGES = ('mixdet', 'mmcv', 'mmdet', 'mmengine', 'torch')
# set by pytest for each test, and by torch's compiler when it is imported
VARIABLES = ('PYTEST_CURRENT_TEST', 'TORCHINDUCTOR_CACHE_DIR', 'TRITON_CACHE_DIR')


def seed() -> None:
    """The same random numbers from here on."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


def state() -> dict:
    """State of the process that any code can change, by name."""
    scope = DefaultScope.get_current_instance()
    return {
        'environment': {name: value for name, value in os.environ.items() if name not in VARIABLES},
        'working directory': os.getcwd(),
        'sys.argv': list(sys.argv),
        'sys.path': [path for path in sys.path if f'site-packages{os.sep}' not in path],  # those are added by imports
        'sys.modules': {name: module for name, module in sys.modules.items() if name.startswith(PACKAGES)},
        'signal handlers': {number.name: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)},
        'threads': {thread.name for thread in threading.enumerate() if not thread.daemon},
        'logging': (logging.root.level, logging.root.manager.disable),
        'default scope': scope and scope.scope_name,
        'trusted files': checkpoints._trusted,
        'torch': {
            'threads': torch.get_num_threads(),
            'dtype': torch.get_default_dtype(),
            'device': torch.empty(0).device,  # PyTorch 2.1 has no get_default_device
            'gradients': torch.is_grad_enabled(),
            'deterministic': torch.are_deterministic_algorithms_enabled(),
            'oneDNN': torch.backends.mkldnn.enabled,
            'cuDNN': (torch.backends.cudnn.enabled, torch.backends.cudnn.benchmark),
        },
        **{f'registry {registry.scope}.{registry.name}': dict(registry.module_dict) for registry in _registries()},
    }


def changes(before: dict, after: dict) -> list[str]:
    """What differs, one line each. New modules are no change, nor is what installed packages register on import."""
    found = []
    for name, old in before.items():
        new = after[name]
        if old == new:
            continue
        if not isinstance(old, dict):
            found.append(f'{name}: {old!r} -> {new!r}')
            continue
        for key in old.keys() | new.keys():
            unchanged = old.get(key) is new.get(key) or old.get(key) == new.get(key)
            added = key not in old and (isinstance(new[key], ModuleType) or _is_installed(new[key]))
            if not (unchanged or added):
                found.append(f'{name}: {key}: {old.get(key)!r} -> {new.get(key)!r}')
    return found


def runs() -> dict:
    """MMEngine's registers of loggers, message hubs, visualizers and scopes, each with its entries' names."""
    return {manager: set(manager._instance_dict) for manager in _managers(ManagerMixin)}


def forget_runs(before: dict) -> None:
    """Take what Runners have registered since ``before`` out of MMEngine's registers; log files are closed."""
    for manager in _managers(ManagerMixin):
        for name in set(manager._instance_dict) - before.get(manager, set()):
            entry = manager._instance_dict.pop(name)
            if isinstance(entry, logging.Logger):
                for handler in entry.handlers:
                    handler.close()


def _managers(base: type) -> list[type]:
    return [manager for child in base.__subclasses__() for manager in (child, *_managers(child))]


def _is_installed(registered) -> bool:
    return getattr(registered, '__module__', '').startswith(PACKAGES)


@functools.cache
def _registries() -> list[Registry]:
    roots = [registry for registry in vars(registries).values() if isinstance(registry, Registry)]
    return [*roots, *(child for root in roots for child in root.children.values())]
