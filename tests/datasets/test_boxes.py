import pytest
from coco_examples import DEL, examine, of, sound, write


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
        (dict(iscrowd=2), dict(iscrowd=0)),
        (dict(iscrowd=None), dict(iscrowd=0)),
        (dict(iscrowd=1.0), dict(iscrowd=1)),
        (dict(iscrowd='1'), dict(iscrowd=1)),
        (dict(iscrowd='0'), dict(iscrowd=0)),
        (dict(bbox=['10', '10.0', 20, '2e1']), dict(bbox=[10, 10, 20, 20])),
        (dict(bbox=DEL, segmentation=[[10, 30, 30, 10, 20, 20]]), dict(segmentation=[[10, 30, 30, 10, 20, 20]])),
        (dict(id='a'), dict(id=4)),
        (dict(id='7'), dict(id=4)),
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
