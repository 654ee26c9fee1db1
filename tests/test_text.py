"""Names of users reach the console, tables, CSV files and figures as they are, whatever is in them."""

import ast
import io
import logging
import os
import re

import pytest
from helpers import ROOT
from matplotlib.figure import Figure

from mixdet import text
from mixdet.text import Console, Table, csv_cell, encodable, markdown_cell, plot_text, printable, shortened

NAMES = {  # what each is shown as
    'screw [small]': 'screw [small]',
    '[/x]': '[/x]',
    '[bold]b': '[bold]b',
    ':cat:': ':cat:',
    'a\\': 'a\\',
    '\\[a]': '\\[a]',
    'Würfel 文': 'Würfel 文',
    'e\x1b[31mred': 'e\\x1b[31mred',
    'a\rb\x00\x9b': 'a\\x0db\\x00\\x9b',
    'line\nbreak': 'line\\x0abreak',
    'gpj\u202e.exe': 'gpj\\u202e.exe',
    os.fsdecode(b'caf\xe9.jpg'): 'caf\\xe9.jpg',
    'lone \ud83d': 'lone \\ud83d',
}


@pytest.mark.parametrize('name', NAMES)
def test_a_name_is_shown_as_it_is(name, capsys):
    assert printable(name) == NAMES[name] and printable(printable(name)) == NAMES[name]
    NAMES[name].encode('utf-8')
    text.print(f'class {name.replace(chr(10), "")}', 1, end='.\n')
    assert capsys.readouterr().out == f'class {NAMES[name].replace(chr(92) + "x0a", "")} 1.\n'
    table = Table('class', name, title=name)
    table.add_row(name, 0.5)
    Console(width=200).print(table)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].strip() == NAMES[name] and sum(NAMES[name] in line for line in lines) == 3
    assert any('0.5' in line for line in lines)


def test_names_that_differ_in_markup_differ_in_a_table(capsys):
    table = Table('class')
    table.add_row('screw [small]')
    table.add_row('screw [large]')
    Console(width=80).print(table)
    assert 'screw [small]' in (out := capsys.readouterr().out) and 'screw [large]' in out


@pytest.mark.parametrize('encoding', ['ascii', 'latin-1', 'cp1252', 'utf-8'])
def test_any_encoding(encoding, monkeypatch):
    """As under a locale without Unicode."""
    buffer = io.BytesIO()
    monkeypatch.setattr('sys.stdout', io.TextIOWrapper(buffer, encoding=encoding))
    text.print('naïve 文')
    table = Table('class', title='文')
    table.add_row('naïve 文')
    Console(width=60).print(table)
    text.sys.stdout.flush()
    shown = {'ascii': 'na\\xefve \\u6587', 'utf-8': 'naïve 文'}.get(encoding, 'naïve \\u6587')
    assert buffer.getvalue().decode(encoding).count(shown) == 2
    assert encodable('文') == shown[-len(shown.split()[1]) :]


def test_cells_of_a_csv_file():
    formulas = ('=1+1', '+1', '-1', '@SUM(A1)', '＝1')  # noqa: RUF001
    assert [csv_cell(name) for name in formulas] == [f"'{name}" for name in formulas]
    assert csv_cell('\t=1') == '\\x09=1' and csv_cell('a=1') == 'a=1' and csv_cell('') == ''
    assert csv_cell(-1.5) == -1.5 and csv_cell(None) is None and csv_cell(os.fsdecode(b'\xe9')) == '\\xe9'


@pytest.mark.parametrize('name', [r'$\frac$', '$', '$$', r'\$a$', 'a$b$c$d', r'$x^2$', '\x1b$1$'])
def test_matplotlib_sets_no_formula(name):
    figure = Figure()
    drawn = figure.text(0, 0, plot_text(name))
    figure.savefig(io.BytesIO(), format='png')
    shown, formula = drawn._preprocess_math(drawn.get_text())
    assert (shown, formula) == (printable(name), False)


@pytest.mark.parametrize('encoding', ['ascii', 'utf-8'])
def test_a_log_takes_any_text(tmp_path, encoding):
    logger = logging.Logger('names')
    logger.addHandler(logging.FileHandler(tmp_path / 'a.log', encoding=encoding))
    text.log_any_text(logger)
    text.log_any_text(logger)
    names = 'a\x1b[31m\u202e', '文 100%', os.fsdecode(b'jpg\xe9')
    logger.warning('%s | %s', *names[:2])
    logger.warning(f'{names[1]} {names[2]}\n\tnext')
    logger.handlers[0].close()
    assert (tmp_path / 'a.log').read_text(encoding='utf-8') == 'a\\x1b[31m\\u202e | 文 100%\n文 100% jpg\\xe9\n\tnext\n'


def test_cells_of_a_table_in_markdown():
    assert markdown_cell('a|b\n<script>') == r'a\|b\x0a&lt;script>' and markdown_cell(0.5) == '0.5'


