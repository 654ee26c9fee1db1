import contextlib
import io
import json

import numpy as np
import pytest
import torch
from helpers import shared_path
from mmdet.evaluation import CocoMetric as MMDetCocoMetric
from mmengine.registry import init_default_scope
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from pycocotools.mask import encode

from mixdet.errors import UserError
from mixdet.evaluation.metric import CocoMetric
from mixdet.evaluation.numbers import STATS

init_default_scope('mmdet')


def sample(image_id, boxes, scores, labels, **predicted):
    """A data sample as a detector returns it, with ``masks`` (n, H, W) and more if it predicts them."""
    found = dict(
        bboxes=torch.tensor(boxes, dtype=torch.float).reshape(-1, 4),
        scores=torch.tensor(scores),
        labels=torch.tensor(labels).long(),
        **predicted,
    )
    return dict(img_id=image_id, ori_shape=(100, 100), pred_instances=found)


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


def test_only_the_classes_of_the_data_set_are_evaluated(metric):
    metric.dataset_meta = dict(classes=('dog',))
    metric.process({}, [sample(1, [], [], []), sample(2, [[0, 0, 20, 20]], [0.9], [0])])
    result = metric.evaluate(2)
    assert result['coco/bbox_mAP'] == result['coco/dog_precision'] == 1 and 'coco/cat_precision' not in result


def test_no_detection_is_zero_and_can_be_saved_as_best(metric, caplog):
    metric.process({}, [sample(1, [], [], []), sample(2, [], [], [])])
    result = metric.evaluate(2)
    assert result['coco/bbox_mAP'] == 0 and result['coco/cat_precision'] == 0 and result['coco/bird_precision'] == -1


def plain_pycocotools(coco, rows, iou_type):
    """The twelve numbers, and AP of each class."""
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(coco, coco.loadRes(rows), iou_type)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    precision = evaluation.eval['precision'][:, :, :, 0, 2]
    known = [precision[:, :, k][precision[:, :, k] > -1] for k in range(precision.shape[2])]
    return list(evaluation.stats), [values.mean() if values.size else -1 for values in known]


def metric_of(metric_class, path, coco, **settings):
    """A metric for all classes of an annotation file."""
    metric = metric_class(ann_file=str(path), **settings)
    metric.dataset_meta = dict(classes=tuple(category['name'] for category in coco.loadCats(coco.getCatIds())))
    return metric


@pytest.mark.parametrize('name', ['coco-mini/annotations/instances_val2017', 'bccd/annotations/instances_val'])
def test_boxes_equal_plain_pycocotools_on_real_annotations(name):
    """Ground truth, moved a little and some of it mislabelled, through our metric and straight through pycocotools."""
    path = shared_path('data', *f'{name}.json'.split('/'))
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(path)
    rng = np.random.default_rng(0)
    cat_ids = coco.getCatIds()
    metric = metric_of(CocoMetric, path, coco)
    rows = []
    for image in coco.loadImgs(coco.getImgIds()):
        truth = coco.loadAnns(coco.getAnnIds(image['id'], iscrowd=False))
        boxes = np.array([a['bbox'] for a in truth]).reshape(-1, 4)
        boxes = np.float32(np.hstack([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]]) + rng.normal(0, 3, boxes.shape))
        labels = [cat_ids.index(a['category_id']) for a in truth]
        labels = np.where(rng.random(len(labels)) < 0.9, labels, 0)
        scores = np.float32(rng.random(len(labels)))
        metric.process({}, [sample(image['id'], boxes.tolist(), scores.tolist(), labels.tolist())])
        rows += [
            dict(image_id=image['id'], category_id=cat_ids[c], score=float(s),
                 bbox=[float(b[0]), float(b[1]), float(b[2]) - float(b[0]), float(b[3]) - float(b[1])])
            for b, s, c in zip(boxes, scores, labels)
        ]  # fmt: skip
    result = metric.evaluate(len(coco.getImgIds()))
    stats, per_class = plain_pycocotools(coco, rows, 'bbox')
    assert 0.1 < stats[0] < 0.95
    assert [result[f'coco/bbox_{name}'] for name in STATS] == pytest.approx(stats, abs=1e-9)
    assert [result[f'coco/{name}_precision'] for name in metric.dataset_meta['classes']] == pytest.approx(
        per_class, abs=1e-9
    )


