import pytest

from mixdet.errors import UserError
from mixdet.weights.label_map import read_label_map


def write(tmp_path, text):
    path = tmp_path / 'map.pbtxt'
    path.write_text(text, encoding='utf-8')
    return path


def test_names_by_id(tmp_path):
    text = """\ufeff# COCO
        item {
          name: "/m/01g317"  # person
          id: 2
          display_name: "person \\"x\\" # {1}"
          keypoints { id: 7 label: "nose" }
        }
        item{id:1, name:'it is'}
        item { id: 0 name: 'background' }
    """
    assert list(read_label_map(write(tmp_path, text)).items()) == [(1, 'it is'), (2, 'person "x" # {1}')]


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('', 'has no class'),
        ('{"id": 1}', "item {'id'.*needs an id|needs an id"),
        ("item { name: 'a' }", 'needs an id .a number. and a name'),
        ("item { id: x name: 'a' }", 'needs an id'),
        ("item { id: 1 name: 'a' } item { id: 1 name: 'b' }", 'two items have the id 1'),
        (f"item {{ id: {'9' * 5000} name: 'a' }}", 'needs an id'),
        ("item { id: 1 name: 'a }", "the string 'a } is not closed"),
        ('item { id: 1 name: "a' + '\\"' * 10**5, 'is not closed'),
    ],
)
def test_bad_maps_are_one_line(tmp_path, text, message):
    with pytest.raises(UserError, match=message) as error:
        read_label_map(write(tmp_path, text))
    assert '\n' not in str(error.value)


def test_a_file_that_cannot_be_read(tmp_path):
    with pytest.raises(UserError, match='cannot be read'):
        read_label_map(tmp_path / 'gone.pbtxt')
    (tmp_path / 'a.pbtxt').write_bytes(b'\xff\xfe\xff')
    with pytest.raises(UserError, match='cannot be read'):
        read_label_map(tmp_path / 'a.pbtxt')
