"""Every kind of issue by example; then hundreds of damaged files, compared with what MMDetection loads from them."""

import contextlib
import copy
import io
import json
import os
from pathlib import Path

import pytest
from helpers import shared_path
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mmdet.datasets import CocoDataset

from mixdet.datasets.annotations import check_coco, read_coco
from mixdet.datasets.issues import ERROR, ISSUE_KINDS, IssueLog
from mixdet.errors import UserError

CLASSES = ('cat', 'dog')
FILES = int(os.environ.get('MIXDET_MUTATED_FILES', 300))


def sound():
    return dict(
        images=[
            dict(id=1, file_name='1.jpg', width=100, height=80),
            dict(id=2, file_name='2.jpg', width=60, height=60),
        ],
        annotations=[
            dict(id=1, image_id=1, category_id=3, bbox=[10, 10, 20, 20], area=400, iscrowd=0),
            dict(id=2, image_id=1, category_id=5, bbox=[30.5, 10, 20, 40], area=800, iscrowd=0),
            dict(id=3, image_id=2, category_id=3, bbox=[0, 0, 60, 60], area=3600, iscrowd=0),
        ],
        categories=[dict(id=3, name='cat'), dict(id=5, name='dog')],
    )


def examine(path, classes=None):
    log = IssueLog(str(path))
    data = read_coco(path, log)
    return log, check_coco(data, log, classes)


def boxes_of_mmdetection(path, classes=CLASSES):
    with contextlib.redirect_stdout(io.StringIO()):
        dataset = CocoDataset(
            ann_file=str(path),
            metainfo=dict(classes=classes),
            data_prefix=dict(img=''),
            serialize_data=False,
            test_mode=True,
        )
    return sum(len(dataset.get_data_info(i)['instances']) for i in range(len(dataset)))


def of(section, number=0, **changes):
    """A function that changes one entry; DEL deletes the key."""

    def change(data):
        for key, value in changes.items():
            if value is DEL:
                del data[section][number][key]
            else:
                data[section][number][key] = value

    return change


def put(section, entry):
    return lambda data: data[section].append(entry)


DEL = object()
NAN, INF = float('nan'), float('inf')