@pytest.fixture(scope='module')
def real_masks():
    """The annotation file of coco-mini with its masks as detections: shifted by some px, a tenth mislabelled."""
    path = shared_path('data', 'coco-mini', 'annotations', 'instances_val2017.json')
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(path)
    rng = np.random.default_rng(0)
    cat_ids = coco.getCatIds()
    samples = []
    for image in coco.loadImgs(coco.getImgIds()):
        truth = coco.loadAnns(coco.getAnnIds(image['id'], iscrowd=False))
        masks = np.zeros((len(truth), image['height'], image['width']), bool)
        for k, annotation in enumerate(truth):
            masks[k] = np.roll(coco.annToMask(annotation), rng.integers(-4, 5, 2), (0, 1))
        boxes = np.array([a['bbox'] for a in truth]).reshape(-1, 4) + rng.normal(0, 3, (len(truth), 4))
        boxes[:, 2:] += boxes[:, :2]
        labels = np.array([cat_ids.index(a['category_id']) for a in truth], int)
        labels[rng.random(len(labels)) < 0.1] = 0
        scores = rng.random(len(truth)).tolist()
        samples.append(sample(image['id'], boxes.tolist(), scores, labels.tolist(), masks=torch.from_numpy(masks)))
    return path, coco, samples


@pytest.mark.parametrize('backend', ['pycocotools', 'faster-coco-eval'])
def test_masks_equal_plain_pycocotools_on_real_annotations(real_masks, backend):
    if backend == 'faster-coco-eval':
        pytest.importorskip('faster_coco_eval')
    path, coco, samples = real_masks
    metric = metric_of(CocoMetric, path, coco, metric=['bbox', 'segm'], backend=backend)
    metric.process({}, samples)
    result = metric.evaluate(len(samples))
    rows = []
    for found in samples:
        predicted = found['pred_instances']
        for mask, score, label in zip(predicted['masks'], predicted['scores'], predicted['labels']):
            rle = encode(np.asfortranarray(mask.numpy().astype(np.uint8)))
            category = coco.getCatIds()[label]
            rows.append(dict(image_id=found['img_id'], category_id=category, score=float(score), segmentation=rle))
    stats, per_class = plain_pycocotools(coco, rows, 'segm')
    assert 0.1 < stats[0] < 0.95 and abs(stats[0] - result['coco/bbox_mAP']) > 0.01
    assert [result[f'coco/segm_{name}'] for name in STATS] == pytest.approx(stats, abs=1e-9)
    assert [result[f'coco/segm_{name}_precision'] for name in metric.dataset_meta['classes']] == pytest.approx(
        per_class, abs=1e-9
    )
    assert [row['mask_AP'] for row in metric.details.classes] == pytest.approx(per_class, abs=1e-9)


def test_boxes_and_masks_equal_mmdetections_metric(real_masks):
    path, coco, samples = real_masks
    results = []
    for metric_class in (CocoMetric, MMDetCocoMetric):
        metric = metric_of(metric_class, path, coco, metric=['bbox', 'segm'])
        metric.process({}, samples)
        results.append(metric.evaluate(len(samples)))
    ours, theirs = results
    assert len(theirs) == 12 and {key: round(ours[key], 3) for key in theirs} == theirs


def rectangle(x1, y1, x2, y2):
    mask = torch.zeros(100, 100, dtype=torch.bool)
    mask[y1:y2, x1:x2] = True
    return mask


@pytest.fixture
def mask_metric(metric, tmp_path):
    """For the ground truth of ``metric`` with a mask for each object, that of the cat the left half of its box."""
    content = json.loads((tmp_path / 'a.json').read_text())
    cat, dog = content['annotations']
    cat.update(segmentation=[[10, 10, 35, 10, 35, 60, 10, 60]], area=25 * 50)
    dog.update(segmentation=[[0, 0, 20, 0, 20, 20, 0, 20]])
    (tmp_path / 'masks.json').write_text(json.dumps(content))

    def build(*metrics):
        ann_file, outfile_prefix = str(tmp_path / 'masks.json'), str(tmp_path / 'out')
        metric = CocoMetric(ann_file=ann_file, metric=list(metrics), outfile_prefix=outfile_prefix)
        metric.dataset_meta = dict(classes=('cat', 'dog', 'bird'))
        return metric

    return build


