import json

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO

from mixdet.datasets import DemoDataset, demo, make_demo_data

IMAGES = {'train': 12, 'val': 4}


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    return make_demo_data(tmp_path_factory.mktemp('demo') / 'set', IMAGES)


def test_same_seed_same_files(root, tmp_path):
    again = make_demo_data(tmp_path / 'again', IMAGES)
    files = sorted(path.relative_to(root) for path in root.rglob('*') if path.is_file())
    assert len(files) == 12 + 4 + 2
    assert all((root / file).read_bytes() == (again / file).read_bytes() for file in files)
    other = make_demo_data(tmp_path / 'other', {'train': 1, 'val': 0}, seed=1)
    assert (other / files[2]).read_bytes() != (root / files[2]).read_bytes()


def test_annotations_are_sound_coco(root):
    coco = COCO(root / 'annotations' / 'train.json')
    assert [category['name'] for category in coco.loadCats(coco.getCatIds())] == list(demo.CLASSES)
    assert len(coco.getImgIds()) == 12
    for annotation in coco.loadAnns(coco.getAnnIds()):
        x, y, width, height = annotation['bbox']
        assert min(x, y) >= 0 and min(width, height) > 0 and x + width <= demo.WIDTH and y + height <= demo.HEIGHT
        drawn = int(coco.annToMask(annotation).sum())
        assert annotation['area'] == pytest.approx(drawn, rel=0.25, abs=60)  # polygons have no holes
    assert len({annotation['image_id'] for annotation in coco.loadAnns(coco.getAnnIds())}) == 12


def test_objects_come_small_and_large_in_all_classes_and_overlap():
    labels, areas, overlaps = set(), [], 0
    for seed in range(40):
        image, objects = demo.draw_image(np.random.default_rng(seed))
        assert image.shape == (demo.HEIGHT, demo.WIDTH, 3) and image.std() > 5
        assert 1 <= len(objects) <= demo.OBJECTS[1]
        assert not np.any(sum(mask.astype(int) for _, mask in objects) > 1)  # masks are the visible parts
        boxes = [cv2.boundingRect(mask.astype(np.uint8)) for _, mask in objects]
        overlaps += sum(
            a[0] < b[0] + b[2] and b[0] < a[0] + a[2] and a[1] < b[1] + b[3] and b[1] < a[1] + a[3]
            for i, a in enumerate(boxes) for b in boxes[:i]
        )  # fmt: skip
        labels |= {label for label, _ in objects}
        areas += [mask.sum() for _, mask in objects]
    assert labels == set(range(len(demo.CLASSES)))
    small, medium = np.mean(np.array(areas) < 32**2), np.mean(np.array(areas) < 96**2)
    assert 0.1 < small < 0.5 and 0.6 < medium < 0.95
    assert overlaps > 20


def test_dataset_draws_itself_once(tmp_path, monkeypatch):
    monkeypatch.setattr(demo, 'make_demo_data', lambda root: make_demo_data(root, IMAGES))
    arguments = dict(
        data_root=str(tmp_path / 'new'), ann_file='annotations/val.json', data_prefix=dict(img='images/val/')
    )
    dataset = DemoDataset(**arguments, test_mode=True)
    assert len(dataset) == 4 and dataset.metainfo['classes'] == demo.CLASSES
    (tmp_path / 'new' / 'annotations' / 'val.json').write_text(
        json.dumps(dict(json.loads((tmp_path / 'new/annotations/val.json').read_text()), annotations=[]))
    )
    assert not any(info['instances'] for info in DemoDataset(**arguments, test_mode=True))  # not drawn again


def test_an_interrupted_drawing_leaves_nothing(tmp_path, monkeypatch):
    def fail(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, 'draw_image', fail)
    with pytest.raises(KeyboardInterrupt):
        make_demo_data(tmp_path / 'set', IMAGES)
    assert list(tmp_path.iterdir()) == []
