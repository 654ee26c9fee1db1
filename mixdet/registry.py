"""mixdet's registries, each a child of MMEngine's root registry, with the scope ``mixdet``.

When MMEngine meets the prefix ``mixdet.`` it imports this module and then the ``locations`` of the registry, so configs
need no ``custom_imports``. A registry names only rooms below those that build from it: every room builds networks, so
``MODELS`` names only the rooms that networks are made of; hooks are built by the Runner of a tool, so ``HOOKS`` may
name every room below ``cli``.
"""

from mmengine import registry as root
from mmengine.registry import Registry

MODELS = Registry(
    'model', parent=root.MODELS, scope='mixdet', locations=['mixdet.layers', 'mixdet.backbones', 'mixdet.ssdlite']
)
TASK_UTILS = Registry('task util', parent=root.TASK_UTILS, scope='mixdet', locations=['mixdet.ssdlite'])
DATASETS = Registry('dataset', parent=root.DATASETS, scope='mixdet', locations=['mixdet.datasets'])
TRANSFORMS = Registry('transform', parent=root.TRANSFORMS, scope='mixdet', locations=['mixdet.datasets'])
METRICS = Registry('metric', parent=root.METRICS, scope='mixdet', locations=['mixdet.evaluation'])
HOOKS = Registry(
    'hook',
    parent=root.HOOKS,
    scope='mixdet',
    locations=[
        'mixdet.datasets',
        'mixdet.engine',
        'mixdet.weights.hook',
        'mixdet.deploy.hook',
        'mixdet.report.hook',
    ],
)
OPTIM_WRAPPERS = Registry('optim_wrapper', parent=root.OPTIM_WRAPPERS, scope='mixdet', locations=['mixdet.engine'])
RUNNERS = Registry('runner', parent=root.RUNNERS, scope='mixdet', locations=['mixdet.engine'])
