import contextlib
import io

import numpy as np
import pytest
from helpers import coco_of, shared_path
from pycocotools.coco import COCO
from pycocotools.mask import frPyObjects

from mixdet.evaluation import coco as coco_eval
from mixdet.evaluation.coco import evaluate_coco, known_mean
from mixdet.evaluation.numbers import STATS, stat_names

FASTER = 'faster-coco-eval'


def perturbed(coco, seed=0):
    """Detections: every ground truth box moved a little, some of a wrong class, some twice, and false alarms."""
    rng = np.random.default_rng(seed)
    cat_ids = coco.getCatIds()
    rows = []
    for annotation in coco.dataset['annotations']:
        for _ in range(rng.integers(1, 4)):
            x, y, w, h = annotation['bbox'] + rng.normal(0, 0.12, 4) * np.repeat(annotation['bbox'][2:], 2)
            right = rng.random() < 0.8
            rows.append(
                dict(
                    image_id=annotation['image_id'],
                    category_id=annotation['category_id'] if right else int(rng.choice(cat_ids)),
                    bbox=[x, y, max(w, 1.0), max(h, 1.0)],
                    score=round(float(rng.random()), 2),  # with ties
                )
            )
    return rows


@pytest.mark.parametrize(
    'ann_file', ['coco-mini/annotations/instances_val2017.json', 'bccd/annotations/instances_val.json']
)
def test_both_backends_give_the_same_numbers(ann_file):
    pytest.importorskip('faster_coco_eval')
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(shared_path('data', *ann_file.split('/')))
    rows = perturbed(coco)
    first, second = (
        evaluate_coco(coco, [dict(row) for row in rows], coco.getCatIds(), coco.getImgIds(), backend)
        for backend in ('pycocotools', FASTER)
    )
    assert 0.05 < first.stats[0] < 0.95 and len(first.stats) == len(second.stats) == len(STATS)
    for ours, theirs in zip(first, second):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-9)


@pytest.fixture
def two_classes():
    """Ids that do not ascend, as nothing in COCO's format says that they must."""
    return coco_of([1], {9: 'dog', 7: 'cat'}, [(1, 9, [10, 10, 50, 50], False), (1, 7, [70, 70, 20, 20], False)])


@pytest.mark.parametrize('backend', coco_eval.BACKENDS)
def test_classes_are_in_the_order_asked_for(two_classes, backend):
    if backend == FASTER:
        pytest.importorskip('faster_coco_eval')
    found = [dict(image_id=1, category_id=9, bbox=[10, 10, 50, 50], score=0.9)]
    numbers = evaluate_coco(two_classes, found, [9, 7], [1], backend)
    assert numbers.class_ap() == pytest.approx([1, 0])
    assert numbers.class_ap(area=1) == pytest.approx([-1, 0]) and numbers.class_ap(area=2) == pytest.approx([1, -1])
    assert numbers.recall[:, :, 0].T.tolist() == [[1] * 10, [0] * 10]
    assert numbers.stats[0] == pytest.approx(0.5)
    assert not evaluate_coco(two_classes, [], [9, 7], [1], backend).stats[0]


