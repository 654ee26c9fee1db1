"""Rooms use only rooms below them, by import and by registered name; no circles; tests mirror the package."""

import ast
import importlib
import re
from functools import cache

import pytest
from helpers import ROOT

PACKAGE = ROOT / 'mixdet'
# from the bottom up (docs/architecture.md); rooms of one line do not use one another
LEVELS = [
    ('version', 'errors', 'text'),
    ('compat',),
    ('registry',),
    ('layers',),
    ('backbones',),
    ('ssdlite',),
    ('datasets',),
    ('evaluation',),
    ('engine',),
    ('weights',),
    ('deploy',),
    ('benchmark',),
    ('swap', 'report', 'reproduction'),
    ('cli',),
]
LEVEL = {room: level for level, rooms in enumerate(LEVELS) for room in rooms}
MODULES = {
    '.'.join(path.relative_to(ROOT).with_suffix('').parts).removesuffix('.__init__'): path
    for path in sorted(PACKAGE.rglob('*.py'))
    if '.mim' not in path.parts
}
ROOMS = sorted(path.parent.name for path in PACKAGE.glob('*/__init__.py'))
# tested by the tests of another file: what they are for is only seen there
TESTED_ELSEWHERE = {
    'backbones.base': 'backbones/test_backbones.py',
    'backbones.mixnet': 'backbones/test_backbones.py',
    'backbones.mobilenet_v1': 'backbones/test_backbones.py',
    'backbones.mobilenet_v2': 'backbones/test_backbones.py',
    'compat.mmcv_ops': 'compat/test_ops.py',
    'deploy.formats.onnx': 'deploy/test_exported.py',
    'deploy.formats.torch_export': 'deploy/test_exported.py',
    'deploy.formats.torchscript': 'deploy/test_exported.py',
    'layers.registration': 'layers/test_native.py',
    'layers.triton_kernels': 'layers/test_triton_ops.py',
    'version': 'test_package.py',
}
LONGEST = {'mixdet': 330, 'tools': 330, 'tests': 480}  # lines of a file


def room_of(module: str) -> str:
    """Room of ``mixdet.room.file``; the package itself, which assembles the rooms, has none."""
    return [*module.split('.'), ''][1]


@cache
def tree(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text(encoding='utf-8'))


@cache
def imports(module: str, at_import: bool = False) -> frozenset[str]:
    """The modules of mixdet that ``module`` imports anywhere, or only those it imports when it is imported."""
    found = set()
    nodes = [tree(module)]
    while nodes:
        node = nodes.pop()
        if at_import and (isinstance(node, ast.FunctionDef) or _only_for_types(node)):
            continue
        nodes += ast.iter_child_nodes(node)
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:  # a module of a package, or a name in a module
                whole = f'{node.module}.{alias.name}'
                found.add(whole if whole in MODULES else node.module)
    return frozenset(found & set(MODULES) - {'mixdet', module})


def _only_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and 'TYPE_CHECKING' in ast.dump(node.test)


@cache
def registered() -> dict[str, str]:
    """Classes registered under ``mixdet.``: name to module."""
    return {
        node.name: module
        for module in MODULES
        for node in ast.walk(tree(module))
        if isinstance(node, ast.ClassDef) and any('register_module' in ast.dump(d) for d in node.decorator_list)
    }


def strings(module: str) -> list[str]:
    """Strings of a module that are not docstrings."""
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree(module))
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and isinstance(node.body[0], ast.Expr)
    }
    return [
        node.value
        for node in ast.walk(tree(module))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings
    ]


def may_use(user: str, used: str) -> bool:
    return user in ('', used) or LEVEL[used] < LEVEL[user]


def test_every_room_has_a_level():
    assert set(ROOMS) <= set(LEVEL) and {room_of(module) for module in MODULES} - {''} == set(LEVEL)


@pytest.mark.parametrize('module', MODULES)
def test_imports_go_downward(module):
    upward = {name for name in imports(module) if not may_use(room_of(module), room_of(name))}
    assert not upward
    for node in ast.walk(tree(module)):
        names = [alias.name for alias in getattr(node, 'names', [])] if isinstance(node, ast.Import) else []
        names += [node.module or ''] if isinstance(node, ast.ImportFrom) else []
        assert not any(name.split('.')[0] in ('tools', 'tests', 'helpers') for name in names)


@pytest.mark.parametrize(
    'module', sorted(set(MODULES) - {'mixdet.registry'})
)  # tests/test_registry.py has the registries
def test_registered_names_go_downward(module):
    """The registries' own locations are tested in tests/test_registry.py."""
    homes = registered()
    for text in strings(module):
        for name in re.findall(r'(?<![\w.])mixdet\.(\w+)', text):
            home = homes.get(name)
            if home and text.startswith('mixdet.'):  # a name to look up, not a message about one
                assert may_use(room_of(module), room_of(home)), f'{text!r} is a class of {home}'


