"""Errors that are the user's to mend, told in one line."""


class UserError(Exception):
    """Bad input: a config, an annotation file, a checkpoint or an argument.

    The message is one line that says what is wrong, where, and what to do. The command-line tools print it without a
    traceback and exit with status 2 (see :func:`mixdet.cli.main.run_tool`).
    """
