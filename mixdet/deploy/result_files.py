"""Result files that grow while a run goes on, and are whole at any moment."""

import csv
import io
import json
import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from io import FileIO
from pathlib import Path

from mixdet.engine.outputs import write_all
from mixdet.errors import UserError
from mixdet.text import csv_cell


class GrowingFile:
    """A new file that grows by whole entries: ``head``, entries, ``tail``. A kill loses no entry before its last.

    Args:
        path: must not exist.
        head: before the entries.
        tail: after them.

    Raises:
        UserError: if it exists or cannot be written; a full disk leaves the entries before.
    """

    def __init__(self, path: Path, head: str = '', tail: str = '') -> None:
        self.path = path
        self._tail = tail.encode()
        self._end = 0  # of the entries
        try:
            self._file = FileIO(path, 'xb')
        except OSError as error:
            raise self._error(error) from error
        try:
            self.append(head)
        except BaseException:  # nothing that a second try would take for another run's
            self._file.close()
            path.unlink()
            raise

    def append(self, text: str) -> None:
        """Write ``text`` after the entries."""
        content = text.encode()
        try:
            self._write(content + self._tail)
        except BaseException as error:
            with suppress(OSError):  # written over what was there, so that there is room for it
                self._write(self._tail)
                self._file.truncate(self._end + len(self._tail))
            if isinstance(error, OSError):
                raise self._error(error) from error
            raise
        self._end += len(content)

    def close(self) -> None:
        """Sync it to disk."""
        try:
            with self._file:
                os.fsync(self._file.fileno())
        except OSError as error:
            raise self._error(error) from error

    def _write(self, content: bytes) -> None:
        self._file.seek(self._end)
        write_all(self._file, content)

    def _error(self, error: OSError) -> UserError:
        return UserError(f'{self.path} cannot be written: {error.strerror or error}')


class JsonFile(GrowingFile):
    """JSON with a list at its end, an entry per line."""

    def __init__(self, path: Path, head: str = '[', tail: str = ']') -> None:
        self._before = '\n'
        super().__init__(path, head, f'\n{tail}\n')

    def extend(self, entries: Iterable[dict]) -> None:
        """Append entries to the list."""
        lines = [json.dumps(entry) for entry in entries]
        if lines:
            self.append(self._before + ',\n'.join(lines))
            self._before = ',\n'


class CsvFile(GrowingFile):
    """CSV with a line of headers, in which text stays text when a spreadsheet reads it."""

    def __init__(self, path: Path, headers: Sequence[str]) -> None:
        super().__init__(path)
        self.extend([headers])

    def extend(self, rows: Iterable[Sequence]) -> None:
        """Append rows."""
        text = io.StringIO()
        csv.writer(text, lineterminator='\n').writerows([csv_cell(value) for value in row] for row in rows)
        self.append(text.getvalue())
