"""The documentation is true: links, paths, options and names exist, the indexes are complete, the code runs."""

import ast
import importlib
import re
import runpy
import shlex
import textwrap

import numpy as np
import pytest
import torch
from helpers import ROOT

import mixdet.deploy.exported  # registers a class, as its tool does
import mixdet.registry
from mixdet.layers import MixConv2d

SKIPPED = {'.git', '.venv', '.pytest_cache', 'build', 'data', 'dist', 'work_dirs'}
PAGES = sorted(
    path for path in ROOT.rglob('*.md') if not SKIPPED & set(path.relative_to(ROOT).parts) and '.mim' not in path.parts
)
HISTORY = ROOT / 'CHANGELOG.md'  # names what is no more
MADE_BY_READERS = {'configs/custom/my_data.py'}
page = pytest.mark.parametrize('path', PAGES, ids=lambda path: str(path.relative_to(ROOT)))


def text_of(path, language=None):
    """The page without code blocks, or the code blocks in ``language``."""
    text = path.read_text(encoding='utf-8')
    blocks = re.compile(r'^( *)```(\w*)\n(.*?)^\1```$', re.MULTILINE | re.DOTALL)
    if language is None:
        return blocks.sub('', text)
    return [block for _, name, block in blocks.findall(text) if name == language]


def anchors_of(path):
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r'^#+ +(.+)$', text_of(path), re.MULTILINE)
    return {re.sub(r'[^\w\- ]', '', heading.lower()).replace(' ', '-') for heading in headings}


def test_there_are_pages():
    names = {str(path.relative_to(ROOT)) for path in PAGES}
    assert {'README.md', 'CONTRIBUTING.md', 'docs/speed.md', 'configs/mixnet/README.md', 'tools/README.md'} <= names


@page
def test_links_resolve(path):
    for target in re.findall(r'\]\(([^)\s]+)\)', text_of(path)):
        if re.match(r'https?://', target):
            continue
        name, _, anchor = target.partition('#')
        linked = (path.parent / name).resolve() if name else path
        assert linked.exists(), target
        if anchor:
            assert anchor in anchors_of(linked), target


@page
def test_paths_exist(path):
    if path == HISTORY:
        return
    pattern = r'(?<![\w./])(?:tools|docs|configs|mixdet|tests)/[\w./-]+\.(?:py|sh|md|yml|cpp|h|html)\b'
    for name in re.findall(pattern, path.read_text(encoding='utf-8')):
        assert (ROOT / name).is_file() or name in MADE_BY_READERS, name


@page
def test_tools_have_the_options_that_commands_use(path):
    common = (ROOT / 'mixdet/cli/arguments.py').read_text()
    for block in text_of(path, 'bash'):
        for line in block.replace('\\\n', ' ').splitlines():
            words = shlex.split(line, comments=True)
            tools = [word for word in words if re.fullmatch(r'tools/[\w/]+\.(py|sh)', word)]
            if not tools:
                continue
            source = (ROOT / tools[0]).read_text()
            if tools[0].endswith('.sh'):
                source += (ROOT / 'tools/train.py').read_text() + (ROOT / 'tools/test.py').read_text()
            for option in (word for word in words if word.startswith('--')):
                name = option.partition('=')[0]
                known = f"'{name}'" in source + common or f'{name})' in source or name.startswith('--no-')
                # table1.py makes --train-ann and its like in a loop
                assert known or re.fullmatch(r'--(train|val)-(ann|images)', name), f'{tools[0]} {name}'


@page
def test_names_of_the_package_exist(path):
    if path == HISTORY:
        return
    for name in set(re.findall(r'(?<![\w./-])mixdet(?:\.\w+)+', path.read_text(encoding='utf-8'))):
        assert name.rpartition('.')[2] in ('py', 'json') or resolves(name), name


def resolves(name):
    """Whether ``name`` is a module, an attribute of one, or a registered class."""
    registries = [value for value in vars(mixdet.registry).values() if isinstance(value, mixdet.registry.Registry)]
    parts = name.split('.')
    if len(parts) == 2 and any(registry.get(name) for registry in registries):
        return True
    found = mixdet
    for i, part in enumerate(parts[1:], 2):
        if not hasattr(found, part):
            try:
                importlib.import_module('.'.join(parts[:i]))
            except ImportError:
                return False
        found = getattr(found, part)
    return True


@page
def test_python_blocks_are_python(path):
    for block in text_of(path, 'python'):
        ast.parse(textwrap.dedent(block))


def test_the_readmes_code_runs():
    (block,) = text_of(ROOT / 'README.md', 'python')
    shape, channels = re.findall(r'# .*?(\(.+?\)|(?:\d+, )+\d+)(?= channels|$)', block, re.MULTILINE)[-2:]
    names = {}
    exec(block, names)
    assert str(tuple(names['conv'](torch.randn(1, 32, 40, 40)).shape)) == shape
    assert [conv.out_channels for conv in names['conv'].convs] == [12, 10, 10]
    mixed = MixConv2d(32, 64, (3, 5, 7, 9), split='exponential', dilated=True)
    assert ', '.join(str(conv.in_channels) for conv in mixed.convs) == channels


def test_the_index_lists_every_guide():
    pages = {path.name for path in (ROOT / 'docs').glob('*.md')} - {'README.md'}
    listed = set(re.findall(r'\]\((\w+\.md)\)', (ROOT / 'docs/README.md').read_text()))
    assert listed == pages


def test_every_tool_has_a_line():
    tools = {
        str(path.relative_to(ROOT / 'tools')) for path in (ROOT / 'tools').rglob('*') if path.suffix in ('.py', '.sh')
    }
    rows = re.findall(
        r'^\| \[([\w.]+)\]\(([\w./]+)\) \| \S.+ \| \[', (ROOT / 'tools/README.md').read_text(), re.MULTILINE
    )
    assert len(rows) == len(tools) and {target for _, target in rows} == tools
    assert all(target.rpartition('/')[2] == name for name, target in rows)


def test_the_architecture_names_every_room():
    rooms = re.findall(r'^\| \[(\w+)\]\(\.\./mixdet/', (ROOT / 'docs/architecture.md').read_text(), re.MULTILINE)
    packages = {path.parent.name for path in (ROOT / 'mixdet').glob('*/__init__.py')}
    assert len(rooms) == len(packages) + 1 and set(rooms) == {*packages, 'registry'}


def test_every_picture_is_shown():
    text = ''.join(path.read_text(encoding='utf-8') for path in PAGES)
    for picture in [*(ROOT / 'docs').rglob('*.png'), *(ROOT / 'docs').rglob('*.jpg')]:
        assert picture.name in text and picture.stat().st_size < 250_000, picture


def test_the_onnx_example_draws_what_it_finds():
    pytest.importorskip('onnxruntime')
    draw = runpy.run_path(str(ROOT / 'docs/examples/detect_onnx.py'))['draw']
    image = np.full((60, 80, 3), 128, np.uint8)
    picture = np.array(draw(image, [('cat', 0.9, [20.0, 10.0, 70.0, 50.0])]))
    changed = (picture != image).any(-1)
    assert changed[50, 20:71].all() and changed[10:51, 70].all() and not changed[:10].any() and not changed[52:].any()
    assert (image == 128).all()
