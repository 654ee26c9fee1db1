import re
from types import SimpleNamespace

import pytest
from mmengine.runner import EpochBasedTrainLoop

from mixdet.engine.console import ConsoleHook, print_metrics
from mixdet.evaluation.numbers import STAT_TITLES, STATS, CocoNumbers, IouTypeNumbers


def test_coco_table_has_all_numbers_and_classes(capsys):
    metrics = {f'coco/bbox_{name}': i / 100 for i, name in enumerate(STATS)}
    metrics.update({'coco/bbox_mAP_s': -1.0, 'coco/cell phone_precision': 0.25, 'coco/toothbrush_precision': -1.0})
    print_metrics(metrics)
    text = capsys.readouterr().out
    cells = [cell.strip() for line in text.splitlines() for cell in line.split('│')]
    for i, name in enumerate(STATS):
        assert cells[cells.index(STAT_TITLES[name]) + 1] == ('-' if name == 'mAP_s' else f'{i / 100:.4f}')
    assert cells[cells.index('cell phone') + 1] == '0.2500' and cells[cells.index('toothbrush') + 1] == '-'


def test_long_class_lists_are_folded(capsys):
    metrics = {f'coco/bbox_{name}': 0.5 for name in STATS}
    metrics.update({f'coco/class{i}_precision': i / 100 for i in range(7)})
    print_metrics(metrics)
    (row,) = (line for line in capsys.readouterr().out.splitlines() if 'class0' in line)
    assert 'class4' in row and '0.0400' in row


def test_masks_have_a_table_of_their_own(capsys):
    boxes = IouTypeNumbers({'mAP': 0.5, 'AR@100': 0.75}, {'cat': 0.25})
    masks = IouTypeNumbers({'mAP': 0.125, 'AR@100': 0.625}, {'cat': 0.0625})
    print_metrics(CocoNumbers(boxes, masks).to_metrics('coco/'))
    text = capsys.readouterr().out
    tables = re.split(r'COCO box evaluation|Box AP per class|COCO mask evaluation|Mask AP per class', text)
    assert [re.findall(r'0\.\d{4}', table) for table in tables] == [
        [], ['0.5000', '0.7500'], ['0.2500'], ['0.1250', '0.6250'], ['0.0625'],
    ]  # fmt: skip


@pytest.mark.parametrize(('iteration', 'tables'), [(5, 0), (10, 1)])
def test_a_validation_is_a_line_for_boxes_and_one_for_masks(capsys, iteration, tables):
    runner = SimpleNamespace(rank=0, train_loop=None, iter=iteration, max_iters=10)
    boxes, masks = IouTypeNumbers({'mAP': 0.5, 'mAP_s': -1.0, 'AR@100': 0.75}), IouTypeNumbers({'mAP': 0.125})
    ConsoleHook().after_val_epoch(runner, CocoNumbers(boxes, masks).to_metrics())
    text = capsys.readouterr().out
    assert text.splitlines()[:2] == [
        f'val iter {iteration}  box AP .50:.95 0.5000  small -',
        f'val iter {iteration}  mask AP .50:.95 0.1250',
    ]
    assert text.count('COCO mask evaluation') == tables


def test_a_validation_of_boxes_alone_is_one_line(capsys):
    runner = SimpleNamespace(rank=0, train_loop=EpochBasedTrainLoop.__new__(EpochBasedTrainLoop), iter=5, max_iters=10)
    runner.epoch = 3
    ConsoleHook().after_val_epoch(runner, {'coco/bbox_mAP': 0.5})
    ConsoleHook().after_val_epoch(runner, {'voc/mAP': 0.5})
    assert capsys.readouterr().out.splitlines() == ['val epoch 3  AP .50:.95 0.5000', "val epoch 3  {'voc/mAP': 0.5}"]


def test_only_the_first_process_prints(capsys):
    hook, runner = ConsoleHook(), SimpleNamespace(rank=1)
    hook.after_val_epoch(runner, {'coco/bbox_mAP': 0.5})
    hook.after_test_epoch(runner, {'coco/bbox_mAP': 0.5})
    assert capsys.readouterr().out == ''
    hook.after_test_epoch(SimpleNamespace(rank=0), {'coco/bbox_mAP': 0.5})
    assert 'COCO box evaluation' in capsys.readouterr().out


def test_other_metrics_are_listed(capsys):
    print_metrics({'voc/mAP': 0.75})
    text = capsys.readouterr().out
    assert 'Results' in text and 'voc/mAP' in text and '0.7500' in text
    print_metrics({'coco/bbox_mAP': 0.25, 'voc/mAP': 0.75})
    text = capsys.readouterr().out
    assert text.index('COCO box evaluation') < text.index('Other metrics') < text.index('voc/mAP')
