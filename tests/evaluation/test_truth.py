import json

import pytest
from helpers import coco_of
from mmengine.config import Config

from mixdet.errors import UserError
from mixdet.evaluation.truth import category_ids, check_ground_truth, number_images, seen_images

BOX = [10, 10, 50, 50]


def write(path, images, annotations):
    """A COCO file of images (id: name) and annotations (image, category, box)."""
    content = dict(
        images=[dict(id=i, file_name=name, height=100, width=100) for i, name in images.items()],
        categories=[dict(id=7, name='cat'), dict(id=9, name='dog')],
    )
    if annotations is not None:
        content['annotations'] = [
            dict(id=n, image_id=image, category_id=category, bbox=box, area=1, iscrowd=0)
            for n, (image, category, box) in enumerate(annotations)
        ]
    path.write_text(json.dumps(content))
    return path


def config(root, ann_file, evaluator, wrapper=None):
    dataset = dict(type='CocoDataset', data_root=str(root), ann_file=ann_file, data_prefix=dict(img=''))
    if wrapper == 'concat':
        dataset = dict(type='ConcatDataset', datasets=[dict(dataset, ann_file='val.json'), dataset])
    if wrapper == 'repeat':
        dataset = dict(type='RepeatDataset', times=2, dataset=dataset)
    evaluator = dict(type='mixdet.CocoMetric', ann_file=str(evaluator))
    return Config(dict(test_dataloader=dict(dataset=dataset), test_evaluator=[dict(type='DumpResults'), evaluator]))


@pytest.fixture
def val(tmp_path):
    return write(tmp_path / 'val.json', {1: 'a.jpg', 2: 'b.jpg'}, [(1, 7, BOX), (2, 9, BOX), (2, 7, BOX)])


OTHERS = {
    'images': ({5: 'c.jpg'}, [(5, 7, BOX)], r'has no image with the id 5 \(c.jpg\)'),
    'names': ({1: 'other.jpg'}, [(1, 7, BOX)], 'the image with the id 1 is a.jpg in the former and other.jpg in the'),
    'boxes': ({1: 'a.jpg'}, [(1, 7, [10, 10, 50, 40])], r'the boxes of image 1 \(a.jpg\) differ'),
    'classes': ({1: 'a.jpg'}, [(1, 9, BOX)], 'the boxes of image 1'),
    'fewer boxes': ({1: 'a.jpg', 2: 'b.jpg'}, [(1, 7, BOX)], 'the boxes of image 2'),
}


@pytest.mark.parametrize('wrapper', [None, 'concat', 'repeat'])
@pytest.mark.parametrize('kind', OTHERS)
def test_the_data_set_was_changed_alone(tmp_path, val, kind, wrapper):
    images, annotations, message = OTHERS[kind]
    write(tmp_path / 'test.json', images, annotations)
    cfg = config(tmp_path, 'test.json', val, wrapper)
    with pytest.raises(UserError, match=message) as caught:
        check_ground_truth(cfg, ('test',))
    assert str(caught.value).startswith(f'test_evaluator.ann_file is {val}, but test_dataloader.dataset')
    assert str(caught.value).endswith(
        f'set test_evaluator.ann_file={tmp_path / "test.json"} if that holds the ground truth'
    )
    cfg.test_evaluator[1].ann_file = str(tmp_path / 'test.json')
    if wrapper != 'concat':
        check_ground_truth(cfg, ('val', 'test'))


def test_a_file_that_cannot_be_read_is_left_to_the_check_of_the_data(tmp_path, val):
    for content in ('no JSON', '[' * 10**5):
        (tmp_path / 'test.json').write_text(content)
        check_ground_truth(config(tmp_path, 'test.json', val, None), ('test',))


def test_files_with_the_same_truth_are_accepted(tmp_path, val):
    (tmp_path / 'copy').mkdir()
    (tmp_path / 'link.json').symlink_to(val)
    write(tmp_path / 'copy/val.json', {2: 'b.jpg', 1: 'a.jpg'}, [(2, 7, BOX), (2, 9, BOX), (1, 7, [10.0, 10, 50, 50])])
    write(tmp_path / 'part.json', {2: 'b.jpg'}, [(2, 7, BOX), (2, 9, BOX)])
    write(tmp_path / 'images.json', {2: 'b.jpg'}, None)
    for name in ('val.json', 'copy/val.json', 'part.json', 'images.json', 'link.json'):
        check_ground_truth(config(tmp_path, name, val), ('test',))
    for evaluator in (dict(type='CocoMetric'), dict(type='VOCMetric'), dict(type='CocoMetric', ann_file='s3://a.json')):
        check_ground_truth(Config(dict(config(tmp_path, 'part.json', val), test_evaluator=evaluator)), ('test',))
    check_ground_truth(Config(dict(val_evaluator=None)), ('val',))


def result(image_id, path):
    return dict(img_id=image_id), dict(img_id=image_id, img_path=path)


def test_images_seen_twice_count_once():
    truth = coco_of([1, 2], {7: 'cat'}, [])
    first, second = result(1, 'x/1.jpg'), result(2, '/y/2.jpg')
    assert seen_images([first, second, first], truth, 'a.json') == [first, second]
    with pytest.raises(UserError, match='a.json: the image with the id 1 is 1.jpg, but x/2.jpg was read'):
        seen_images([result(1, 'x/2.jpg')], truth, 'a.json')
    with pytest.raises(UserError, match='x/1.jpg and y/1.jpg have the same id 1; evaluate their data sets one by one'):
        seen_images([first, result(1, 'y/1.jpg')], truth, 'a.json')


def test_a_backslash_separates_folders_or_is_part_of_a_name():
    truth = coco_of([1, 2], {7: 'cat'}, [])
    truth.imgs[1]['file_name'], truth.imgs[2]['file_name'] = r'a/$\frac$.jpg', r'a\b.jpg'  # the latter of Windows
    assert len(seen_images([result(1, r'x/a/$\frac$.jpg'), result(2, 'x/a/b.jpg')], truth, 'a.json')) == 2
    with pytest.raises(UserError, match='but x/frac.jpg was read'):
        seen_images([result(1, 'x/frac.jpg')], truth, 'a.json')


def test_new_ids_leave_the_results_as_they_are():
    results = [result(0, 'a'), result(0, 'b')]
    assert [(truth['img_id'], found['img_id']) for truth, found in number_images(results)] == [(1, 1), (2, 2)]
    assert results[1][1]['img_id'] == 0


def test_ids_of_classes():
    truth = coco_of([1], {9: 'dog', 7: 'cat'}, [])
    assert category_ids(truth, ('cat', 'dog'), 'a.json') == [9, 7]  # the file's order, as MMDetection's labels
    with pytest.raises(UserError, match=r"a.json has no category 'bird'.*; it has dog, cat"):
        category_ids(truth, ('cat', 'bird'), 'a.json')
