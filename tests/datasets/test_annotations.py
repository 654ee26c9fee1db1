"""Every kind of issue by example, and what ``--fix`` makes of whole files."""

import json

import pytest
from coco_examples import (
    DEL,
    INF,
    NAN,
    boxes_of_evaluation,
    boxes_of_mmdetection,
    boxes_of_training,
    examine,
    of,
    put,
    sound,
    write,
)
from helpers import shared_path

from mixdet.datasets.annotations import Repair
from mixdet.datasets.entries import Subset
from mixdet.datasets.issues import ANY, ERROR, EVALUATION, ISSUE_KINDS, TRAINING, WARNING

EXAMPLES = [
    ('text encoding', None, 'file: text encoding, UTF-8 with a byte-order mark; MMDetection reads only UTF-8'),
    ('missing section', lambda data: data.pop('images'), "file: missing section, 'images'"),
    ('missing section', lambda data: data.pop('categories'), "'categories'"),
    ('invalid section', lambda data: data.update(annotations={}), "invalid section, 'annotations' is a dict"),
    ('invalid section', lambda data: data.update(images=None), "file: invalid section, 'images' is a NoneType"),
    ('no images', lambda data: data.update(images=[], annotations=[]), 'file: no images; the data set is empty'),
    ('no annotations', lambda data: data.pop('annotations'), 'file: no annotations; its images are trained as backg'),
    ('no annotations', lambda data: data.update(annotations=[]), 'file: no annotations'),
    ('no usable box', lambda data: [box.update(ignore=1) for box in data['annotations']],
     'file: no usable box, 3 boxes: 3 x ignored box; a training on it would learn nothing'),
    ('only crowds', lambda data: [box.update(iscrowd=1) for box in data['annotations']],
     'file: only crowds, all 3 boxes that could be used are crowds; crowds are regions to ignore'),
    ('mostly crowds', of('annotations', 1, iscrowd=1), 'category 5: mostly crowds, dog: 1 of 1 boxes; crowds are'),
    ('invalid category', put('categories', 'bird'), "categories[2]: invalid category, it is 'bird'"),
    ('missing category id', put('categories', dict(name='bird')), "categories[2]: missing category id, 'bird'"),
    ('missing category id', put('categories', {}), "categories[2]: missing category id, ''"),
    ('invalid category id', put('categories', dict(id=None, name='bird')), 'id=None'),
    ('invalid category id', put('categories', dict(id=[1], name='bird')), 'id=[1]'),
    ('invalid category id', put('categories', dict(id=2**63, name='bird')), 'id=9223372036854775808'),
    ('category id not an integer', put('categories', dict(id='a', name='bird')), "category 'a'"),
    ('category id not an integer', put('categories', dict(id=7.0, name='bird')), 'category 7.0'),
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
    ('invalid image id', put('images', dict(id=True, file_name='3.jpg', width=9, height=9)), 'id=True'),
    ('invalid image id', put('images', dict(id=2.5, file_name='3.jpg', width=9, height=9)), 'id=2.5'),
    ('invalid image id', put('images', dict(id=None, file_name='3.jpg', width=9, height=9)), 'id=None'),
    ('image id not an integer', put('images', dict(id='7', file_name='3.jpg', width=9, height=9)), "image '7'"),
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
    ('invalid annotation id', of('annotations', id=None), 'annotations[0]: invalid annotation id, id=None'),
    ('annotation id not an integer', of('annotations', id='a'), "annotation 'a'"),
    ('duplicate annotation id', of('annotations', 1, id=1), 'annotation 1: duplicate annotation id'),
    ('missing image_id', of('annotations', image_id=DEL), 'annotation 1: missing image_id'),
    ('unknown image_id', of('annotations', image_id=9), 'annotation 1: unknown image_id, image_id=9'),
    ('unknown image_id', of('annotations', image_id='9'), "image_id='9'"),
    ('image_id of another type', of('annotations', image_id='1'), "1: image_id of another type, image_id='1'; the box"),
    ('category_id of another type', of('annotations', category_id='3'), "category_id='3'; the box is left out"),
    ('invalid image_id', of('annotations', image_id=True), 'image_id=True'),
    ('invalid image_id', of('annotations', image_id=[1]), 'image_id=[1]'),
    ('invalid category_id', of('annotations', category_id=None), 'category_id=None'),
    ('missing category_id', of('annotations', category_id=DEL), 'annotation 1'),
    ('unknown category_id', of('annotations', category_id=4), 'category_id=4'),
    ('ignored box', of('annotations', ignore=1), 'annotation 1: ignored box'),
    ('crowd', of('annotations', iscrowd=1), 'annotation 1: crowd'),
    ('invalid iscrowd', of('annotations', iscrowd='no'), "iscrowd='no'"),
    ('invalid iscrowd', of('annotations', iscrowd=2), 'iscrowd=2'),
    ('invalid iscrowd', of('annotations', iscrowd=None), 'iscrowd=None; the evaluation fails, or takes the box'),
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


def test_a_sound_file_has_no_issue(tmp_path):
    path = write(tmp_path, sound())
    log, fixed = examine(path)
    assert not log.issues and (log.images, log.boxes, log.trained, log.left_out) == (2, 3, 3, 0)
    assert fixed == sound() and boxes_of_mmdetection(path) == 3


@pytest.mark.parametrize(('kind', 'change', 'message'), EXAMPLES, ids=[f'{i}-{e[0]}' for i, e in enumerate(EXAMPLES)])
def test_every_kind_of_issue_is_named(tmp_path, kind, change, message):
    data = sound()
    path = tmp_path / 'a.json'
    if kind == 'text encoding':
        path.write_text(json.dumps(data), encoding='utf-8-sig')
    else:
        change(data)
        write(tmp_path, data)
    log, fixed = examine(path)
    (issue,) = [issue for issue in log.issues if issue.kind == kind]
    assert message in str(issue) and str(issue).endswith(issue.effect)
    for role, boxes in ((TRAINING, boxes_of_training), (EVALUATION, boxes_of_evaluation)):
        log, _ = examine(path, role=role)
        if not list(log.of(ERROR)):
            assert boxes(path) == (log.used, log.crowds)
    if kind not in ('missing section', 'invalid section', 'no images', 'no usable box'):
        again, _ = examine(write(tmp_path, fixed))
        assert not list(again.of(ERROR))
        assert boxes_of_training(path) == (again.trained, again.crowds)


def test_every_kind_of_issue_in_a_file_has_an_example():
    elsewhere = {'duplicate key', 'class not trained', 'image too small', *config_kinds(), *image_file_kinds()}
    assert {kind for kind, _, _ in EXAMPLES} == set(ISSUE_KINDS) - elsewhere


def config_kinds():
    classes = (
        'class not in the file',
        'classes in another order',
        'class not in the config',
        'wrong number of classes',
    )
    return (*classes, 'indices out of range')


def image_file_kinds():
    return [kind for kind in ISSUE_KINDS if 'image file' in kind or kind in FILE_KINDS]


FILE_KINDS = ('image rotated by EXIF', 'backslash in file name')


LIMITS = [
    dict(bbox=[0, 0, 100, 80]),
    dict(bbox=[20, 20, 1, 1]),
    dict(bbox=[-0.5, -0.5, 101, 81]),  # half a pixel is rounding
    dict(area=0.5),
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
    assert boxes_of_training(path) == boxes_of_evaluation(path) == (log.trained, log.crowds) == (3, 0)


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
    ('role', 'severity', 'numbers', 'effect'),
    [
        (TRAINING, ERROR, '0 of 3 boxes are trained, 3 are crowds', 'a training on them would learn nothing'),
        (EVALUATION, WARNING, '0 of 3 boxes are evaluated, 3 are crowds', 'every number will be -'),
        (ANY, ERROR, '0 of 3 boxes are trained, 3 are crowds', 'a training on them would learn nothing'),
    ],
)
def test_crowds_are_no_trained_boxes(tmp_path, role, severity, numbers, effect):
    data = sound()
    for box, crowd in zip(data['annotations'], (1, True, '1')):  # whatever Python takes for true
        box['iscrowd'] = crowd
    log, fixed = examine(write(tmp_path, data), role=role)
    issue = next(issue for issue in log.issues if issue.kind == 'only crowds')
    assert issue.severity == severity and effect in str(issue) and numbers in log.summary()
    assert [box['iscrowd'] for box in fixed['annotations']] == [0, 0, 0]


def test_a_class_of_crowds_is_named_and_made_objects_on_request(tmp_path):
    data = sound()
    data['annotations'][1]['iscrowd'] = 1
    path = write(tmp_path, data)
    log, fixed = examine(path)
    assert [str(issue).split(';')[0] for issue in log.issues] == [
        'annotation 2: crowd', 'category 5: mostly crowds, dog: 1 of 1 boxes',
    ]  # fmt: skip
    assert [box['iscrowd'] for box in fixed['annotations']] == [0, 1, 0]  # real crowds exist: not by itself
    _, fixed = examine(path, repair=Repair(crowds_to_objects=True))
    assert [box['iscrowd'] for box in fixed['annotations']] == [0, 0, 0]
    data['annotations'].append(dict(data['annotations'][1], id=4, iscrowd=0, bbox=[1, 1, 9, 9]))
    log, _ = examine(write(tmp_path, data))  # half of them
    assert list(log.counts()) == ['crowd']
    log, _ = examine(path, classes=('dog',), subset=Subset(indices=[0, 0]))
    assert (log.trained, log.crowds) == boxes_of_training(path, ('dog',), indices=[0, 0]) == (2, 2)


def test_a_root_category_named_like_its_child_is_merged_with_it(tmp_path):
    """The export of a project that is named like its only class: the root has no boxes."""
    data = sound()
    data['categories'] = [dict(id=0, name='cat', supercategory='none'), dict(id=3, name='cat', supercategory='cat')]
    del data['annotations'][1]
    _, fixed = examine(write(tmp_path, data))
    assert fixed['categories'] == data['categories'][1:] and fixed['annotations'] == data['annotations']
    data['categories'].reverse()
    data['annotations'][1]['category_id'] = 0  # both have a box
    _, fixed = examine(write(tmp_path, data))
    assert fixed['categories'] == data['categories'][:1]
    assert [box['category_id'] for box in fixed['annotations']] == [3, 3]


@pytest.mark.parametrize('change', [str, float, lambda number: f' {number}.0 '])
@pytest.mark.parametrize('section', ['images', 'categories'])
@pytest.mark.parametrize('where', ['references', 'ids', 'both'])
def test_numbers_that_are_text_are_converted(tmp_path, section, change, where):
    data = sound()
    name = {'images': 'image_id', 'categories': 'category_id'}[section]
    if where != 'ids':
        for box in data['annotations']:
            box[name] = change(box[name])
    if where != 'references':
        for entry in data[section]:
            entry['id'] = change(entry['id'])
    path = write(tmp_path, data)
    log, fixed = examine(path)
    assert fixed == sound()
    equal = where == 'both' or change is float  # as Python compares them, and MMDetection with it
    assert boxes_of_training(path) == (log.trained, log.crowds) == (3 * equal, 0)


def test_ids_that_are_no_numbers_get_new_ones_that_their_boxes_follow(tmp_path):
    data = sound()
    for entry, new in zip(data['images'], ('5', 'b7f3')):
        for box in data['annotations']:
            box['image_id'] = new if box['image_id'] == entry['id'] else box['image_id']
        entry['id'] = new
    data['images'].append(dict(id=5, file_name='5.jpg', width=9, height=9))  # so that '5' cannot become 5
    _, fixed = examine(write(tmp_path, data))
    assert [image['id'] for image in fixed['images']] == [6, 7, 5]
    assert [box['image_id'] for box in fixed['annotations']] == [6, 6, 7]


def test_categories_in_the_order_of_the_classes(tmp_path):
    _, fixed = examine(write(tmp_path, sound()), repair=Repair(order=('dog', 'cat')))
    assert [category['name'] for category in fixed['categories']] == ['dog', 'cat']


@pytest.mark.parametrize(
    ('min_size', 'filter_empty_gt', 'indices', 'expected'),
    [
        (61, False, None, 2),
        (60, False, None, 3),
        (0, False, 1, 0),
        (0, False, 2, 2),
        (0, False, -1, 1),
        (0, False, [2, 2, 0], 2),
        (0, True, 1, 2),
        (61, True, -1, 2),
        (0, True, 0, 0),
    ],
)
def test_images_that_the_data_set_leaves_out_are_not_counted(tmp_path, min_size, filter_empty_gt, indices, expected):
    data = sound()
    data['images'].insert(0, dict(id=9, file_name='9.jpg', width=90, height=90))
    path = write(tmp_path, data)
    log, _ = examine(path, role=TRAINING, subset=Subset(min_size, filter_empty_gt, indices))
    assert log.trained == expected and log.counts()['image too small'] == (min_size == 61)
    if indices != 0:  # MMDetection cannot serialise an empty set
        filter_cfg = dict(min_size=min_size, filter_empty_gt=filter_empty_gt)
        assert boxes_of_training(path, filter_cfg=filter_cfg, indices=indices) == (expected, 0)


def test_places_that_are_none_are_named(tmp_path):
    path = write(tmp_path, sound())
    log, _ = examine(path, subset=Subset(61, False, [0, -1, 1]))
    assert [str(issue) for issue in log.of(ERROR)] == [
        'indices: indices out of range, 1, but 1 images are used; MMDetection fails with an IndexError'
    ]
    with pytest.raises(IndexError):
        boxes_of_training(path, filter_cfg=dict(min_size=61), indices=[0, -1, 1])


@pytest.mark.parametrize(
    ('name', 'boxes'), [('crowd_only', 71), ('root_named_like_child', 188), ('bom', 218), ('annotation_id_zero', 218)]
)
def test_files_of_others_keep_all_their_boxes(tmp_path, name, boxes):
    path = shared_path('cases', f'{name}.json')
    log, fixed = examine(path)
    assert list(log.of(ERROR)) or name == 'annotation_id_zero'
    path = write(tmp_path, fixed)
    log, _ = examine(path)
    classes = [category['name'] for category in fixed['categories']]
    assert not list(log.of(ERROR)) and boxes_of_training(path, classes) == (boxes, 0)


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
        set(log.counts()) <= {'crowd', 'mostly crowds', 'category without boxes', 'image without boxes'}
        and log.counts()['crowd'] == crowds
    )
    assert log.left_out == 0 and log.crowds == crowds and log.trained == log.boxes - crowds
