import re
from types import SimpleNamespace

import pytest
from mmengine.hooks import Hook, LoggerHook
from mmengine.logging import HistoryBuffer
from mmengine.runner import EpochBasedTrainLoop

from mixdet.engine import console
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
    hook, runner = ConsoleHook(), SimpleNamespace(rank=1, hooks=[], iter=9, max_iters=10, train_loop=None)
    hook.before_train(runner)
    hook.after_train_iter(runner, 9)
    hook.after_val_epoch(runner, {'coco/bbox_mAP': 0.5})
    hook.after_test_epoch(runner, {'coco/bbox_mAP': 0.5})
    assert capsys.readouterr().out == ''
    hook.after_test_epoch(SimpleNamespace(rank=0), {'coco/bbox_mAP': 0.5})
    assert 'COCO box evaluation' in capsys.readouterr().out


@pytest.fixture
def runner():
    """In the second of five epochs of three iterations, which are logged every two."""
    logged = {
        'train/time': [9, 0.5, 0.5], 'train/data_time': [9], 'train/loss': [9, 4, 2], 'train/loss_cls': [9, 3, 1],
        'train/loss_bbox': [9, 1, 1], 'train/lr': [9, 0.1], 'val/loss': [9],
    }  # fmt: skip
    scalars = {key: HistoryBuffer(values, [1] * len(values)) for key, values in logged.items()}
    return SimpleNamespace(
        rank=0, hooks=[Hook(), LoggerHook(interval=2)], work_dir='w', message_hub=SimpleNamespace(log_scalars=scalars),
        train_loop=EpochBasedTrainLoop.__new__(EpochBasedTrainLoop), train_dataloader=Loader(), epoch=1, max_epochs=5,
        iter=3, max_iters=15,
    )  # fmt: skip


class Loader(list):
    """Three batches of seven images."""

    dataset = range(7)

    def __len__(self):
        return 3


def test_lines_of_a_training_by_epochs(runner, capsys, monkeypatch):
    monkeypatch.setattr(console, '_memory', lambda: '123 MiB')
    hook = ConsoleHook()
    hook.before_train(runner)
    for batch_idx in range(3):
        runner.iter = 3 + batch_idx
        hook.after_train_iter(runner, batch_idx)
    rest = 'loss 3.000 (cls 2.000, bbox 1.000)  lr 1.00e-01  0.50 s/iter  eta 0:00:0{}  mem 123 MiB'
    assert capsys.readouterr().out.splitlines() == [
        'Training on 7 images per epoch; files in w',
        f'epoch 2/5  iter 2/3  {rest.format(5)}',  # ten iterations left, at 0.5 s
        f'epoch 2/5  iter 3/3  {rest.format(4)}',
    ]


def test_lines_of_a_training_by_iterations(runner, capsys):
    runner.train_loop = None
    hook = ConsoleHook()
    hook.before_train(runner)
    for runner.iter in range(12, 15):
        hook.after_train_iter(runner, 0)
    lines = capsys.readouterr().out.splitlines()[1:]
    assert [line.partition('  loss')[0] for line in lines] == ['iter 14/15', 'iter 15/15']


def test_every_tenth_iteration_without_a_logger_hook(runner, capsys):
    runner.train_loop, runner.hooks = None, []
    hook = ConsoleHook()
    hook.before_train(runner)
    for runner.iter in range(11):
        hook.after_train_iter(runner, 0)
    assert [line[:10] for line in capsys.readouterr().out.splitlines()[1:]] == ['iter 10/15']


@pytest.mark.parametrize(
    ('platform', 'gpu', 'expected'),
    [('linux', False, '2048 MiB'), ('darwin', False, '2 MiB'), ('win32', False, 'unknown'), ('linux', True, '3 MiB')],
)
def test_memory(monkeypatch, platform, gpu, expected):
    monkeypatch.setattr(console.resource, 'getrusage', lambda who: SimpleNamespace(ru_maxrss=2**21))
    monkeypatch.setattr(console.torch.cuda, 'is_available', lambda: gpu)
    monkeypatch.setattr(console.torch.cuda, 'max_memory_allocated', lambda: 3 * 2**20)
    monkeypatch.setattr(console.sys, 'platform', platform)
    assert console._memory() == expected


def test_other_metrics_are_listed(capsys):
    print_metrics({'voc/mAP': 0.75})
    text = capsys.readouterr().out
    assert 'Results' in text and 'voc/mAP' in text and '0.7500' in text and 'metric' in text
    print_metrics({'coco/bbox_mAP': 0.25, 'voc/mAP': 0.75})
    text = capsys.readouterr().out
    assert text.count('COCO') == 1
    assert text.index('COCO box evaluation') < text.index('Other metrics') < text.index('voc/mAP')


def test_names_of_classes_are_printed_as_they_are(capsys):
    names = ('screw [small]', 'screw [large]', '[/x]', ':cat:', 'e\x1b[31m', r'$\frac$')
    print_metrics({'coco/bbox_mAP': 0.5, **{f'coco/{name}_precision': 0.25 for name in names}})
    text = capsys.readouterr().out
    assert all(name.replace('\x1b', '\\x1b') in text for name in names) and '\x1b' not in text