EXAMPLES = [
    ('missing section', lambda data: data.pop('images'), "file: missing section, 'images'"),
    ('missing section', lambda data: data.pop('categories'), "'categories'"),
    ('invalid section', lambda data: data.update(annotations={}), "invalid section, 'annotations' is a dict"),
    ('invalid section', lambda data: data.update(images=None), "file: invalid section, 'images' is a NoneType"),
    ('invalid category', put('categories', 'bird'), "categories[2]: invalid category, it is 'bird'"),
    ('missing category id', put('categories', dict(name='bird')), "categories[2]: missing category id, 'bird'"),
    ('missing category id', put('categories', {}), "categories[2]: missing category id, ''"),
    ('invalid category id', put('categories', dict(id=None, name='bird')), 'id=None'),
    ('invalid category id', put('categories', dict(id=[1], name='bird')), 'id=[1]'),
    ('duplicate category id', put('categories', dict(id=3, name='bird')), "category 3: duplicate category id, 'bird'"),
    ('missing category name', put('categories', dict(id=7)), 'category 7'),
    ('invalid category name', put('categories', dict(id=7, name=4)), 'name=4'),
    ('invalid category name', put('categories', dict(id=7, name=' ')), "name=' '"),
    ('duplicate category name', put('categories', dict(id=7, name='cat')), "7: duplicate category name, 'cat'"),
    ('category without boxes', put('categories', dict(id=7, name='bird')), 'category 7: category without boxes, bird'),
    ('invalid image', put('images', 4), 'images[2]: invalid image, it is 4'),
    ('missing image id', put('images', dict(file_name='3.jpg')), "images[2]: missing image id, '3.jpg'"),
    ('missing image id', put('images', {}), "images[2]: missing image id, ''"),
    ('invalid image id', put('images', dict(id={}, file_name='3.jpg', width=9, height=9)), 'id={}'),
    ('duplicate image id', put('images', dict(id=2, file_name='3.jpg')), "image 2: duplicate image id, '3.jpg'"),
    ('duplicate image id', put('images', dict(id=2)), "image 2: duplicate image id, ''"),
    ('image id not an integer', put('images', dict(id='a', file_name='3.jpg', width=9, height=9)), "image 'a'"),
    ('missing file name', of('images', file_name=DEL), 'image 1: missing file name'),
    ('invalid file name', of('images', file_name=5), 'file_name=5'),
    ('invalid file name', of('images', file_name=''), "file_name=''"),
    ('invalid file name', of('images', file_name='a\0.jpg'), "file_name='a\\x00.jpg'"),
    ('duplicate file name', of('images', 1, file_name='1.jpg'), 'image 2: duplicate file name, 1.jpg'),
    ('missing image size', of('images', height=DEL), 'image 1: missing image size, 1.jpg'),
    ('invalid image size', of('images', width='100'), "width='100', height=80"),
    ('invalid image size', of('images', width=0), 'width=0'),
    ('invalid image size', of('images', width=-4), 'width=-4'),
    ('invalid image size', of('images', height=0.5), 'width=100, height=0.5'),
    ('invalid image size', of('images', height=1e8), 'width=100, height=100000000.0'),
    ('invalid image size', of('images', width=NAN), 'width=nan'),
    ('invalid image size', of('images', width=None), 'width=None'),
    ('image without boxes', put('images', dict(id=3, file_name='3.jpg', width=9, height=9)),
     'image 3: image without boxes, 3.jpg'),
    ('invalid annotation', put('annotations', [1]), 'annotations[3]: invalid annotation, it is [1]'),
    ('missing annotation id', of('annotations', id=DEL), 'annotations[0]: missing annotation id'),
    ('invalid annotation id', of('annotations', id=1.5), 'annotations[0]: invalid annotation id, id=1.5'),
    ('duplicate annotation id', of('annotations', 1, id=1), 'annotation 1: duplicate annotation id'),
    ('missing image_id', of('annotations', image_id=DEL), 'annotation 1: missing image_id'),
    ('unknown image_id', of('annotations', image_id=9), 'annotation 1: unknown image_id, image_id=9'),
    ('unknown image_id', of('annotations', image_id='1'), "image_id='1'"),
    ('invalid image_id', of('annotations', image_id=[1]), 'image_id=[1]'),
    ('invalid category_id', of('annotations', category_id=None), 'category_id=None'),
    ('missing category_id', of('annotations', category_id=DEL), 'annotation 1'),
    ('unknown category_id', of('annotations', category_id=4), 'category_id=4'),
    ('ignored box', of('annotations', ignore=1), 'annotation 1: ignored box'),
    ('crowd', of('annotations', iscrowd=1), 'annotation 1: crowd'),
    ('invalid iscrowd', of('annotations', iscrowd='no'), "iscrowd='no'"),
    ('invalid iscrowd', of('annotations', iscrowd=2), 'iscrowd=2'),
    ('missing box', of('annotations', bbox=DEL), 'annotation 1: missing box'),
    ('invalid box', of('annotations', bbox=[1, 2, 3]), 'bbox=[1, 2, 3] is not [x, y, width, height]'),
    ('invalid box', of('annotations', bbox=[1, 2, 3, '4']), "bbox=[1, 2, 3, '4'] is not"),
    ('invalid box', of('annotations', bbox=None), 'bbox=None is not'),
    ('invalid box', of('annotations', bbox=dict(x=1)), "bbox={'x': 1} is not"),
    ('box not finite', of('annotations', bbox=[1, 2, NAN, 4]), 'bbox=[1, 2, nan, 4]'),
    ('box not finite', of('annotations', bbox=[1, 2, INF, 4]), 'bbox=[1, 2, inf, 4]'),
    ('box not finite', of('annotations', bbox=[1, 2, 10**400, 4]), 'annotation 1: box not finite'),
    ('box not finite', of('annotations', bbox=[-100_000_001, 2, 3, 4]), 'bbox=[-100000001, 2, 3, 4]'),
    ('negative box size', of('annotations', bbox=[20, 20, -5, 4]), 'bbox=[20, 20, -5, 4]'),
    ('negative box size', of('annotations', bbox=[20, 20, 5, -4]), 'bbox=[20, 20, 5, -4]'),
    ('zero box size', of('annotations', bbox=[20, 20, 0, 4]), 'bbox=[20, 20, 0, 4]'),
    ('zero box size', of('annotations', bbox=[20, 20, 5, 0]), 'bbox=[20, 20, 5, 0]'),
    ('box below 1 px', of('annotations', bbox=[20, 20, 0.5, 4]), 'bbox=[20, 20, 0.5, 4]'),
    ('box below 1 px', of('annotations', bbox=[20, 20, 5, 0.5]), 'bbox=[20, 20, 5, 0.5]'),
    ('box outside the image', of('annotations', bbox=[100, 20, 5, 4]), '[100, 20, 5, 4] of 100x80'),
    ('box outside the image', of('annotations', bbox=[20, -4, 5, 4]), '[20, -4, 5, 4] of 100x80'),
    ('box partly outside the image', of('annotations', bbox=[90, 20, 50, 4]), 'bbox=[90, 20, 50, 4] of 100x80'),
    ('duplicate box', put('annotations', dict(sound()['annotations'][0], id=9)), 'annotation 9'),
    ('missing area', of('annotations', area=DEL), 'annotation 1: missing area'),
    ('invalid area', of('annotations', area='9'), "area='9'"),
    ('area not positive', of('annotations', area=0), 'area=0'),
    ('invalid segmentation', of('annotations', segmentation=[[1, 2, 3]]), 'annotation 1: invalid segmentation'),
    ('invalid segmentation', of('annotations', segmentation='none'), 'annotation 1: invalid segmentation'),
]  # fmt: skip


