import numpy as np
import pytest
from helpers import coco_of

from mixdet.evaluation.coco import CocoEvaluation, evaluate_coco
from mixdet.evaluation.details import (
    CONFUSED,
    FALSE_ALARM,
    FOUND,
    MISSED,
    Box,
    Details,
    ImageErrors,
    box_ious,
    build_details,
    class_numbers,
    match_boxes,
)

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
    assert box_ious(boxes[:1] / 100, boxes[:1] / 100) == pytest.approx(1)  # 0.1 px wide
    assert box_ious(boxes[:1] * 0, boxes[:1]).tolist() == [[0]]  # without an area


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


def test_overlap_of_exactly_half_is_a_match():
    truth, found = np.array([[0, 0, 10, 10.0]]), np.array([[0, 0, 10, 5.0]])
    assert match_boxes(truth, np.array([0]), found, np.array([0])).tolist() == [0]
    assert match_boxes(truth, np.array([0]), found * 0.99, np.array([0])).tolist() == [-1]
    assert match_boxes(truth, np.array([0]), found, np.array([0]), iou_thr=0.6).tolist() == [-1]


def test_a_detection_takes_the_box_that_it_overlaps_most():
    truth = np.array([[0, 0, 10, 10], [2, 0, 12, 10.0]])
    found = np.array([[2, 0, 12, 10], [2, 0, 12, 10.0]])
    assert match_boxes(truth, np.array([0, 0]), found, np.array([0, 0])).tolist() == [1, 0]


def test_a_detection_that_has_its_box_takes_no_other():
    truth = np.array([[0, 0, 10, 10], [0, 0, 10, 10.0]])
    assert match_boxes(truth, np.array([0, 1]), truth[:1], np.array([0])).tolist() == [0]


def prediction(boxes, scores, labels, **more):
    corners = np.array(boxes, np.float32).reshape(-1, 4)
    return dict(img_id=1, bboxes=corners, scores=np.array(scores, np.float32), labels=np.array(labels, int), **more)


def errors_of(found, truth, score_thr=0.5):
    """The errors in image 1, the confusion matrix and the boxes of each class."""
    coco = coco_of([1], {7: 'cat', 8: 'bird', 9: 'dog'}, truth)
    evaluation = evaluate_coco(coco, [], CAT_IDS, [1])
    details = build_details(coco, [found], CLASSES, CAT_IDS, score_thr, evaluation)
    return details.images[0], details.confusion.tolist(), [row['boxes'] for row in details.classes]


def test_classes_that_are_not_evaluated_are_left_out():
    image, confusion, boxes = errors_of(
        prediction([], [], []), [(1, 8, [0, 0, 9, 9], False), (1, 9, [0, 0, 9, 9], False)]
    )
    assert (image.path, len(image.truth), image.truth[0].label, boxes) == ('', 1, 1, [0, 1])
    assert confusion == [[0, 0, 0], [0, 0, 1], [0, 0, 0]]


def test_detections_of_exactly_the_threshold_count_and_the_highest_score_is_first():
    found = prediction([[0, 0, 9, 9], [0, 0, 9, 9], [50, 50, 60, 60]], [0.5, 0.75, 0.49], [0, 0, 1], img_path='a.jpg')
    image, confusion, _ = errors_of(found, [(1, 7, [0, 0, 9, 9], False)])
    assert [(box.state, box.score) for box in image.detections] == [(FOUND, 0.75), (FALSE_ALARM, 0.5)]
    assert image.path == 'a.jpg' and image.truth[0].score is None
    assert confusion == [[1, 0, 0], [0, 0, 0], [1, 0, 0]]


def test_detections_of_equal_score_keep_their_order():
    boxes = [[i, 0, i + 5, 5] for i in range(100)]
    image, _, _ = errors_of(prediction(boxes, [0.5 + 0.25 * (i % 2) for i in range(100)], [0] * 100), [])
    assert [box.corners[0] for box in image.detections] == [*range(1, 100, 2), *range(0, 100, 2)]


def test_a_crowd_excuses_detections_of_its_class_that_lie_half_inside():
    truth = [(1, 9, [0, 0, 20, 20], True)]
    inside, half, less, other = [0, 0, 5, 5], [15, 0, 25, 10], [16, 0, 26, 10], [5, 5, 15, 15]
    image, confusion, boxes = errors_of(
        prediction([inside, half, less, other], [0.9, 0.8, 0.7, 0.6], [1, 1, 1, 0]), truth
    )
    assert [(box.corners, box.score) for box in image.detections] == [
        (tuple(less), pytest.approx(0.7)), (tuple(other), pytest.approx(0.6)),
    ]  # fmt: skip
    assert image.truth == [] and boxes == [0, 0] and confusion == [[0, 0, 0], [0, 0, 0], [1, 1, 0]]


def test_a_matched_detection_counts_also_in_a_crowd():
    truth = [(1, 9, [0, 0, 20, 20], True), (1, 9, [0, 0, 5, 5], False)]
    image, confusion, _ = errors_of(prediction([[0, 0, 5, 5]], [0.9], [1]), truth)
    assert [box.state for box in image.detections] == [FOUND] and confusion[1] == [0, 1, 0]


