"""Reading a config file."""

from pathlib import Path

from mmengine.config import Config

from mixdet.errors import UserError, first_line


def config_text(cfg: Config, heading: str = '') -> str:
    """The text of a config file that MMEngine reads back as ``cfg``, beginning with ``heading``."""
    return literal_braces(heading + cfg.pretty_text)


def literal_braces(text: str) -> str:
    r"""``text``, of a Python file, with ``{\x7b`` for ``{{``.

    In a config MMEngine replaces ``{{$HOME:x}}``, ``{{ fileDirname }}`` and ``{{_base_.x}}``, wherever they stand; in
    the name of a class or a folder they mean themselves.
    """
    return text.replace('{{', r'{\x7b')


def load_config(path: str, import_custom_modules: bool = True) -> Config:
    """The config in ``path``; without ``import_custom_modules`` its ``custom_imports`` are read, but not imported.

    Raises:
        UserError: if the file does not exist or cannot be read.
    """
    if not Path(path).is_file():
        raise UserError(f'config {path} does not exist; check the path')
    try:
        return Config.fromfile(path, import_custom_modules=import_custom_modules)
    except Exception as error:  # a config is a program: it can fail in any way
        raise UserError(f'config {path} cannot be read: {type(error).__name__}: {first_line(error)}') from error