def write(tmp_path, data):
    path = tmp_path / 'a.json'
    path.write_text(json.dumps(data))
    return path


def test_a_sound_file_has_no_issue(tmp_path):
    path = write(tmp_path, sound())
    log, fixed = examine(path)
    assert not log.issues and (log.images, log.boxes, log.trained, log.left_out) == (2, 3, 3, 0)
    assert fixed == sound() and boxes_of_mmdetection(path) == 3


@pytest.mark.parametrize(('kind', 'change', 'message'), EXAMPLES, ids=[f'{i}-{e[0]}' for i, e in enumerate(EXAMPLES)])
def test_every_kind_of_issue_is_named(tmp_path, kind, change, message):
    data = sound()
    change(data)
    path = write(tmp_path, data)
    log, fixed = examine(path)
    (issue,) = [issue for issue in log.issues if issue.kind == kind]
    assert message in str(issue) and str(issue).endswith(ISSUE_KINDS[kind].effect)
    if not list(log.of(ERROR)):
        assert boxes_of_mmdetection(path) == log.trained
    again, _ = examine(write(tmp_path, fixed))
    assert not list(again.of(ERROR))
    assert boxes_of_mmdetection(tmp_path / 'a.json') == again.trained


def test_every_kind_of_issue_in_a_file_has_an_example():
    elsewhere = {'duplicate key', 'class not trained', *config_kinds(), *image_file_kinds()}
    assert {kind for kind, _, _ in EXAMPLES} == set(ISSUE_KINDS) - elsewhere


def config_kinds():
    return ('class not in the file', 'classes in another order', 'class not in the config', 'wrong number of classes')


def image_file_kinds():
    return [kind for kind in ISSUE_KINDS if 'image file' in kind or kind == 'image rotated by EXIF']


LIMITS = [
    dict(bbox=[0, 0, 100, 80]),
    dict(bbox=[20, 20, 1, 1]),
    dict(bbox=[-0.5, -0.5, 101, 81]),  # half a pixel is rounding
    dict(area=0.5),
    dict(id='a'),
    dict(iscrowd=DEL),
    dict(iscrowd=False),
    dict(ignore=0),
    dict(segmentation=[]),
    dict(segmentation=[[1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 6.5, 7, 8]]),
    dict(segmentation=dict(size=[80, 100], counts='a')),
    dict(segmentation=dict(size=[80, 100], counts=[8000])),
]


@pytest.mark.parametrize('changes', LIMITS)
def test_valid_values_at_the_limits_are_no_issue(tmp_path, changes):
    data = sound()
    of('annotations', **changes)(data)
    path = write(tmp_path, data)
    log, fixed = examine(path)
    assert not log.issues and fixed == data
    assert boxes_of_mmdetection(path) == log.trained == 3