def test_masks_by_hand(mask_metric, tmp_path):
    # boxes: both exact. Masks: the cat's exact; the dog's with IoU 0.8, after a false alarm of higher score
    cat = sample(1, [[10, 10, 60, 60]], [0.9], [0], masks=rectangle(10, 10, 35, 60)[None])
    dogs = torch.stack([rectangle(50, 50, 90, 90), rectangle(0, 0, 20, 16)])
    dog = sample(2, [[50, 50, 90, 90], [0, 0, 20, 20]], [0.8, 0.6], [1, 1], masks=dogs)
    metric = mask_metric('bbox', 'segm')
    metric.process({}, [cat, dog])
    result = metric.evaluate(2)
    assert result['coco/cat_precision'] == result['coco/segm_cat_precision'] == 1
    assert result['coco/dog_precision'] == pytest.approx(0.5)
    assert result['coco/segm_dog_precision'] == pytest.approx(0.7 * 0.5)  # thresholds .50 ... .80, precision 1/2
    assert result['coco/segm_bird_precision'] == -1
    assert result['coco/segm_mAP'] == pytest.approx((1 + 0.35) / 2)
    assert result['coco/bbox_mAP'] == pytest.approx((1 + 0.5) / 2)
    # the cat's area is that of its mask, 25x50: medium; the false alarm of 40x40 does not count among the small ones
    assert result['coco/segm_mAP_m'] == pytest.approx(1) and result['coco/segm_mAP_s'] == pytest.approx(0.7)
    assert [row.get('mask_AP') for row in metric.details.classes] == pytest.approx([1, 0.35, -1])
    written = json.loads((tmp_path / 'out.segm.json').read_text())
    assert len(written) == 3 and written[0]['segmentation']['size'] == [100, 100]


def test_size_of_a_false_alarm_is_that_of_its_mask(mask_metric):
    # found with a large box and a small mask: among the small objects it is a false alarm, among the large ones not
    found = sample(
        2, [[0, 0, 100, 100], [0, 0, 20, 20]], [0.8, 0.6], [1, 1],
        masks=torch.stack([rectangle(50, 50, 60, 60), rectangle(0, 0, 20, 20)]),
    )  # fmt: skip
    metric = mask_metric('bbox', 'segm')
    metric.process({}, [sample(1, [], [], [], masks=torch.zeros(0, 100, 100)), found])
    result = metric.evaluate(2)
    assert result['coco/segm_mAP_s'] == pytest.approx(0.5) and result['coco/bbox_mAP_s'] == pytest.approx(1)


def test_masks_have_scores_of_their_own_where_the_detector_gives_them(mask_metric):
    masks = torch.stack([rectangle(0, 0, 20, 20), rectangle(50, 50, 90, 90)])
    found = sample(
        2, [[0, 0, 20, 20], [50, 50, 90, 90]], [0.6, 0.8], [1, 1], masks=masks, mask_scores=torch.tensor([0.7, 0.5])
    )
    metric = mask_metric('bbox', 'segm')
    metric.process({}, [sample(1, [], [], [], masks=torch.zeros(0, 100, 100)), found])
    result = metric.evaluate(2)
    assert result['coco/segm_dog_precision'] == pytest.approx(1) and result['coco/dog_precision'] == pytest.approx(0.5)


def test_masks_alone(mask_metric):
    metric = mask_metric('segm')
    metric.process({}, [sample(1, [[10, 10, 60, 60]], [0.9], [0], masks=rectangle(10, 10, 35, 60)[None])])
    result = metric.evaluate(1)
    per_class = [f'{name}_precision' for name in ('cat', 'dog', 'bird')]
    assert list(result) == [f'coco/segm_{name}' for name in (*STATS, *per_class)]
    assert result['coco/segm_mAP_m'] == pytest.approx(1) and metric.details is None