def image_errors(path, found=0, confused=0, missed=0, false_alarms=0):
    corners = (0.0, 0.0, 9.0, 9.0)
    truth = [Box(corners, 0, state) for state in [FOUND] * found + [CONFUSED] * confused + [MISSED] * missed]
    states = [FOUND] * found + [CONFUSED] * confused + [FALSE_ALARM] * false_alarms
    return ImageErrors(path, truth, [Box(corners, 0, state, 0.9) for state in states])


def test_mistakes_and_f1():
    image = image_errors('a', found=2, confused=1, missed=3, false_alarms=4)
    assert (image.mistakes, image.count(CONFUSED), image.count(FALSE_ALARM)) == (8, 1, 4)
    assert image.f1 == pytest.approx(2 * 2 / (6 + 7))


def test_of_equal_images_the_worst_has_most_mistakes_and_the_best_most_boxes():
    images = [
        image_errors('one missed', missed=1),
        image_errors('two missed', missed=2),
        image_errors('half', found=1, missed=1, false_alarms=1),
        image_errors('one found', found=1),
        image_errors('two found', found=2),
        image_errors('empty'),
    ]
    details = Details([], np.zeros((0, 101)), {}, np.zeros((1, 1), int), images, 0.3)
    assert [image.path for image in details.worst_images(9)] == ['two missed', 'one missed', 'half']
    assert [image.path for image in details.best_images(9)] == ['two found', 'one found', 'half']
    assert len(details.worst_images(1)) == len(details.best_images(2)) - 1 == 1


def test_of_images_found_completely_the_best_are_those_whose_boxes_fit_best():
    def found_at(path, *shifts):
        truth = [Box((0.0, 20.0 * i, 10.0, 20.0 * i + 10), i, FOUND) for i in range(len(shifts))]
        moved = [(shift, y1, shift + 10, y2) for shift, (_, y1, _, y2) in zip(shifts, (box.corners for box in truth))]
        return ImageErrors(path, truth, [Box(corners, i, FOUND, 0.9) for i, corners in enumerate(moved)])

    images = [found_at('first', 3, 3), found_at('loose', 5), found_at('close', 1, 0), found_at('nothing')]
    details = Details([], np.zeros((0, 101)), {}, np.zeros((1, 1), int), images, 0.3)
    assert [image.path for image in details.best_images(9)] == ['close', 'first', 'loose']
    # 10 x 10 px moved by 1: 9 of 11 tenths in common
    assert [image.mean_iou for image in images] == pytest.approx([7 / 13, 1 / 3, (9 / 11 + 1) / 2, 0])


def test_each_number_of_a_class_is_read_from_its_place():
    """Thresholds .50 ... .95, recalls, classes and sizes each have a value of their own."""
    iou, recall, k, area = np.meshgrid(np.arange(10), np.linspace(0, 1, 101), np.arange(2), np.arange(4), indexing='ij')
    precision = (1 - recall) * (1 - 0.08 * iou) * (1 - 0.1 * area) * (1 - 0.5 * k)
    scores = 1 - 0.9 * recall - 0.05 * k
    evaluation = CocoEvaluation(np.zeros(12), precision, scores, precision.mean(1))
    cat, dog = class_numbers(evaluation, CLASSES, [3, 4])
    mean = 0.5  # over the recalls
    over_ious = mean * (1 - 0.08 * 4.5)
    assert [cat[key] for key in ('name', 'boxes')] == ['cat', 3] and [dog[key] for key in ('name', 'boxes')] == [
        'dog',
        4,
    ]
    expected = dict(
        AP=over_ious, AP50=mean, AP75=mean * (1 - 0.08 * 5), AP_small=0.9 * over_ious, AP_medium=0.8 * over_ious,
        AP_large=0.7 * over_ious, AR=over_ious, F1=0.5, score=1 - 0.9 * 0.5,
    )  # fmt: skip
    assert {key: cat[key] for key in expected} == pytest.approx(expected)
    assert dog['AP50'] == pytest.approx(mean / 2) and dog['AR'] == pytest.approx(over_ious / 2)
    # precision (1 - r) / 2 and recall r have their highest F1 r (1 - r) / (r / 2 + 1 / 2) where (1 + r)^2 = 2
    assert dog['F1'] == pytest.approx(0.3431, abs=1e-4) and dog['score'] == pytest.approx(1 - 0.9 * 0.41 - 0.05)


def test_a_class_that_is_never_found_has_an_ap_of_zero():
    coco = coco_of([1], {7: 'cat', 9: 'dog'}, [(1, 7, [0, 0, 9, 9], False)])
    cat, dog = class_numbers(evaluate_coco(coco, [], CAT_IDS, [1]), CLASSES, [1, 0])
    assert [cat[key] for key in ('AP', 'AP50', 'F1', 'score')] == [0, 0, 0, 0]
    assert [dog[key] for key in ('AP', 'AP50', 'F1', 'score')] == [-1, -1, -1, -1]


def test_a_class_without_ground_truth_is_unknown():
    unknown = CocoEvaluation(
        np.full(12, -1.0), np.full((10, 101, 1, 4), -1.0), np.full((10, 101, 1, 4), -1.0), np.full((10, 1, 4), -1.0)
    )
    (row,) = class_numbers(unknown, ('cat',), [0])
    assert {value for key, value in row.items() if key not in ('name', 'boxes')} == {-1.0}
