"""Names of users reach the console, tables, CSV files and figures as they are, whatever is in them."""

import ast
import io
import os

import pytest
from helpers import ROOT
from matplotlib.figure import Figure

from mixdet import text
from mixdet.text import Console, Table, csv_cell, encodable, plot_text, printable, shortened

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


SOURCES = sorted(path for path in (*ROOT.glob('mixdet/**/*.py'), *ROOT.glob('tools/*.py')) if '.mim' not in path.parts)
RICH = {'rich', 'rich.console', 'rich.table', 'rich.text', 'rich.markup'}
OUR_NAMES = {'benchmark', 'reproduction'}  # rooms that write and draw no others
# each ends the process at a file name that is not UTF-8; mmcv reads and writes the bytes itself
UNSAFE = {'cv2.imread', 'cv2.imwrite', 'cv2.VideoCapture', 'cv2.VideoWriter'}


@pytest.mark.parametrize('path', SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_names_go_no_other_way(path):
    """Whatever prints, draws tables, writes CSV files or gives OpenCV a file name takes the functions for that."""
    module, place = ast.parse(path.read_text(encoding='utf-8')), path.relative_to(ROOT).as_posix()
    calls = {ast.unparse(node.func) for node in ast.walk(module) if isinstance(node, ast.Call)}
    imports = [node for node in ast.walk(module) if isinstance(node, ast.ImportFrom)]
    taken = {alias.name for node in imports if node.module == 'mixdet.text' for alias in node.names}
    if place != 'mixdet/text.py':
        assert 'print' not in calls or 'print' in taken, 'from mixdet.text import print'
        assert not RICH & {node.module for node in imports}, 'mixdet.text has Console and Table'
    if place != 'mixdet/deploy/videos.py':
        assert not UNSAFE & calls
    if not OUR_NAMES & set(path.parts):
        assert not calls & {'csv.writer', 'csv.DictWriter'} or 'csv_cell' in taken
        assert not any(name.endswith('.legend') for name in calls) or 'plot_text' in taken


def test_long_words_and_texts_lose_their_middle():
    assert shortened('a b') == 'a b' and shortened('x' * 10, 10) == 'x' * 10
    assert shortened('class ' + 'x' * 11 + ' is gone', 10) == 'class xxxxx...(11 characters)...xxxxx is gone'
    assert shortened('ab ' * 4, 10, 6) == 'ab ...(12 characters)...ab '
