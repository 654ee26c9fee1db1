"""The metadata of formats that cannot hold them: JSON beside the file, or in the folder, that fits no other file."""

import hashlib
import json
from pathlib import Path
from typing import Any

from mixdet.errors import UserError

IN_FOLDER = 'mixdet.json'
SUFFIX = '.json'
DIGEST = 'sha256'


def sidecar_path(path: Path) -> Path:
    """Where the metadata of ``path`` are: ``mixdet.json`` in a folder, else ``FILE.json``."""
    return path / IN_FOLDER if path.is_dir() else path.with_name(path.name + SUFFIX)


def write_sidecar(path: Path, content: dict[str, Any]) -> None:
    """Write ``content`` as the metadata of ``path``, which is whole."""
    text = json.dumps({**content, DIGEST: _digest(path)}, indent=1)
    sidecar_path(path).write_text(text + '\n', encoding='utf-8')


def read_sidecar(path: Path) -> dict[str, Any]:
    """The metadata of ``path``. Raises UserError if they are missing, broken, or those of another file."""
    beside = sidecar_path(path)
    try:
        content = json.loads(beside.read_bytes())
        stated = content.pop(DIGEST)
    except FileNotFoundError as error:
        raise UserError(
            f'{path} has no metadata: {beside} is missing; keep the two together, or export again'
        ) from error
    except OSError as error:
        raise UserError(f'{beside} cannot be read: {error.strerror or error}') from error
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise UserError(f'{beside} is damaged or was not written by tools/export.py; export {path} again') from error
    if stated != _digest(path):
        raise UserError(f'{beside} belongs to another file than {path}, or that was changed; export it again')
    return content


def _digest(path: Path) -> str:
    """SHA-256 of a file, or of the names and contents of the files in a folder."""
    whole = hashlib.sha256()
    files = sorted(file for file in path.rglob('*') if file.is_file()) if path.is_dir() else [path]
    for file in files:
        if file == path / IN_FOLDER:
            continue
        name = file.relative_to(path).as_posix().encode() if file != path else b''
        content = hashlib.sha256(file.read_bytes()).digest()
        whole.update(len(name).to_bytes(8, 'big') + name + content)
    return whole.hexdigest()
