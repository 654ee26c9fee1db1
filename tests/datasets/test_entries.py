import numpy as np
import pytest
from coco_examples import DEL, examine, of, sound, write
from PIL import Image

from mixdet.datasets.annotations import Repair
from mixdet.datasets.entries import MISSING, Section


@pytest.mark.parametrize('size', [1, 1.5, 99_999_999])
def test_image_sizes_at_the_limits_are_no_issue(tmp_path, size):
    data = sound()
    data['images'].append(dict(id=3, file_name='3.jpg', width=size, height=size))
    data['annotations'].append(dict(id=4, image_id=3, category_id=3, bbox=[0, 0, 1, 1], area=1))
    log, _ = examine(write(tmp_path, data))
    assert not log.issues


@pytest.mark.parametrize(('width', 'height'), [('100', '80'), (100.0, ' 80.0 ')])
def test_sizes_that_are_text_are_converted(tmp_path, width, height):
    data = sound()
    of('images', width=width, height=height)(data)
    log, fixed = examine(write(tmp_path, data))
    assert list(log.counts()) == ['invalid image size'] and fixed == sound()


@pytest.mark.parametrize('changes', [dict(width=DEL, height=DEL), dict(width=0), dict(height=None)])
def test_a_size_is_read_from_the_image_file(tmp_path, changes):
    data = sound()
    of('images', **changes)(data)
    path = write(tmp_path, data)
    _, fixed = examine(path)
    assert len(fixed['images']) == 1 and len(fixed['annotations']) == 1
    _, fixed = examine(path, repair=Repair(folder=tmp_path))
    assert len(fixed['images']) == 1
    Image.fromarray(np.zeros((80, 100, 3), np.uint8)).save(tmp_path / '1.jpg')
    _, fixed = examine(path, repair=Repair(folder=tmp_path))
    assert fixed == sound()


@pytest.mark.parametrize(
    ('changes', 'name'),
    [
        (dict(name=4), '4'),
        (dict(name=DEL), 'category 3'),
        (dict(name=None), 'category 3'),
        (dict(name=' '), 'category 3'),
    ],
)
def test_categories_without_a_name_get_one_and_keep_their_boxes(tmp_path, changes, name):
    data = sound()
    of('categories', **changes)(data)
    _, fixed = examine(write(tmp_path, data))
    assert [category['name'] for category in fixed['categories']] == [name, 'dog']
    assert fixed['annotations'] == sound()['annotations']


def test_references_are_found_by_value_then_by_number():
    section = Section({7: dict(id=7), '8': dict(id='8'), 'a': dict(id='a'), None: dict(id=None), '7': dict(id='7')})
    found = {reference: section.key(reference) for reference in (7, '7', 7.0, ' 7 ', 8, '8', 'a', None, 9, '9', 'b')}
    assert found == {
        7: 7, '7': '7', ' 7 ': 7, 8: '8', '8': '8', 'a': 'a', None: None, 9: MISSING, '9': MISSING, 'b': MISSING
    }  # fmt: skip
    assert section.key([7]) is MISSING and section.key(float('nan')) is MISSING
    assert {key: entry['id'] for key, entry in section.entries.items()} == {7: 7, '8': 8, 'a': 9, None: 10, '7': 11}


def test_the_largest_id_is_no_base_for_new_ones():
    largest = 2**63 - 1
    assert [entry['id'] for entry in Section({largest: dict(id=largest), 'a': dict(id='a')}).entries.values()] == [
        largest, 1,
    ]  # fmt: skip


def test_ids_that_are_too_large_are_found_as_text():
    section = Section({2**70: dict(id=2**70), 3: dict(id=3)})
    assert section.key(str(2**70)) == 2**70 and [entry['id'] for entry in section.entries.values()] == [4, 3]
