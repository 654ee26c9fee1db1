import numpy as np
import pytest
from helpers import coco_of

from mixdet.evaluation.coco import evaluate_coco
from mixdet.evaluation.details import CONFUSED, FALSE_ALARM, FOUND, MISSED, box_ious, build_details, match_boxes

CLASSES, CAT_IDS = ('cat', 'dog'), (7, 9)
# image 1: cat found, dog taken for a cat, dog missed, a false alarm, a detection of too low a score
# image 2: cat found twice (the second is a false alarm); a dog within a crowd of dogs is neither
# image 3: nothing there, nothing found; image 4: nothing there, something found
TRUTH = [
    (1, 7, [0, 0, 20, 20], False),
    (1, 9, [40, 40, 20, 20], False),
    (1, 9, [80, 0, 20, 20], False),
    (2, 7, [0, 0, 50, 50], False),
    (2, 9, [50, 50, 50, 50], True),
]
FOUND_BOXES = {
    1: [([0, 0, 20, 20], 0.9, 0), ([40, 40, 60, 60], 0.8, 0), ([0, 80, 20, 100], 0.7, 1), ([80, 0, 100, 20], 0.1, 1)],
    2: [([0, 0, 50, 50], 0.9, 0), ([0, 0, 50, 48], 0.8, 0), ([60, 60, 70, 70], 0.9, 1)],
    3: [],
    4: [([0, 0, 50, 50], 0.5, 1)],
}


@pytest.fixture
def details():
    coco = coco_of([1, 2, 3, 4], dict(zip(CAT_IDS, CLASSES)), TRUTH)
    predictions, rows = [], []
    for image, found in FOUND_BOXES.items():
        boxes = np.array([box for box, _, _ in found], np.float32).reshape(-1, 4)
        scores = np.array([score for _, score, _ in found], np.float32)
        labels = np.array([label for _, _, label in found], int)
        predictions.append(dict(img_id=image, img_path=f'{image}.jpg', bboxes=boxes, scores=scores, labels=labels))
        rows += [
            dict(image_id=image, category_id=CAT_IDS[k], bbox=[x1, y1, x2 - x1, y2 - y1], score=score)
            for (x1, y1, x2, y2), score, k in found
        ]
    found = evaluate_coco(coco, rows, CAT_IDS, [1, 2, 3, 4])
    return build_details(coco, predictions, CLASSES, CAT_IDS, 0.3, found)


def test_box_ious():
    boxes = np.array([[0, 0, 10, 10], [5, 0, 15, 10], [20, 20, 30, 30.0]])
    assert box_ious(boxes[:1], boxes).tolist() == [[1, pytest.approx(1 / 3), 0]]
    assert box_ious(boxes[:1], np.array([[5, 0, 100, 100.0]]), crowd=True).tolist() == [[0.5]]


def test_a_box_goes_to_the_highest_score_of_its_class_before_another_class():
    truth, found = np.array([[0, 0, 10, 10.0]]), np.array([[0, 0, 10, 10], [0, 0, 10, 9], [0, 0, 10, 8.0]])
    assert match_boxes(truth, np.array([1]), found, np.array([0, 1, 1])).tolist() == [-1, 0, -1]
    assert match_boxes(truth, np.array([1]), found, np.array([0, 0, 2])).tolist() == [0, -1, -1]
    assert match_boxes(truth, np.array([1]), found + 8, np.array([1, 1, 1])).tolist() == [-1, -1, -1]
    assert match_boxes(truth[:0], np.array([]), found, np.array([1, 1, 1])).tolist() == [-1, -1, -1]


def test_every_box_has_its_state(details):
    states = [([b.state for b in image.truth], [b.state for b in image.detections]) for image in details.images]
    assert states == [
        ([FOUND, CONFUSED, MISSED], [FOUND, CONFUSED, FALSE_ALARM]),
        ([FOUND], [FOUND, FALSE_ALARM]),
        ([], []),
        ([], [FALSE_ALARM]),
    ]
    first = details.images[0]
    assert first.truth[1].corners == (40, 40, 60, 60) and first.detections[1].score == pytest.approx(0.8)
    assert [image.mistakes for image in details.images] == [3, 1, 0, 1]
    assert [image.f1 for image in details.images] == pytest.approx([1 / 3, 2 / 3, 1, 0])


def test_confusion_counts_each_box_once(details):
    # rows: truth cat, dog, nothing; columns: detected as cat, dog, nothing
    assert details.confusion.tolist() == [[2, 0, 0], [1, 0, 1], [1, 2, 0]]


def test_worst_and_best(details):
    assert [image.path for image in details.worst_images(9)] == ['4.jpg', '1.jpg', '2.jpg']
    assert [image.path for image in details.best_images(1)] == ['2.jpg']


def test_numbers_of_classes(details):
    cat, dog = details.classes
    assert (cat['name'], cat['boxes'], dog['boxes']) == ('cat', 2, 2)
    # two cats at score .9, false alarms below: perfect, down to that score
    assert (cat['AP50'], cat['F1'], cat['score']) == pytest.approx((1, 1, 0.9))
    assert cat['AP_small'] == pytest.approx(1) and cat['AP_large'] == -1
    # a dog at score .1 after two false alarms (the one in the crowd does not count): precision 1/3 up to recall 1/2
    assert dog['AP50'] == pytest.approx(51 / 101 / 3) and dog['AR'] == pytest.approx(0.5)
    assert (dog['F1'], dog['score']) == pytest.approx((0.4, 0.1))
    assert details.precision[0].tolist() == pytest.approx([1] * 101)
    mean = details.mean_precision['0.50']
    assert (mean[0], mean[100]) == pytest.approx((2 / 3, 1 / 2)) and list(details.mean_precision)[-1] == '0.95'
