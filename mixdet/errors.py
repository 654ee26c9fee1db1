"""Errors that a user can fix, reported in one line."""


class UserError(Exception):
    """Bad input: a config, an annotation file, a checkpoint or an argument.

    The message is one line that says what is wrong, where, and what to do. The command-line tools print it without a
    traceback and exit with status 2 (see :func:`mixdet.cli.main.run_tool`).
    """


def first_line(error: BaseException) -> str:
    """The first line of an error's message; the name of its type if the message is empty."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def check_fraction(name: str, value: float) -> float:
    """``value`` if it is from 0 to 1. Raises ValueError that names it otherwise."""
    if not 0 <= value <= 1:
        raise ValueError(f'{name}={value:g}: must be from 0 to 1')
    return value
