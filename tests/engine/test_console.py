from mixdet.engine.console import TITLES, print_coco_table
from mixdet.evaluation.coco import STATS


def test_coco_table_has_all_numbers_and_classes(capsys):
    metrics = {f'coco/bbox_{name}': i / 100 for i, name in enumerate(STATS)}
    metrics.update({'coco/bbox_mAP_s': -1.0, 'coco/cell phone_precision': 0.25, 'coco/toothbrush_precision': -1.0})
    print_coco_table(metrics)
    text = capsys.readouterr().out
    assert set(TITLES) == set(STATS)
    cells = [cell.strip() for line in text.splitlines() for cell in line.split('│')]
    for i, name in enumerate(STATS):
        assert cells[cells.index(TITLES[name]) + 1] == ('-' if name == 'mAP_s' else f'{i / 100:.4f}')
    assert cells[cells.index('cell phone') + 1] == '0.2500' and cells[cells.index('toothbrush') + 1] == '-'


def test_long_class_lists_are_folded(capsys):
    metrics = {f'coco/bbox_{name}': 0.5 for name in STATS}
    metrics.update({f'coco/class{i}_precision': i / 100 for i in range(7)})
    print_coco_table(metrics)
    (row,) = (line for line in capsys.readouterr().out.splitlines() if 'class0' in line)
    assert 'class4' in row and '0.0400' in row


def test_other_metrics_are_listed(capsys):
    print_coco_table({'voc/mAP': 0.75})
    text = capsys.readouterr().out
    assert 'voc/mAP' in text and '0.7500' in text
