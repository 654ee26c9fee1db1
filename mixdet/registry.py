"""mixdet's registries.

Each is a child, with scope ``mixdet``, of MMEngine's root registry. MMEngine imports ``mixdet.registry`` by itself when
it meets a ``mixdet.`` prefix, and then the ``locations``: no ``custom_imports`` is needed.
"""

from mmengine import registry as root
from mmengine.registry import Registry

MODELS = Registry(
    'model',
    parent=root.MODELS,
    scope='mixdet',
    locations=[
        'mixdet.layers',
        'mixdet.backbones',
        'mixdet.ssdlite',
        'mixdet.deploy.exported',
        'mixdet.compat.ssd_head',
    ],
)
TASK_UTILS = Registry('task util', parent=root.TASK_UTILS, scope='mixdet', locations=['mixdet.ssdlite'])
DATASETS = Registry('dataset', parent=root.DATASETS, scope='mixdet', locations=['mixdet.datasets'])
TRANSFORMS = Registry('transform', parent=root.TRANSFORMS, scope='mixdet', locations=['mixdet.datasets'])
METRICS = Registry('metric', parent=root.METRICS, scope='mixdet', locations=['mixdet.engine'])
HOOKS = Registry(
    'hook',
    parent=root.HOOKS,
    scope='mixdet',
    locations=['mixdet.engine', 'mixdet.datasets', 'mixdet.analysis.report.hook', 'mixdet.deploy.hook'],
)
OPTIM_WRAPPERS = Registry('optim_wrapper', parent=root.OPTIM_WRAPPERS, scope='mixdet', locations=['mixdet.engine'])
RUNNERS = Registry('runner', parent=root.RUNNERS, scope='mixdet', locations=['mixdet.engine'])
