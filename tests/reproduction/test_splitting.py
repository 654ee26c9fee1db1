import json
import random

import pytest
from helpers import shared_path
from hypothesis import given
from hypothesis import strategies as st

from mixdet.reproduction.splitting import hold_out


def coco(classes_of_images, names=None):
    """A COCO file with a box of each class that an image has."""
    names = names or [f'{i}.jpg' for i in range(len(classes_of_images))]
    images = [dict(id=i, file_name=name) for i, name in enumerate(names)]
    boxes = [(i, category) for i, found in enumerate(classes_of_images) for category in found]
    annotations = [dict(id=n, image_id=i, category_id=category) for n, (i, category) in enumerate(boxes)]
    return dict(images=images, annotations=annotations, categories=[dict(id=c, name=str(c)) for c in range(4)])


def ids(part):
    return [image['id'] for image in part['images']]


@given(st.lists(st.sets(st.integers(0, 3), max_size=3), min_size=1, max_size=60), st.floats(0.01, 0.99))
def test_every_image_is_in_one_part_with_its_boxes(classes, fraction):
    whole = coco(classes)
    parts = hold_out(whole, fraction)
    assert sorted(ids(parts[0]) + ids(parts[1])) == ids(whole)
    for part in parts:
        own = set(ids(part))
        assert part['annotations'] == [entry for entry in whole['annotations'] if entry['image_id'] in own]
        assert part['categories'] == whole['categories']
    groups = len({frozenset(found) for found in classes})
    assert abs(len(ids(parts[1])) - fraction * len(classes)) <= groups / 2 + 1e-6


def test_each_class_is_held_out_by_the_same_fraction():
    classes = [{0}] * 40 + [{1}] * 20 + [{0, 2}] * 10 + [set()] * 10  # the rarest class of the third kind is 2
    kept, held_out = hold_out(coco(classes), 0.2)
    assert [sum(start <= i < end for i in ids(held_out)) for start, end in ((0, 40), (40, 60), (60, 70), (70, 80))] == [
        8, 4, 2, 2
    ]  # fmt: skip
    assert len(ids(kept)) == 64


def test_the_order_in_the_file_does_not_matter_but_the_seed_does():
    whole = coco([{i % 3} for i in range(60)])
    shuffled = json.loads(json.dumps(whole))
    random.Random(0).shuffle(shuffled['images'])
    assert set(ids(hold_out(whole, 0.3)[1])) == set(ids(hold_out(shuffled, 0.3)[1]))
    assert set(ids(hold_out(whole, 0.3)[1])) != set(ids(hold_out(whole, 0.3, seed=1)[1]))


def test_the_images_are_the_same_everywhere():
    assert ids(hold_out(coco([{0}] * 12), 0.25)[1]) == [0, 2, 4]


@pytest.mark.parametrize('fraction', [0, 1, -0.1, 1.5])
def test_a_fraction_that_leaves_a_part_empty(fraction):
    with pytest.raises(ValueError, match='must be above 0 and below 1'):
        hold_out(coco([{0}]), fraction)


def test_steel_defects():
    whole = json.loads(shared_path('data', 'neu-det', 'annotations', 'instances_train.json').read_text())
    kept, held_out = hold_out(whole, 0.2)
    assert (len(kept['images']), len(held_out['images'])) == (991, 246)
