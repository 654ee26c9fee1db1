import pytest

from mixdet.engine.atomic import write_text, written_whole


def test_the_old_content_stays_until_the_new_is_whole(tmp_path):
    path = tmp_path / 'a'
    write_text(path, 'old')
    with pytest.raises(ZeroDivisionError), written_whole(path) as partial:
        partial.write_text('ne')
        assert path.read_text() == 'old' and partial.parent == path.parent
        1 / 0  # noqa: B018
    assert path.read_text() == 'old'
    write_text(path, 'new')
    assert path.read_text() == 'new' and [file.name for file in tmp_path.iterdir()] == ['a']


def test_it_is_synced_before_it_is_renamed(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr('os.fsync', lambda descriptor: calls.append('sync'))
    replace = __import__('os').replace
    monkeypatch.setattr('os.replace', lambda *paths: (calls.append('rename'), replace(*paths)))
    write_text(tmp_path / 'a', 'x')
    assert calls[:2] == ['sync', 'rename']