def test_no_module_imports_itself_through_others():
    finished: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, ' -> '.join((*path[path.index(module) :], module))
        if module not in finished:
            for name in sorted(imports(module, at_import=True)):
                # a room's __init__ collects its modules: they may not go through it
                visit(name, (*path, module))
            finished.add(module)

    for module in MODULES:
        visit(module, ())


@pytest.mark.parametrize('room', ROOMS)
def test_a_room_says_what_it_answers_and_uses(room):
    text = ast.get_docstring(tree(f'mixdet.{room}'))
    assert re.search(r'\b[Uu]ses?\b|Knows nothing', text), text


@pytest.mark.parametrize('module', [name for name, path in MODULES.items() if path.name != '__init__.py'])
def test_tests_mirror_the_package(module):
    name = module.removeprefix('mixdet.')
    *rooms, last = name.split('.')
    tests = ROOT / 'tests' / TESTED_ELSEWHERE.get(name, '/'.join([*rooms, f'test_{last}.py']))
    assert tests.is_file(), f'{tests} is missing'


def test_every_test_file_of_a_room_has_its_module():
    for room in ROOMS:
        for path in (ROOT / 'tests' / room).glob('test_*.py'):
            module = f'mixdet.{room}.{path.stem.removeprefix("test_")}'
            assert module in MODULES or f'{room}/{path.name}' in TESTED_ELSEWHERE.values(), path


@pytest.mark.parametrize('folder', LONGEST)
def test_files_are_short(folder):
    long = {
        str(path.relative_to(ROOT)): lines
        for path in (ROOT / folder).rglob('*.py')
        if '.mim' not in path.parts and (lines := len(path.read_text(encoding='utf-8').splitlines())) > LONGEST[folder]
    }
    assert not long


NAMES = {
    'mixdet': ('Detection', 'Detector', '__version__'),
    'mixdet.backbones': ('MixDepthwise', 'MixNet', 'MobileNetV1', 'MobileNetV2'),
    'mixdet.datasets': ('DemoDataset', 'make_demo_data'),
    'mixdet.deploy': ('Detection', 'Detector', 'fuse'),
    'mixdet.engine': ('CheckpointHook', 'InterruptHook', 'NonFiniteHook', 'Runner'),
    'mixdet.engine.allocator': ('keep_freed_memory',),
    'mixdet.compat.checkpoints': ('trust_files',),
    'mixdet.evaluation': ('CocoMetric',),
    'mixdet.layers': (
        'Conv2dSame', 'ConvNormAct', 'DepthwiseSeparable', 'InvertedResidual', 'MixConv2d', 'MixConvNormAct',
        'PointwiseConv2d', 'SqueezeExcite', 'Where', 'depthwise_layers', 'grow', 'make_divisible', 'mix_depthwise',
        'parse_kernel_sizes', 'set_mixconv_impl', 'split_channels',
    ),
    'mixdet.ssdlite': ('SSDLite', 'SSDLiteAnchorGenerator', 'SSDLiteHead', 'SSDLiteNeck'),
    'mixdet.swap': ('swap_backbone',),
}  # fmt: skip


@pytest.mark.parametrize('module', NAMES)
def test_names_that_users_import_stay(module):
    loaded = importlib.import_module(module)
    assert all(callable(getattr(loaded, name)) or name == '__version__' for name in NAMES[module])


REGISTERED = {
    'CPUAmpOptimWrapper', 'ChannelsLastHook', 'CheckpointHook', 'CocoMetric', 'Conv2dSame', 'DatasetCheckHook',
    'DemoDataset', 'ExportedDetector', 'FuseHook', 'ImageCacheHook', 'InterruptHook', 'LoadCachedImage',
    'MixConv2d', 'MixConvImplHook', 'MixDepthwise', 'MixNet', 'MobileNetV1', 'MobileNetV2', 'NonFiniteHook',
    'PointwiseConv2d', 'PredictionGridHook', 'ReportHook', 'Runner', 'SSDHead', 'SSDLite', 'SSDLiteAnchorGenerator',
    'SSDLiteHead', 'SSDLiteNeck', 'TFResize',
}  # fmt: skip


def test_registered_names_stay():
    assert set(registered()) >= REGISTERED


TOOLS = {
    'ablation_configs.py', 'benchmark_data.py', 'check_dataset.py', 'convert_weights.py', 'demo.sh', 'dist_test.sh',
    'dist_train.sh', 'export.py', 'install.sh', 'predict.py', 'replay.py', 'report.py', 'run_tests.sh',
    'slurm_train.sh', 'swap_backbone.py', 'table1.py', 'test.py', 'train.py',
}  # fmt: skip


def test_tools_stay():
    assert {path.name for path in (ROOT / 'tools').iterdir() if path.is_file()} >= TOOLS
