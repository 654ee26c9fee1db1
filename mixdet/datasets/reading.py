"""Reading a COCO file as JSON, whatever its encoding."""

import json
from pathlib import Path
from typing import Any, Optional

from mixdet.datasets.issues import IssueLog
from mixdet.datasets.values import is_segmentation, shorten
from mixdet.errors import UserError

SECTIONS = ('images', 'annotations', 'categories')
ENCODINGS = {'utf-8-sig': 'UTF-8 with a byte-order mark', 'utf-8': 'UTF-8 with encoded surrogates'}


def read_coco(path: Path, log: Optional[IssueLog] = None, segmentations: bool = True) -> dict:
    """The content of a COCO file, with its sections as lists; a missing or invalid section becomes an empty list.

    Args:
        path: the file.
        log: gets another encoding than UTF-8, duplicate keys of an object, and missing or invalid sections.
        segmentations: keep the segmentations; a large file needs a third of the memory without them.

    Raises:
        UserError: if the file cannot be read, or is not a JSON object.
    """
    log = IssueLog(str(path)) if log is None else log

    def build(pairs: list[tuple[str, Any]]) -> dict:
        entry = dict(pairs)
        if len(entry) != len(pairs):
            names = [name for name, _ in pairs]
            duplicate = next(name for name in names if names.count(name) > 1)
            log.add('duplicate key', f'object with id {shorten(entry.get("id"))}', f'{duplicate!r}')
        if not segmentations and 'segmentation' in entry:
            entry['segmentation'] = [] if is_segmentation(entry['segmentation']) else 'invalid'
        return entry

    try:
        data = json.loads(_decode(path.read_bytes(), log), object_pairs_hook=build)
    except OSError as error:
        raise UserError(f'annotation file {path} cannot be read: {error.strerror}; check the path') from error
    except UnicodeDecodeError as error:
        raise UserError(
            f'{path} is not valid JSON or is truncated: byte {error.start} is not {error.encoding.upper()}; '
            'save the file as UTF-8'
        ) from error
    except (ValueError, RecursionError) as error:
        raise UserError(f'{path} is not valid JSON or is truncated: {str(error) or "nested too deep"}') from error
    if not isinstance(data, dict):
        raise UserError(f'{path} holds a JSON {type(data).__name__}, not an object; is it a COCO file?')
    for section in SECTIONS:
        if section not in data and section != 'annotations':  # without them a file can still be predicted on
            log.add('missing section', 'file', f'{section!r}')
        elif not isinstance(data.setdefault(section, []), list):
            log.add('invalid section', 'file', f'{section!r} is a {type(data[section]).__name__}, not a list')
        else:
            continue
        data[section] = []
    return data


def _decode(content: bytes, log: IssueLog) -> str:
    """``content`` as text. MMDetection reads it as UTF-8 without a byte-order mark, and fails on anything else."""
    encoding = json.detect_encoding(content)
    if encoding == 'utf-8':
        try:
            return content.decode()
        except UnicodeDecodeError as error:
            try:
                text = content.decode(errors='surrogatepass')
            except UnicodeDecodeError:
                raise error from None
    else:
        text = content.decode(encoding)
    log.add('text encoding', 'file', ENCODINGS.get(encoding, encoding.upper()))
    return text