def test_a_detector_without_masks_is_named(mask_metric):
    metric = mask_metric('bbox', 'segm')
    metric.process({}, [sample(1, [[10, 10, 60, 60]], [0.9], [0])])
    with pytest.raises(UserError, match="'segm' is for detectors that predict masks"):
        metric.evaluate(1)


def test_objects_without_a_mask_are_named(metric, tmp_path):
    with pytest.raises(UserError, match='a.json: 2 of 2 objects have no segmentation'):
        CocoMetric(ann_file=str(tmp_path / 'a.json'), metric='segm')


def test_ground_truth_of_the_data_set_where_there_is_no_file():
    metric = CocoMetric()
    metric.dataset_meta = dict(classes=('cat', 'dog'))
    for _ in range(2):  # the ground truth of the first evaluation is kept
        cat = dict(bbox=[10, 10, 60, 60], bbox_label=0, ignore_flag=0)
        metric.process({}, [{**sample(1, [[10, 10, 60, 60]], [0.9], [0]), 'instances': [cat]}])
        result = metric.evaluate(1)
        assert result['coco/bbox_AR_m@100'] == result['coco/cat_precision'] == 1
        assert result['coco/dog_precision'] == -1


def test_proposals_are_mmdetections(metric, tmp_path):
    results = []
    for metric_class in (CocoMetric, MMDetCocoMetric):
        metric = metric_class(ann_file=str(tmp_path / 'a.json'), metric='proposal')
        metric.dataset_meta = dict(classes=('cat', 'dog', 'bird'))
        metric.process({}, [sample(1, [[10, 10, 60, 60]], [0.9], [0]), sample(2, [], [], [])])
        results.append(metric.evaluate(2))
    assert results[0] == results[1] and len(results[0]) == 6
    assert results[0]['coco/AR@100'] == 0.5


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


def test_settings_are_honoured(metric, tmp_path):
    """Cat found exactly, dog with IoU 0.8 after a false alarm: precision 1/2 up to .80."""

    def evaluate(**settings):
        metric = CocoMetric(ann_file=str(tmp_path / 'a.json'), **settings)
        metric.dataset_meta = dict(classes=('cat', 'dog', 'bird'))
        metric.process({}, [
            sample(1, [[10.0, 10, 60, 60]], [0.9], [0]),
            sample(2, [[50.0, 50, 90, 90], [0, 0, 20, 16]], [0.8, 0.6], [1, 1]),
        ])  # fmt: skip
        return metric.evaluate(2), metric.details

    result, details = evaluate(iou_thrs=0.9)
    assert result['coco/bbox_mAP'] == pytest.approx(0.5) and result['coco/bbox_mAP_50'] == -1
    assert details.classes[1]['AP'] == pytest.approx(0.35)  # over COCO's own thresholds
    assert evaluate(iou_thrs=[0.5, 0.9])[0]['coco/dog_precision'] == pytest.approx(0.25)
    result, details = evaluate(proposal_nums=(300, 1))
    assert result['coco/bbox_AR@1'] == pytest.approx(0.5) and result['coco/bbox_AR@300'] == pytest.approx(0.85)
    assert 'coco/bbox_AR@100' not in result and result['coco/bbox_mAP'] == pytest.approx(0.675)
    assert len(details.images) == 2
    assert set(evaluate(metric_items=['mAP', 'AR@100'], classwise=False)[0]) == {'coco/bbox_mAP', 'coco/bbox_AR@100'}
    assert len(evaluate(classwise=False)[0]) == len(STATS)
    both = evaluate(metric=('bbox', 'proposal'))[0]
    assert both['coco/bbox_mAP'] == pytest.approx(0.675) and both['coco/AR@1000'] == pytest.approx(0.85)
    assert evaluate(metric='proposal_fast', iou_thrs=[0.5])[0]['coco/AR@100'] == 1
    assert list(evaluate(metric='proposal', metric_items=['AR@300'])[0]) == ['coco/AR@300']


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        (dict(metric_items=['AR@300']), 'there is no .AR@300. among mAP, .*; proposal_nums sets'),
        (dict(metric_items=['map']), 'there is no .map.'),
        (dict(proposal_nums=()), 'proposal_nums=.*: must be whole numbers above 0'),
        (dict(proposal_nums=(0, 10)), 'must be whole numbers above 0'),
        (dict(proposal_nums=100), 'must be whole numbers above 0'),
        (dict(metric='proposal', proposal_nums=[100]), "the metric 'proposal' takes three"),
        (dict(iou_thrs=50), 'iou_thrs=50: must be above 0 and at most 1'),
        (dict(iou_thrs=[0, 0.5]), 'must be above 0 and at most 1'),
        (dict(iou_thrs=[]), 'must be above 0 and at most 1'),
        (dict(score_thr=30), 'score_thr=30: must be from 0 to 1'),
        (dict(format_only=True), 'format_only=True needs an outfile_prefix'),
    ],
)
def test_settings_that_cannot_be_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        CocoMetric(**settings)