SOURCES = sorted(
    path for folder in ('mixdet', 'tools') for path in (ROOT / folder).rglob('*.py') if '.mim' not in path.parts
)
# each ends the process at a file name that is not UTF-8; mmcv reads and writes the bytes itself
UNSAFE = {'cv2.imread', 'cv2.imwrite', 'cv2.VideoCapture', 'cv2.VideoWriter'}
PAST_PRINT = {'sys.stdout.write', 'sys.stderr.write', 'sys.__stdout__.write', 'builtins.print'}
DRAWN = {  # arguments of Matplotlib that are text, by place; of any call those of these names
    'text': 2, 'annotate': 0, 'set_title': 0, 'suptitle': 0, 'set_xlabel': 0, 'set_ylabel': 0, 'figtext': 2,
}  # fmt: skip
DRAWN_BY_NAME = {'label', 'title', 'xlabel', 'ylabel'}
PLOTTED = {'plot_text', 'figure_text'}


def dotted(node):
    """``a.b.c``; what is no name is left out."""
    if isinstance(node, ast.Attribute):
        return f'{dotted(node.value)}.{node.attr}'
    return node.id if isinstance(node, ast.Name) else ''


def is_fixed(node):
    """Whether a text is a literal, or one of several."""
    if isinstance(node, ast.IfExp):
        return is_fixed(node.body) and is_fixed(node.orelse)
    return isinstance(node, ast.Constant)


def drawn_raw(name, call):
    """Whether a call gives Matplotlib a text without ``plot_text``."""
    owner, _, method = name.rpartition('.')
    place = DRAWN.get(method) if owner not in ('', 'draw', 'self') else None
    texts = [call.args[place]] if place is not None and len(call.args) > place else []
    texts += [keyword.value for keyword in call.keywords if owner and keyword.arg in DRAWN_BY_NAME]
    return any(
        not is_fixed(node) and not (isinstance(node, ast.Call) and dotted(node.func) in PLOTTED) for node in texts
    )


def without_encoding(name, call):
    """Whether a call reads or writes a text file in the locale's encoding."""
    if any(keyword.arg == 'encoding' for keyword in call.keywords):
        return False
    if name.endswith(('.read_text', '.write_text')):
        return not ast.unparse(call).startswith('distribution(')  # a package's metadata, in their own encoding
    binary = any(isinstance(node, ast.Constant) and 'b' in str(node.value) for node in call.args[:2])
    other = ('os.open', 'Image.open', 'PIL.Image.open', 'archive.open', 'tarfile.open')  # no text files
    return name.rpartition('.')[2] == 'open' and name not in other and not binary


def is_html(node):
    """Whether an f-string puts values into HTML, where a template escapes them."""
    fixed = ''.join(str(part.value) for part in node.values if isinstance(part, ast.Constant))
    return bool(re.search(r'</?[a-z]+[ >]', fixed)) and any(isinstance(p, ast.FormattedValue) for p in node.values)


@pytest.mark.parametrize('path', SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_names_go_no_other_way(path):
    """Whatever prints, draws, writes files or gives OpenCV a file name takes the functions for that."""
    nodes = list(ast.walk(ast.parse(path.read_text(encoding='utf-8'))))
    place = path.relative_to(ROOT).as_posix()
    named = [(dotted(node.func), node) for node in nodes if isinstance(node, ast.Call)]
    calls = {name for name, _ in named}
    imports = [node for node in nodes if isinstance(node, ast.ImportFrom)]
    taken = {alias.name for node in imports if node.module == 'mixdet.text' for alias in node.names}
    modules = {node.module or '' for node in imports}
    modules |= {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    if place != 'mixdet/text.py':
        assert 'print' not in calls or 'print' in taken, 'from mixdet.text import print'
        assert not PAST_PRINT & calls
        rich = {name for name in modules if name.split('.')[0] == 'rich'} - {'rich.progress'}
        assert not rich, 'mixdet.text has Console and Table'
    if place != 'mixdet/deploy/videos.py':
        assert not UNSAFE & calls
    assert not calls & {'csv.writer', 'csv.DictWriter'} or 'csv_cell' in taken
    if any(name.startswith('matplotlib') for name in modules):
        assert not [ast.unparse(call) for name, call in named if drawn_raw(name, call)], 'plot_text'
    assert not [ast.unparse(call) for name, call in named if without_encoding(name, call)], "encoding='utf-8'"
    if place != 'mixdet/report/figures.py':  # escapes the title of a figure itself
        html = [ast.unparse(node) for node in nodes if isinstance(node, ast.JoinedStr) and is_html(node)]
        assert not html, 'a template, which escapes'


def test_long_words_and_texts_lose_their_middle():
    assert shortened('a b') == 'a b' and shortened('x' * 10, 10) == 'x' * 10
    assert shortened('class ' + 'x' * 11 + ' is gone', 10) == 'class xxxxx...(11 characters)...xxxxx is gone'
    assert shortened('ab ' * 4, 10, 6) == 'ab ...(12 characters)...ab '
