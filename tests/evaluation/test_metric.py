import contextlib
import io
import json

import numpy as np
import pytest
import torch
from helpers import shared_path
from mmengine.registry import init_default_scope
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mixdet.evaluation.coco import STATS
from mixdet.evaluation.metric import CocoMetric

init_default_scope('mmdet')


def sample(image_id, boxes, scores, labels):
    return dict(
        img_id=image_id,
        ori_shape=(100, 100),
        pred_instances=dict(
            bboxes=torch.tensor(boxes).reshape(-1, 4), scores=torch.tensor(scores), labels=torch.tensor(labels).long()
        ),
    )


@pytest.fixture
def metric(tmp_path):
    coco = dict(
        images=[dict(id=1, height=100, width=100), dict(id=2, height=100, width=100)],
        categories=[dict(id=7, name='cat'), dict(id=9, name='dog'), dict(id=11, name='bird')],
        annotations=[
            dict(id=1, image_id=1, category_id=7, bbox=[10, 10, 50, 50], area=2500, iscrowd=0),
            dict(id=2, image_id=2, category_id=9, bbox=[0, 0, 20, 20], area=400, iscrowd=0),
        ],
    )
    (tmp_path / 'a.json').write_text(json.dumps(coco))
    metric = CocoMetric(ann_file=str(tmp_path / 'a.json'), outfile_prefix=str(tmp_path / 'out'))
    metric.dataset_meta = dict(classes=('cat', 'dog', 'bird'))
    return metric


def test_numbers_by_hand(metric, tmp_path):
    # the cat is found exactly; the dog with IoU 0.8, after a false alarm of higher score
    metric.process({}, [
        sample(1, [[10.0, 10, 60, 60]], [0.9], [0]),
        sample(2, [[50.0, 50, 90, 90], [0, 0, 20, 16]], [0.8, 0.6], [1, 1]),
    ])  # fmt: skip
    result = metric.evaluate(2)
    assert result['coco/cat_precision'] == pytest.approx(1)
    assert result['coco/dog_precision'] == pytest.approx(0.7 * 0.5)  # thresholds .50 ... .80, precision 1/2
    assert result['coco/bird_precision'] == -1
    assert result['coco/bbox_mAP'] == pytest.approx((1 + 0.35) / 2)
    assert result['coco/bbox_mAP_50'] == pytest.approx(0.75) and result['coco/bbox_mAP_l'] == -1
    assert [key for key in result if 'bbox' in key] == [f'coco/bbox_{name}' for name in STATS]
    written = json.loads((tmp_path / 'out.bbox.json').read_text())
    assert len(written) == 3 and written[0]['bbox'] == [10, 10, 50, 50] and written[0]['category_id'] == 7


def test_no_detection_is_zero_and_can_be_saved_as_best(metric, caplog):
    metric.process({}, [sample(1, [], [], []), sample(2, [], [], [])])
    result = metric.evaluate(2)
    assert result['coco/bbox_mAP'] == 0 and result['coco/cat_precision'] == 0 and result['coco/bird_precision'] == -1


@pytest.mark.parametrize(
    'ann_file', ['coco-mini/annotations/instances_val2017.json', 'bccd/annotations/instances_val.json']
)
def test_equals_pycocotools_on_real_annotations(ann_file, tmp_path):
    """Ground truth, shaken and with false alarms, through our metric and straight through pycocotools."""
    path = shared_path('data', *ann_file.split('/'))
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(path)
    rng = np.random.default_rng(0)
    classes = tuple(category['name'] for category in coco.loadCats(coco.getCatIds()))
    metric = CocoMetric(ann_file=str(path))
    metric.dataset_meta = dict(classes=classes)
    direct = []
    for image in coco.loadImgs(coco.getImgIds()):
        truth = coco.loadAnns(coco.getAnnIds(image['id'], iscrowd=False))
        boxes = np.array([a['bbox'] for a in truth]).reshape(-1, 4)
        boxes = np.float32(np.hstack([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]]) + rng.normal(0, 3, boxes.shape))
        labels = [coco.getCatIds().index(a['category_id']) for a in truth]
        labels = np.where(rng.random(len(labels)) < 0.9, labels, 0)
        scores = np.float32(rng.random(len(labels)))
        metric.process({}, [sample(image['id'], boxes.tolist(), scores.tolist(), labels.tolist())])
        direct += [
            dict(image_id=image['id'], category_id=coco.getCatIds()[c], score=float(s),
                 bbox=[float(b[0]), float(b[1]), float(b[2]) - float(b[0]), float(b[3]) - float(b[1])])
            for b, s, c in zip(boxes, scores, labels)
        ]  # fmt: skip
    result = metric.evaluate(len(coco.getImgIds()))
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(coco, coco.loadRes(direct), 'bbox')
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    assert 0.1 < evaluation.stats[0] < 0.95
    assert [result[f'coco/bbox_{name}'] for name in STATS] == pytest.approx(list(evaluation.stats), abs=1e-6)


def test_details_of_the_last_evaluation_are_kept(metric):
    assert metric.details is None
    found = sample(1, [[10.0, 10, 60, 60]], [0.9], [0])
    metric.process({}, [{**found, 'img_path': 'one.jpg'}, sample(2, [[0.0, 0, 20, 20]], [0.2], [1])])
    result = metric.evaluate(2)
    cat, dog, bird = metric.details.classes
    assert (cat['AP'], dog['AP'], bird['AP']) == (1, 1, -1) and result['coco/cat_precision'] == 1
    assert [(image.path, image.f1) for image in metric.details.images] == [('one.jpg', 1), ('', 0)]  # 0.2 is too low


def test_an_unknown_backend_is_named():
    with pytest.raises(ValueError, match="backend='fast': must be one of"):
        CocoMetric(backend='fast')
