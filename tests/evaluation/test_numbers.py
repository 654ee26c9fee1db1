import re

import pytest
from helpers import coco_of
from hypothesis import given
from hypothesis import strategies as st
from pycocotools.cocoeval import COCOeval

from mixdet.evaluation.numbers import (
    STAT_TITLES,
    STATS,
    CocoNumbers,
    IouTypeNumbers,
    ap_title,
    format_number,
    stat_names,
)

BOXES = IouTypeNumbers(dict(zip(STATS, range(12))), {'cat': 0.5, 'cell phone': -1.0})
MASKS = IouTypeNumbers(dict(zip(STATS, range(12, 24))), {'cat': 0.25, 'cell phone': -1.0})

values = st.floats(-1, 1)
names = st.text(min_size=1).filter(lambda name: not name.startswith('segm_'))
stats = st.fixed_dictionaries(dict.fromkeys(STATS, values))
of_type = st.builds(IouTypeNumbers, stats, st.dictionaries(names, values, min_size=1))


def test_stats_are_pycocotools_in_its_order(capsys):
    """As ``COCOeval.summarize`` prints them."""
    coco = coco_of([1], {7: 'cat'}, [(1, 7, [0, 0, 20, 20], False)])
    evaluation = COCOeval(coco, coco_of([1], {7: 'cat'}, []), 'bbox')
    evaluation.evaluate()
    evaluation.accumulate()
    capsys.readouterr()
    evaluation.summarize()
    printed = re.findall(r'\((A.)\) @\[ IoU=(\S+) *\| area= *(\w+) \| maxDets= *(\d+) \]', capsys.readouterr().out)
    expected = {}
    for kind, iou, area, limit in printed:
        name = {'AP': 'mAP', 'AR': 'AR'}[kind]
        if area != 'all':
            name, title = f'{name}_{area[0]}', area
        elif kind == 'AR':
            title = f'{limit} per image'
        else:
            name += '' if ':' in iou else f'_{iou[2:]}'
            title = 'IoU ' + iou.replace('0.', '.')
        expected[name if kind == 'AP' else f'{name}@{limit}'] = f'{kind}  {title}'
    assert len(printed) == 12 and list(STAT_TITLES.items()) == list(expected.items())


def test_names_are_mmdetections():
    metrics = CocoNumbers(BOXES, MASKS, {'voc/mAP': 0.75}).to_metrics('coco/')
    assert metrics['coco/bbox_mAP'] == 0 and metrics['coco/bbox_AR_l@100'] == 11
    assert metrics['coco/segm_mAP'] == 12 and metrics['coco/segm_AR_l@100'] == 23
    assert metrics['coco/cat_precision'] == 0.5 and metrics['coco/segm_cat_precision'] == 0.25
    assert metrics['voc/mAP'] == 0.75 and len(metrics) == 2 * (12 + 2) + 1


@given(st.sampled_from(['', 'coco/', 'val/coco/']), of_type, st.one_of(st.just(IouTypeNumbers()), of_type))
def test_what_is_written_is_read(prefix, bbox, segm):
    numbers = CocoNumbers(bbox, segm)
    assert CocoNumbers.from_metrics(numbers.to_metrics(prefix)) == numbers


@pytest.mark.parametrize('name', ['car/truck', 'a_precision', 'bbox_mAP', 'x/bbox_mAP', '\n'])
def test_any_class_name_is_read(name):
    numbers = CocoNumbers(IouTypeNumbers({'mAP': 0.5}, {name: 0.25}))
    assert CocoNumbers.from_metrics(numbers.to_metrics('coco/')) == numbers


def test_a_class_whose_name_begins_as_those_of_masks():
    numbers = CocoNumbers(IouTypeNumbers({'mAP': 0.5}, {'segm_x': 0.25, 'y': 0.5}))
    assert CocoNumbers.from_metrics(numbers.to_metrics()) == numbers


@pytest.mark.parametrize(
    ('order', 'of_boxes', 'of_masks'),
    [(['bbox', 'segm'], {}, {'cat': 0.5}), (['segm', 'bbox'], {'cat': 0.5}, {}), (['segm'], {}, {'cat': 0.5})],
)
def test_classes_of_mmdetections_own_metric(order, of_boxes, of_masks):
    # it writes AP of each class before the stats of its type, and the later type over the earlier
    metrics = {'coco/cat_precision': 0.5, **{f'coco/{iou_type}_mAP': 0.5 for iou_type in order}}
    numbers = CocoNumbers.from_metrics(metrics)
    assert (numbers.bbox.per_class, numbers.segm.per_class) == (of_boxes, of_masks)


def test_only_known_names_are_cocos():
    metrics = {'bbox_mAP_50': 0.5, 'bbox_mAP': 0.25, 'bbox_AR@300': 1, 'mybbox_mAP': 2, 'bbox_mAP_copypaste': 3}
    numbers = CocoNumbers.from_metrics(metrics)
    assert list(numbers.bbox.stats.items()) == [('mAP', 0.25), ('mAP_50', 0.5)]
    assert numbers.other == {'bbox_AR@300': 1, 'mybbox_mAP': 2, 'bbox_mAP_copypaste': 3}
    assert CocoNumbers.from_metrics({'voc/mAP': 1, 'cat_precision': 2}).other == {'voc/mAP': 1, 'cat_precision': 2}


def test_the_first_of_several_coco_metrics_counts():
    metrics = {'a/bbox_mAP': 1, 'a/cat_precision': 2, 'b/bbox_mAP': 3, 'b/cat_precision': 4, 'b/segm_mAP': 5}
    numbers = CocoNumbers.from_metrics(metrics)
    assert numbers == CocoNumbers(
        IouTypeNumbers({'mAP': 1}, {'cat': 2}), other={'b/bbox_mAP': 3, 'b/cat_precision': 4, 'b/segm_mAP': 5}
    )


def test_ap_and_its_title():
    both, boxes, masks = CocoNumbers(BOXES, MASKS), CocoNumbers(BOXES), CocoNumbers(segm=MASKS)
    assert (both.ap, boxes.ap, masks.ap, CocoNumbers().ap) == (0, 0, 12, None)
    assert [list(numbers.by_type) for numbers in (both, boxes, masks)] == [['bbox', 'segm'], ['bbox'], ['segm']]
    assert (ap_title('bbox', both.by_type), ap_title('segm', both.by_type)) == ('box AP', 'mask AP')
    assert (ap_title('bbox', boxes.by_type), ap_title('segm', masks.by_type)) == ('AP', 'mask AP')
    assert CocoNumbers(IouTypeNumbers({'AR@1': 1}), MASKS).ap == 12


def test_numbers_do_not_change():
    with pytest.raises(AttributeError):
        BOXES.stats = {}
    with pytest.raises(AttributeError):
        CocoNumbers(BOXES).bbox = MASKS


def test_numbers_for_readers():
    assert [format_number(value) for value in (0.12345, 0)] == ['0.123', '0.000']
    assert {format_number(value) for value in (-1.0, None, float('nan'))} == {'-'}
    assert format_number(0.25, 4) == '0.2500'


def test_names_for_other_limits():
    assert stat_names((1, 10, 100)) == STATS
    assert stat_names((5, 300))[5:] == ('mAP_l', 'AR@5', 'AR@300', 'AR_s@300', 'AR_m@300', 'AR_l@300')