@pytest.mark.parametrize('size', [1, 1.5, 99_999_999])
def test_image_sizes_at_the_limits_are_no_issue(tmp_path, size):
    data = sound()
    data['images'].append(dict(id=3, file_name='3.jpg', width=size, height=size))
    data['annotations'].append(dict(id=4, image_id=3, category_id=3, bbox=[0, 0, 1, 1], area=1))
    log, _ = examine(write(tmp_path, data))
    assert not log.issues


@pytest.mark.parametrize(
    ('bbox', 'clipped'),
    [
        ([-0.6, 0, 20, 20], [0, 0, 19.4, 20]),
        ([0, -0.6, 20, 20], [0, 0, 20, 19.4]),
        ([60, 0, 40.6, 20], [60, 0, 40, 20]),
        ([0, 60, 20, 20.6], [0, 60, 20, 20]),
        ([-5, -6, 30, 20], [0, 0, 25, 14]),
        ([90, 70, 100_000_000, 50], [90, 70, 10, 10]),
    ],
)
def test_boxes_are_clipped_to_the_image(tmp_path, bbox, clipped):
    data = sound()
    of('annotations', bbox=bbox)(data)
    log, fixed = examine(write(tmp_path, data))
    assert list(log.counts()) == ['box partly outside the image'] and log.trained == 3
    assert fixed['annotations'][0]['bbox'] == pytest.approx(clipped)
    assert fixed['annotations'][1:] == data['annotations'][1:]


@pytest.mark.parametrize(
    ('broken', 'fixed'),
    [
        (dict(area=DEL), dict(area=400)),
        (dict(area='9'), dict(area=400)),
        (dict(area=-1), dict(area=400)),
        (dict(bbox=[-10, 10, 20, 20], area=0), dict(bbox=[0, 10, 10, 20], area=200)),  # of the clipped box
        (dict(iscrowd='no'), dict(iscrowd=0)),
        (dict(iscrowd=1.0), dict(iscrowd=0)),
        (dict(id=[]), dict(id=4)),
        (dict(id=DEL), dict(id=4)),
        (dict(id=3), dict(id=3)),  # the first of the two keeps it
    ],
)
def test_values_are_repaired(tmp_path, broken, fixed):
    data = sound()
    of('annotations', **broken)(data)
    _, repaired = examine(write(tmp_path, data))
    assert repaired['annotations'][0] == {**sound()['annotations'][0], **fixed}


def test_invalid_segmentations_and_duplicate_boxes_are_removed(tmp_path):
    data = sound()
    of('annotations', segmentation=[[1, 2, 3]])(data)
    data['annotations'].append(dict(data['annotations'][1], id=7))
    log, fixed = examine(write(tmp_path, data))
    assert fixed['annotations'] == sound()['annotations'] and log.counts()['duplicate box'] == 1


def test_new_ids_continue_after_the_largest(tmp_path):
    data = sound()
    data['annotations'][1]['id'] = 20
    for number in (0, 2):
        del data['annotations'][number]['id']
    _, fixed = examine(write(tmp_path, data))
    assert [entry['id'] for entry in fixed['annotations']] == [21, 20, 22]
    del data['annotations'][1]['id']
    _, fixed = examine(write(tmp_path, data))
    assert [entry['id'] for entry in fixed['annotations']] == [1, 2, 3]


def test_boxes_that_are_left_out_do_not_count_as_boxes_of_their_image_and_class(tmp_path):
    data = sound()
    data['annotations'][2]['bbox'][2] = 0
    log, _ = examine(write(tmp_path, data))
    assert [str(issue) for issue in log.issues if issue.kind == 'image without boxes'] == [
        'image 2: image without boxes, 2.jpg; the image is left out with filter_empty_gt, else it is background'
    ]


