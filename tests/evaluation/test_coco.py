import contextlib
import io

import numpy as np
import pytest
from helpers import coco_of, shared_path
from pycocotools.coco import COCO

from mixdet.evaluation import coco as coco_eval
from mixdet.evaluation.coco import evaluate_coco, known_mean
from mixdet.evaluation.numbers import STATS

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