def test_all_numbers_are_of_up_to_100_detections():
    boxes = [[20 * (i % 5), 20 * (i // 5), 10, 10] for i in range(20)]
    coco = coco_of([1], {7: 'cat'}, [(1, 7, box, False) for box in boxes])
    numbers = evaluate_coco(coco, [dict(image_id=1, category_id=7, bbox=box, score=0.5) for box in boxes], [7], [1])
    assert dict(zip(STATS, numbers.stats))['AR@10'] == pytest.approx(0.5)
    assert numbers.class_ap() == pytest.approx([1]) and (numbers.recall[:, 0, 0] == 1).all()


def test_auto_does_without_faster_coco_eval_and_its_name_does_not(two_classes, monkeypatch):
    monkeypatch.setattr(coco_eval.importlib.util, 'find_spec', lambda name: None)
    assert evaluate_coco(two_classes, [], [9, 7], [1]).stats[0] == 0
    with pytest.raises(ImportError, match='pip install faster-coco-eval'):
        evaluate_coco(two_classes, [], [9, 7], [1], FASTER)
    with pytest.raises(ValueError, match="backend='fast': must be one of"):
        evaluate_coco(two_classes, [], [9, 7], [1], 'fast')


def test_known_mean_leaves_out_unknown_values():
    assert known_mean(np.array([0.5, -1, 1])) == 0.75 and known_mean(np.array([-1.0])) == -1


ODD_IDS = {
    'zero': [0, 1, 2, 3],
    'negative': [-1, -2, 0, 5],
    'the same': [7, 7, 7, 7],
    'text': ['a', 'b', '0', ''],
    'mixed': ['1', 1, 0.0, None],
}


@pytest.mark.parametrize('backend', ['pycocotools', FASTER])
@pytest.mark.parametrize('ids', ODD_IDS)
@pytest.mark.parametrize('images', [[1, 2], [0, -5], ['x', 'a b'], [2, '2']])
def test_ids_of_any_kind(backend, ids, images):
    """Everything is found exactly, in boxes and in masks; of one image the half is missed."""
    if backend == FASTER:
        pytest.importorskip('faster_coco_eval')
    boxes = [[0, 0, 20, 20], [50, 50, 30, 30]]
    coco = COCO()
    coco.dataset = dict(
        images=[dict(id=i, height=100, width=100) for i in images],
        categories=[dict(id='cat', name='cat'), dict(id=0, name='dog')],
        annotations=[
            dict(id=n, image_id=images[k // 2], category_id=['cat', 0][k % 2], bbox=boxes[k % 2],
                 segmentation=[outline(boxes[k % 2])])
            for k, n in enumerate(ODD_IDS[ids])
        ],
    )  # fmt: skip
    found = [
        dict(image_id=entry['image_id'], category_id=entry['category_id'], score=0.9, bbox=entry['bbox'],
             segmentation=frPyObjects(entry['segmentation'], 100, 100)[0])
        for entry in coco.dataset['annotations']
    ]  # fmt: skip
    for iou_type in ('bbox', 'segm'):
        whole = evaluate_coco(coco, found, ['cat', 0], images, backend, iou_type)
        assert whole.class_ap() == pytest.approx([1, 1]) and whole.stats[0] == pytest.approx(1)
        half = evaluate_coco(coco, found[1:], ['cat', 0], images, backend, iou_type)
        assert half.recall[:, :, 0].T.tolist() == [[0.5] * 10, [1] * 10]
        # an image that was not seen is not missed
        second = evaluate_coco(coco, found[2:], ['cat', 0], images[1:], backend, iou_type)
        assert second.stats[0] == pytest.approx(1)
    assert 'area' not in coco.dataset['annotations'][0] and 'id' not in found[0]


def outline(box):
    x, y, w, h = box
    return [x, y, x + w, y, x + w, y + h, x, y + h]


@pytest.mark.parametrize('backend', ['pycocotools', FASTER])
def test_ids_counted_from_zero_on_real_annotations(backend):
    if backend == FASTER:
        pytest.importorskip('faster_coco_eval')
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(shared_path('cases', 'annotation_id_zero.json'))
    found = [dict(entry, score=0.9) for entry in coco.dataset['annotations']]
    assert found[0]['id'] == 0
    numbers = evaluate_coco(coco, found, coco.getCatIds(), coco.getImgIds(), backend)
    assert numbers.stats[0] == pytest.approx(1) and (numbers.recall[:, :, 0] == 1).all()


@pytest.mark.parametrize('backend', ['pycocotools', FASTER])
def test_limits_and_thresholds(backend):
    """Of ten objects each is found with IoU 0.8, after nothing else."""
    if backend == FASTER:
        pytest.importorskip('faster_coco_eval')
    boxes = [[20 * (i % 5), 20 * (i // 5), 10, 10] for i in range(10)]
    coco = coco_of([1], {7: 'cat'}, [(1, 7, box, False) for box in boxes])
    found = [dict(image_id=1, category_id=7, bbox=[*box[:3], 8], score=0.5) for box in boxes]
    numbers = evaluate_coco(coco, found, [7], [1], backend, max_dets=(2, 5), iou_thrs=[0.5, 0.9])
    named = dict(zip(stat_names((2, 5)), numbers.stats))
    assert named['AR@2'] == pytest.approx(0.1) and named['AR@5'] == named['AR_s@5'] == pytest.approx(0.25)
    assert named['mAP_50'] == pytest.approx(51 / 101) and named['mAP'] == pytest.approx(51 / 202)
    assert named['mAP_75'] == -1 and len(named) == 11 and numbers.precision.shape[0] == 2