def test_proposals_of_annotations_counted_from_zero(metric, tmp_path):
    content = json.loads((tmp_path / 'a.json').read_text())
    for number, annotation in enumerate(content['annotations']):
        annotation['id'] = number
    (tmp_path / 'zero.json').write_text(json.dumps(content))
    for name in ('proposal', 'proposal_fast'):
        metric = CocoMetric(ann_file=str(tmp_path / 'zero.json'), metric=name)
        metric.dataset_meta = dict(classes=('cat', 'dog', 'bird'))
        metric.process({}, [
            sample(2, [[0, 0, 20, 20]], [0.9], [1]), sample(1, [[10, 10, 60, 60]], [0.9], [0]),
        ])  # fmt: skip
        assert metric.evaluate(2)['coco/AR@100'] == 1


def test_detections_are_only_written(tmp_path):
    metric = CocoMetric(format_only=True, outfile_prefix=str(tmp_path / 'new/out'))  # no ground truth anywhere
    metric.dataset_meta = dict(classes=('cat', 'dog'))
    metric.process({}, [sample('a', [[10, 10, 60, 60]], [0.9], [1])])
    assert metric.evaluate(1) == {}
    (row,) = json.loads((tmp_path / 'new/out.bbox.json').read_text())
    assert (row['image_id'], row['category_id'], row['bbox']) == ('a', 1, [10, 10, 50, 50])


def test_images_that_were_not_seen_are_not_missed(metric):
    metric.process({}, [sample(1, [[10.0, 10, 60, 60]], [0.9], [0])])  # as with dataset.indices=1
    result = metric.evaluate(1)
    assert result['coco/bbox_mAP'] == result['coco/cat_precision'] == 1 and result['coco/dog_precision'] == -1


def test_ground_truth_of_other_data_is_named(metric, tmp_path):
    metric.process({}, [sample(3, [], [], [])])
    with pytest.raises(UserError, match='a.json has no image with the id 3'):
        metric.evaluate(1)
    metric.results.clear()
    metric.dataset_meta = dict(classes=('cat', 'wolf'))
    metric.process({}, [sample(1, [], [], [])])
    with pytest.raises(UserError, match="a.json has no category 'wolf', .*; it has cat, dog, bird"):
        metric.evaluate(1)


def test_no_ground_truth_at_all_is_named():
    with pytest.raises(UserError, match='no ann_file, and the data set passes on no ground truth'):
        CocoMetric().process({}, [sample(1, [], [], [])])


def test_data_sets_that_count_their_images_alike():
    """Two data sets in a ConcatDataset, each with an image 0, evaluated on the ground truth that they pass on."""
    metric = CocoMetric()
    metric.dataset_meta = dict(classes=('cat', 'dog'))
    for path, label in (('a/0.jpg', 0), ('b/0.jpg', 1)):
        truth = dict(bbox=[10, 10, 60, 60], bbox_label=label, ignore_flag=0)
        found = sample(0, [[10, 10, 60, 60]], [0.9], [label])
        metric.process({}, [{**found, 'img_path': path, 'instances': [truth]}])
    result = metric.evaluate(2)
    assert result['coco/bbox_mAP'] == result['coco/cat_precision'] == result['coco/dog_precision'] == 1
