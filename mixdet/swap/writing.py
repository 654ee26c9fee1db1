"""Writing a swapped config as a short file that inherits from the old one."""

import copy
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Optional

import mmdet
from mmengine.config import Config

from mixdet.engine.atomic import write_text
from mixdet.engine.config import load_config
from mixdet.errors import UserError
from mixdet.text import printable


def write_config(path: Path, cfg: Config, base: Path, original: Config, comments: Sequence[str]) -> bool:
    """Write ``cfg`` to ``path``, as what it changes in the config file ``base``, whose content is ``original``.

    Returns:
        Whether that was possible; if not, all of ``cfg`` was written.
    """
    heading = ''.join(f'# {printable(comment)}\n' for comment in comments)
    changes = difference(original.to_dict(), cfg.to_dict())
    if changes is not None:
        reference = _reference(base, path)
        text = Config(changes).pretty_text
        write_text(path, f'{heading}_base_ = {reference!r}\n{text}')
        try:
            if _without_scopes(load_config(str(path), import_custom_modules=False).to_dict()) == _without_scopes(
                cfg.to_dict()
            ):
                return True
        except UserError:  # such as a base in the lazy style, from which no classic config can inherit
            pass
    write_text(path, heading + cfg.pretty_text)
    return False


def difference(old: dict, new: dict) -> Optional[dict]:
    """What a config file that inherits ``old`` must contain to become ``new``; None if it cannot remove a key."""
    if set(old) - set(new):
        return None
    changes = {}
    for key, value in new.items():
        if key in old and old[key] == value:
            continue
        if isinstance(value, dict) and isinstance(old.get(key), dict):
            inner = difference(old[key], value) if old[key].get('type') == value.get('type') else None
            changes[key] = dict(_delete_=True, **value) if inner is None else inner
        else:
            changes[key] = value
    return copy.deepcopy(changes)


def _reference(base: Path, path: Path) -> str:
    """How the config ``path`` names ``base``: by package if MMDetection installed it, else by relative path."""
    installed = Path(mmdet.__file__).resolve().parent / '.mim' / 'configs'
    base = base.resolve()
    if base.is_relative_to(installed):
        return f'mmdet::{base.relative_to(installed).as_posix()}'
    return Path(os.path.relpath(base, path.resolve().parent)).as_posix()


def _without_scopes(node: Any) -> Any:
    """``node`` without the scopes that a base named by package brings along; tuples and lists are alike."""
    if isinstance(node, dict):
        return {key: _without_scopes(value) for key, value in node.items() if key != '_scope_'}
    return [_without_scopes(value) for value in node] if isinstance(node, (list, tuple)) else node
