import json

import numpy as np
import pytest
from helpers import shared_path
from mmdet.datasets import CocoDataset, MultiImageMixDataset
from mmengine.dataset import ConcatDataset, RepeatDataset

from mixdet.datasets import statistics
from mixdet.datasets.statistics import SIDES, box_statistics

SQUARES = {1: [10, 20, 200], 2: [40], 3: []}  # sides of the boxes by image id


@pytest.fixture
def dataset(tmp_path):
    """Images of 200x400 px with square boxes, a crowd box among them."""
    annotations = [
        dict(image_id=image, category_id=1 + (side == 200), bbox=[0, 0, side, side], area=side**2, iscrowd=0)
        for image, sides in SQUARES.items() for side in sides
    ]  # fmt: skip
    annotations.append(dict(image_id=2, category_id=1, bbox=[0, 0, 99, 99], area=9801, iscrowd=1))
    content = dict(
        images=[dict(id=i, file_name=f'{i}.jpg', width=200, height=400) for i in SQUARES],
        categories=[dict(id=1, name='a <b>'), dict(id=2, name='b'), dict(id=3, name='none')],
        annotations=[dict(annotation, id=i + 1) for i, annotation in enumerate(annotations)],
    )
    (tmp_path / 'a.json').write_text(json.dumps(content))
    return CocoDataset(
        ann_file=str(tmp_path / 'a.json'), data_prefix=dict(img=''), metainfo=dict(classes=('a <b>', 'b', 'none'))
    )


def test_numbers_of_a_small_set(dataset):
    found = box_statistics(dataset)
    assert found == json.loads(json.dumps(found))
    assert {key: found[key] for key in ('images', 'counted', 'empty', 'boxes', 'ignored')} == dict(
        images=3, counted=3, empty=1, boxes=4, ignored=1
    )
    assert found['per_image'] == dict(mean=1.33, median=1.0, most=3) and found['sizes'] == [[200, 400, 3]]
    first, second, third = found['classes']
    assert first == dict(
        name='a <b>', boxes=3, images=2, small=2, medium=1, large=0, side=20.0,
        percent=round(100 * 20 / (200 * 400) ** 0.5, 1),
    )  # fmt: skip
    assert (second['boxes'], second['large'], second['images'], third['boxes'], third['side']) == (1, 1, 1, 0, 0.0)
    edges, counts = found['sides']['edges'], found['sides']['counts']
    assert sum(counts) == 4 and len(edges) == len(counts) == len(SIDES)
    for side in (10, 20, 40, 200):
        assert counts[np.searchsorted(SIDES, side, side='right') - 1] == 1


def test_wrappers_that_repeat_are_looked_through(dataset):
    repeated = RepeatDataset(dataset, 5)
    mixed = MultiImageMixDataset(dataset, [])
    assert box_statistics(repeated) == box_statistics(mixed) == box_statistics(dataset)
    both = box_statistics(ConcatDataset([dataset, dataset]))
    assert (both['images'], both['boxes'], both['classes'][0]['images']) == (6, 8, 4)


def test_huge_sets_are_sampled(dataset, monkeypatch):
    monkeypatch.setattr(statistics, 'MOST_IMAGES', 2)
    found = box_statistics(dataset)
    assert (found['images'], found['counted'], found['boxes']) == (3, 2, 3)  # the first and the third image


def test_an_empty_set():
    found = box_statistics(_Empty())
    assert (found['images'], found['boxes'], found['per_image']['most'], found['sizes']) == (0, 0, 0, [])


class _Empty(list):
    metainfo = dict(classes=('a',))


def test_boxes_of_blood_cells():
    root = shared_path('data', 'bccd')
    file = next(root.rglob('*train*.json'))
    content = json.loads(file.read_text())
    names = tuple(category['name'] for category in content['categories'])
    found = box_statistics(CocoDataset(ann_file=str(file), data_prefix=dict(img=''), metainfo=dict(classes=names)))
    counts = {category['name']: 0 for category in content['categories']}
    by_id = {category['id']: category['name'] for category in content['categories']}
    for annotation in content['annotations']:
        counts[by_id[annotation['category_id']]] += 1
    assert {row['name']: row['boxes'] for row in found['classes']} == counts
    assert (found['images'], found['boxes']) == (len(content['images']), len(content['annotations']))
