"""Text that is not ours (names of classes, files, keys) on its way to a console, a log, a table, a file or a figure.

Such names may hold anything: Rich's markup, a terminal's control sequences, a spreadsheet's formula, TeX, bytes that
are no text. ``print``, ``Console`` and ``Table`` take the place of Python's and Rich's, and show every name as it is.
"""

import builtins
import io
import logging
import re
import sys
from typing import Any, Optional, TextIO, TypeVar, Union

from rich.console import Console as RichConsole
from rich.table import Table as RichTable
from rich.text import Text

# control characters, line and paragraph separators, marks that reverse the direction, and what cannot be encoded
UNPRINTABLE = re.compile('[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]')
OTHER_THAN_LAYOUT = re.compile(f'(?![\n\t]){UNPRINTABLE.pattern}')
FORMULA = ('=', '+', '-', '@', '＝', '＋', '－', '＠')  # noqa: RUF001  (as spreadsheets read them)

Cell = TypeVar('Cell')


def printable(text: object) -> str:
    r"""``text`` in one line that any terminal and any UTF-8 file can hold; other characters as ``\x1b`` or ``\u202e``.

    A byte of a file name that is not UTF-8 is shown as ``\xe9``.
    """
    return UNPRINTABLE.sub(_escape, str(text))


def shortened(text: str, word: int = 500, whole: int = 4000) -> str:
    """``text`` without the middle of words longer than ``word``, and without its own if it is longer than ``whole``."""
    text = re.sub(rf'\S{{{word + 1},}}', lambda found: _without_middle(found[0], word), text)
    return text if len(text) <= whole else _without_middle(text, whole)


def _without_middle(text: str, length: int) -> str:
    return f'{text[: length // 2]}...({len(text)} characters)...{text[-length // 2 :]}'


def encodable(text: str, stream: Optional[TextIO] = None) -> str:
    """``text`` with escapes for what the encoding of ``stream``, by default stdout, lacks."""
    encoding = getattr(stream or sys.stdout, 'encoding', None) or 'utf-8'
    return text.encode(encoding, 'backslashreplace').decode(encoding)


def print(*values: object, sep: str = ' ', end: str = '\n', file: Optional[TextIO] = None, flush: bool = False) -> None:
    """Python's ``print`` for values with any text in them; only line breaks and tabs are kept as they are."""
    text = OTHER_THAN_LAYOUT.sub(_escape, sep.join(map(str, values)) + end)
    builtins.print(encodable(text, file), end='', file=file, flush=flush)


class Console(RichConsole):
    """Rich's console, which takes no text for markup or an emoji.

    Args:
        width: columns where the output is no terminal, whose own width counts.
        stderr: write to stderr.
    """

    def __init__(self, width: Optional[int] = None, stderr: bool = False) -> None:
        terminal = (sys.stderr if stderr else sys.stdout).isatty()
        super().__init__(width=None if terminal else width, stderr=stderr, markup=False, emoji=False, highlight=False)


class Table(RichTable):
    """Rich's table of plain text.

    Args:
        headers: of the columns.
        title: above the table.
    """

    def __init__(self, *headers: object, title: object = '') -> None:
        super().__init__(title=_text(title) if title else None, title_justify='left')
        for header in headers:
            self.add_column(header)

    def add_column(self, header: Any = '', *args: Any, **kwargs: Any) -> None:
        """Add a column, its header as plain text."""
        super().add_column(_text(header), *args, **kwargs)

    def add_row(self, *cells: object, **kwargs: Any) -> None:
        """Add a row of plain text."""
        super().add_row(*map(_text, cells), **kwargs)


class _PrintableMessages(logging.Filter):
    """Has the messages of a logger written as ``print`` writes them."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = OTHER_THAN_LAYOUT.sub(_escape, record.getMessage()), ()
        return True


_printable_messages = _PrintableMessages()


def log_any_text(logger: logging.Logger) -> None:
    """Have ``logger`` show every name as it is; its files are in UTF-8, whatever the locale."""
    logger.addFilter(_printable_messages)
    for handler in logger.handlers:
        if isinstance(handler, logging.FileHandler) and isinstance(handler.stream, io.TextIOWrapper):
            handler.stream.reconfigure(encoding='utf-8')


def csv_cell(value: Cell) -> Union[Cell, str]:
    """``value`` for a CSV file in UTF-8. Text that a spreadsheet would compute gets an apostrophe before it."""
    if not isinstance(value, str):
        return value
    text = printable(value)
    return f"'{text}" if text.startswith(FORMULA) else text


def markdown_cell(value: object) -> str:
    """``value`` for a cell of a table in Markdown."""
    return printable(value).replace('|', r'\|').replace('<', '&lt;')


def plot_text(text: object) -> str:
    """``text`` for Matplotlib, which would set what stands between dollars as a formula."""
    return printable(text).replace('$', r'\$')


def _text(value: object) -> Text:
    return value if isinstance(value, Text) else Text(encodable(printable(value)))


def _escape(character: re.Match) -> str:
    code = ord(character[0])
    if 0xDC80 <= code <= 0xDCFF:  # a byte of a file name that could not be decoded
        code -= 0xDC00
    return f'\\x{code:02x}' if code < 256 else f'\\u{code:04x}'