def test_classes_that_are_not_trained_are_listed(tmp_path):
    path = write(tmp_path, sound())
    log, _ = examine(path, classes=('dog',))
    assert [str(issue) for issue in log.issues] == [
        'annotation 1: class not trained, cat; the box is left out: its class is not in the config',
        'annotation 3: class not trained, cat; the box is left out: its class is not in the config',
    ]
    assert log.trained == boxes_of_mmdetection(path, ('dog',)) == 1


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
        (b'\xff\xfe\x00', 'is not valid JSON or is truncated: '),
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


values = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 130), st.integers(), st.floats(),
    st.sampled_from(['', '1', 'cat', '1.jpg']),
    st.lists(st.one_of(st.integers(-9, 120), st.floats(), st.none()), max_size=5),
    st.just({}), st.just([[1, 2, 3, 4, 5, 6]]),
)  # fmt: skip


@st.composite
def damaged(draw):
    """A sound file with one to four changes: values, keys, entries, sections, and sometimes bytes."""
    data = sound()
    for _ in range(draw(st.integers(1, 4))):
        section = draw(st.sampled_from(['images', 'annotations', 'annotations', 'annotations', 'categories']))
        entries = data.get(section)
        action = draw(st.sampled_from(['set', 'set', 'set', 'box', 'delete', 'copy', 'entry', 'section']))
        if action == 'section' and draw(st.integers(0, 5)) == 0:
            data[section] = draw(values)
        if not isinstance(entries, list) or not entries:
            continue
        number = draw(st.integers(0, len(entries) - 1))
        entry = entries[number]
        if action == 'entry':
            entries[number] = draw(values)
        elif action == 'copy':
            entries.append(copy.deepcopy(entry))
        elif isinstance(entry, dict) and entry:
            key = draw(st.sampled_from([*sorted(entry), 'ignore', 'segmentation', 'iscrowd']))
            if action == 'delete':
                entry.pop(key, None)
            elif action == 'box' and section == 'annotations':
                entry['bbox'] = draw(
                    st.lists(st.one_of(st.integers(-20, 130), st.floats(-20, 130)), min_size=4, max_size=4)
                )
            else:
                entry[key] = draw(values)
    text = json.dumps(data)
    if draw(st.integers(0, 9)) == 0:
        place = draw(st.integers(0, len(text) - 1))
        text = (
            text[:place] + draw(st.sampled_from(['', '"', '}', '9', '\x00'])) + text[place + draw(st.integers(0, 3)) :]
        )
    return text


@settings(
    max_examples=FILES, deadline=None, derandomize=True, database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip
@given(text=damaged())
def test_damaged_files_load_as_predicted(tmp_path, text):
    """A file without errors loads with as many boxes as predicted; any other loads once it is repaired."""
    path = Path(tmp_path, 'a.json')
    path.write_text(text)
    try:
        log, fixed = examine(path)
    except UserError as error:
        assert '\n' not in str(error)
        return
    names = [category['name'] for category in fixed['categories']]
    for issue in log.issues:
        assert '\n' not in str(issue)
    if not list(log.of(ERROR)):
        assert boxes_of_mmdetection(path, names) == log.trained
        listed = sum(
            'left out' in ISSUE_KINDS[issue.kind].effect for issue in log.issues if issue.where.startswith('annotation')
        )
        assert listed >= log.left_out
    path.write_text(json.dumps(fixed))
    again, _ = examine(path)
    assert not list(again.of(ERROR)) and not {'zero box size', 'box outside the image'} & set(again.counts())
    assert boxes_of_mmdetection(path, names) == again.trained


@pytest.mark.parametrize('file', ['bccd/annotations/instances_train.json', 'bccd/annotations/instances_val.json'])
def test_real_sets_are_sound(file):
    path = shared_path('data', *file.split('/'))
    log, fixed = examine(path)
    assert not log.issues and fixed == json.loads(path.read_text())


@pytest.mark.parametrize('split', ['train', 'val'])
def test_real_coco_has_crowds_and_classes_without_boxes(split):
    path = shared_path('data', 'coco-mini', 'annotations', f'instances_{split}2017.json')
    log, _ = examine(path)
    crowds = sum(entry['iscrowd'] for entry in json.loads(path.read_text())['annotations'])
    assert (
        set(log.counts()) <= {'crowd', 'category without boxes', 'image without boxes'}
        and log.counts()['crowd'] == crowds
    )
    assert log.left_out == 0
