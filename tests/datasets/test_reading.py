import json

import pytest
from coco_examples import boxes_of_training, sound, write

from mixdet.datasets.annotations import check_coco
from mixdet.datasets.issues import IssueLog
from mixdet.datasets.reading import read_coco
from mixdet.errors import UserError


@pytest.mark.parametrize(
    ('encoding', 'name'),
    [
        ('utf-8-sig', 'UTF-8 with a byte-order mark'),
        ('utf-16', 'UTF-16'),
        ('utf-16-le', 'UTF-16-LE'),
        ('utf-16-be', 'UTF-16-BE'),
        ('utf-32', 'UTF-32'),
        ('utf-8', None),
    ],
)
def test_another_encoding_is_read_and_named(tmp_path, encoding, name):
    data = sound()
    data['categories'][0]['name'] = 'Kätzchen'
    path = tmp_path / 'a.json'
    path.write_text(json.dumps(data, ensure_ascii=False), encoding=encoding)
    log = IssueLog('a')
    assert read_coco(path, log) == data
    assert [(issue.kind, issue.detail) for issue in log.issues] == ([('text encoding', name)] if name else [])
    if name is None:
        assert boxes_of_training(path, ('Kätzchen', 'dog')) == (3, 0)
    else:  # the training cannot read it
        with pytest.raises((UnicodeDecodeError, json.JSONDecodeError)):
            boxes_of_training(path)


def test_encoded_surrogates_are_named(tmp_path):
    path = tmp_path / 'a.json'
    path.write_bytes(json.dumps(dict(sound(), info='\ud800'), ensure_ascii=False).encode('utf-8', 'surrogatepass'))
    log = IssueLog('a')
    read_coco(path, log)
    assert [issue.detail for issue in log.issues] == ['UTF-8 with encoded surrogates']
    with pytest.raises(UnicodeDecodeError):
        boxes_of_training(path)


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('{"images": [], "annotations": [], "categories": [], "images": []}',
         "object with id None: duplicate key, 'images'"),
        ('{"images": [{"id": 7, "width": 9, "x": 1, "width": 8}], "annotations": [], "categories": []}',
         "object with id 7: duplicate key, 'width'"),
    ],
)  # fmt: skip
def test_duplicate_keys(tmp_path, text, message):
    path = tmp_path / 'a.json'
    path.write_text(text)
    log = IssueLog('a')
    read_coco(path, log)
    (issue,) = log.issues
    assert str(issue) == f'{message}; all its values but the last are lost'


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (b'', 'is not valid JSON or is truncated: Expecting value'),
        (b'{', 'is not valid JSON or is truncated: Expecting property name'),
        (b'{"images": [', 'is not valid JSON or is truncated: Expecting value'),
        (b'\xff\xfe\x00', 'is not valid JSON or is truncated: byte 2 is not UTF-16-LE; save the file as UTF-8'),
        ('{"é": 1}'.encode('latin-1'), 'is not valid JSON or is truncated: byte 2 is not UTF-8; save the file as'),
        (b'[' * 100_000, 'is not valid JSON or is truncated: .*(maximum recursion|nested too deep)'),
        (b'nonsense', 'is not valid JSON or is truncated: Expecting value'),
        (b'[]', 'holds a JSON list, not an object; is it a COCO file'),
        (b'3', 'holds a JSON int, not an object'),
        (None, 'cannot be read: Is a directory; check the path'),
    ],
    ids=str,
)
def test_a_file_that_is_no_coco_file_is_one_line(tmp_path, content, message):
    path = tmp_path / 'a.json'
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    with pytest.raises(UserError, match=f'a.json {message}') as error:
        read_coco(path)
    assert '\n' not in str(error.value)


def test_segmentations_are_checked_and_kept_or_not(tmp_path):
    data = sound()
    data['annotations'][0]['segmentation'] = [[1, 2, 3]]
    data['annotations'][1]['segmentation'] = [[1, 2, 3, 4, 5, 6]]
    path = write(tmp_path, data)
    assert read_coco(path) == data
    log = IssueLog('a')
    small = read_coco(path, log, segmentations=False)
    assert small['annotations'][1]['segmentation'] == [] and 'segmentation' not in small['annotations'][2]
    check_coco(small, log)
    assert [(issue.kind, issue.where) for issue in log.issues] == [('invalid segmentation', 'annotation 1')]
