"""Label maps of the TF Object Detection API: the names of a detector's classes by id."""

import re
from pathlib import Path

from mixdet.errors import UserError, first_line

MAX_DIGITS = 9  # of an id
STRING = r"""(?: "(?:[^"\\\n]|\\.)*" | '(?:[^'\\\n]|\\.)*' )"""
CLOSED = re.compile(STRING, re.VERBOSE)
# a string that is not closed ends with its line: it is looked at once, and refused
OPEN = r"""(?: "(?:[^"\\\n]|\\.)* | '(?:[^'\\\n]|\\.)* )"""
TOKEN = re.compile(rf""" \#[^\n]* | {STRING} | {OPEN} | [{{}}] | [^\s{{}}:"',;#]+ """, re.VERBOSE)


def read_label_map(path: Path) -> dict[int, str]:
    """Class names by id, in the order of the ids: of ``item { id: 1 name: 'n02084071' display_name: 'dog' }`` 'dog'.

    The format is the text format of protocol buffers. Id 0, the background, is left out.

    Raises:
        UserError: if the file cannot be read, an item lacks its id or name, or two have the same id.
    """
    try:
        text = path.read_text(encoding='utf-8-sig')
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f'label map {path} cannot be read: {first_line(error)}') from error
    names: dict[int, str] = {}
    parts = [part for part in TOKEN.findall(text) if not part.startswith('#')]
    for part in parts:
        if part[0] in '"\'' and not CLOSED.fullmatch(part):
            raise UserError(f'label map {path}: the string {part[:40]} is not closed')
    for item in _items(parts):
        name, number = item.get('display_name') or item.get('name'), item.get('id', '')
        if not name or not number.isdecimal() or len(number) > MAX_DIGITS:
            raise UserError(f'label map {path}: item {str(item)[:200]} needs an id (a number) and a name')
        if int(number) in names:
            raise UserError(f'label map {path}: two items have the id {number}; give each class an id of its own')
        names[int(number)] = name
    names.pop(0, None)
    if not names:
        raise UserError(
            f"label map {path} has no class; it must consist of entries such as item {{ id: 1 name: 'cat' }}"
        )
    return dict(sorted(names.items()))


def _items(parts: list[str]) -> list[dict[str, str]]:
    """The fields of each top-level message; those of messages in it (such as keypoints) are skipped."""
    items: list[dict[str, str]] = []
    depth, key = 0, None
    for part in parts:
        if part == '{':
            depth, key = depth + 1, None
            if depth == 1:
                items.append({})
        elif part == '}':
            depth, key = depth - 1, None
        elif depth == 1 and key is None:
            key = part
        elif depth == 1 and key is not None:
            items[-1][key] = re.sub(r'\\(.)', r'\1', part[1:-1]) if part[0] in '"\'' else part
            key = None
    return items
