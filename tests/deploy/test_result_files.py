import csv
import json
import os

import pytest
from helpers import little_room

from mixdet.deploy.result_files import CsvFile, JsonFile
from mixdet.errors import UserError


def test_json_is_whole_at_any_moment(tmp_path):
    file = JsonFile(tmp_path / 'a.json', '{"n": 1, "list": [', ']}')
    expected = []
    for entries in ([], [dict(a=1)], [dict(a='"\n文'), dict(a=os.fsdecode(b'\xe9'))], [], [dict(a=[])]):
        file.extend(entries)
        expected += entries
        assert json.loads((tmp_path / 'a.json').read_text()) == dict(n=1, list=expected)
    file.close()
    assert json.loads((tmp_path / 'a.json').read_bytes())['list'] == expected
    with pytest.raises(UserError, match='a.json cannot be written: File exists'):
        JsonFile(tmp_path / 'a.json')


def test_csv_is_text_to_a_spreadsheet(tmp_path):
    file = CsvFile(tmp_path / 'a.csv', ('file', 'class', 'score'))
    file.extend([['=1+1.jpg', '@a', -0.5], ['a,"b"\n.jpg', '\x1b[31m', 1]])
    with (tmp_path / 'a.csv').open(newline='', encoding='utf-8') as written:
        assert list(csv.reader(written)) == [
            ['file', 'class', 'score'],
            ["'=1+1.jpg", "'@a", '-0.5'],
            ['a,"b"\\x0a.jpg', '\\x1b[31m', '1'],
        ]
    file.close()


class Disk:
    """A file on a disk with little room."""

    def __init__(self, file, room):
        self.file, self.room = file, room

    def write(self, content):
        content = content[: self.room - self.file.tell()]
        if not content:
            raise OSError(28, 'No space left on device')
        return self.file.write(content)

    def __getattr__(self, name):
        return getattr(self.file, name)


def test_a_full_disk_leaves_what_was_written(tmp_path):
    file = JsonFile(tmp_path / 'a.json')
    file.extend([dict(a=1)])
    file._file = Disk(file._file, 60)
    with pytest.raises(UserError, match='a.json cannot be written: No space left on device'):
        file.extend([dict(a='x' * 200)])
    assert json.loads((tmp_path / 'a.json').read_text()) == [dict(a=1)]
    file._file.room = 1000
    file.extend([dict(a=2)])
    assert json.loads((tmp_path / 'a.json').read_text()) == [dict(a=1), dict(a=2)]
    file._file.close()


def test_a_file_that_cannot_be_begun_leaves_none(tmp_path):
    with little_room(5), pytest.raises(UserError, match='a.json cannot be written: File too large'):
        JsonFile(tmp_path / 'a.json', '{"categories": [1, 2, 3], "images": [', ']}')
    assert not list(tmp_path.iterdir())


def test_the_tail_is_put_back_without_room(tmp_path):
    """Over what was there: another program may take any room that is given up."""
    file = JsonFile(tmp_path / 'a.json')
    file.extend([dict(a=1)])
    with little_room((tmp_path / 'a.json').stat().st_size), pytest.raises(UserError, match='File too large'):
        file.extend([dict(a='x' * 20)])
    file.close()
    assert json.loads((tmp_path / 'a.json').read_text()) == [dict(a=1)]
