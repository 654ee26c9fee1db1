import json
import os
import re
from pathlib import Path

import pytest
from helpers import little_room
from mmengine.config import Config

from mixdet.errors import UserError
from mixdet.evaluation.numbers import CocoNumbers, IouTypeNumbers
from mixdet.evaluation.results import EvaluationResult, read_results, result_path, write_result


def write(work_dir, checkpoint='epoch_2.pth', ap=0.25):
    cfg = Config(
        dict(work_dir=str(work_dir), test_evaluator=[dict(type='Other'), dict(ann_file='d/annotations/val.json')])
    )
    metrics = {'coco/bbox_mAP': ap, 'coco/bbox_mAP_50': 0.5, 'coco/red cell_precision': 0.125, 'other': 1.0}
    return write_result(cfg, 'net', dict(meta=dict(epoch=2, seed=7)), f'a/{checkpoint}', 79, metrics)


def test_what_is_written_is_read(tmp_path):
    path = write(tmp_path / 'w')
    assert path == tmp_path / 'w/results/epoch_2.json'
    (result,) = read_results(tmp_path)
    assert result.numbers.bbox.stats == {'mAP': 0.25, 'mAP_50': 0.5} and result.numbers.bbox.per_class == {
        'red cell': 0.125
    }
    assert (result.config, result.checkpoint, result.images) == ('net', 'epoch_2.pth', 79)
    assert (result.annotations, result.epoch, result.seed) == ('d/annotations/val.json', 2, 7)
    assert not result.numbers.segm.stats and not result.numbers.other  # only COCO's are kept
    assert json.loads(path.read_text())['versions'].keys() == {'mixdet', 'torch'}


def test_masks_are_kept_beside_boxes(tmp_path):
    cfg = Config(dict(work_dir=str(tmp_path), test_evaluator=dict(type='Other')))
    numbers = CocoNumbers(IouTypeNumbers({'mAP': 0.5}, {'cat': 0.25}), IouTypeNumbers({'mAP': 0.125}, {'cat': -1.0}))
    path = write_result(cfg, 'net', {}, 'a/epoch_2.pth', 1, numbers.to_metrics('coco/'))
    content = json.loads(path.read_text())
    assert (content['mask_metrics'], content['mask_per_class']) == ({'mAP': 0.125}, {'cat': -1.0})
    (result,) = read_results(tmp_path)
    assert result.numbers == numbers and (result.annotations, result.epoch, result.seed) == ('', 0, 0)


def test_path_of_a_result():
    assert result_path('w', 'a/epoch_2.pth') == Path('w/results/epoch_2.json')
    assert result_path('w', 'a/epoch_2.pth', tta=True) == Path('w/results_tta/epoch_2.json')


def test_a_file_of_version_0_1_is_read(tmp_path):
    content = dict(
        config='net', checkpoint='epoch_2.pth', annotations='d/annotations/val.json', images=79, metrics={'mAP': 0.25},
        per_class={'cat': 0.5}, epoch=2, seed=7, versions=dict(mixdet='0.1.0', torch='2.0'),
    )  # fmt: skip
    (tmp_path / 'results').mkdir()
    (tmp_path / 'results/epoch_2.json').write_text(json.dumps(content))
    numbers = CocoNumbers(IouTypeNumbers({'mAP': 0.25}, {'cat': 0.5}))
    assert read_results(tmp_path) == [
        EvaluationResult('net', 'epoch_2.pth', 'd/annotations/val.json', 79, numbers, epoch=2, seed=7)
    ]


def test_each_work_dir_counts_once_with_its_newest_evaluation(tmp_path):
    for i, (folder, name, ap) in enumerate([('a', 'epoch_9.pth', 0.1), ('a', 'epoch_1.pth', 0.2), ('b', 'x.pth', 0.3)]):
        os.utime(write(tmp_path / folder, name, ap), (i, i))
    assert [result.numbers.bbox.stats['mAP'] for result in read_results(tmp_path)] == [0.2, 0.3]
    assert read_results(tmp_path / 'none') == []


@pytest.mark.parametrize(
    'content', ['', '[]', '{}', '{"config": "a"}', '"metrics"', '{"mAP": "high"}', '{"mAP": null}', '[' * 10**5]
)
def test_a_file_of_another_kind_is_named(tmp_path, content):
    path = write(tmp_path)
    path.write_text(content if 'mAP' not in content else re.sub(r'{\s*"mAP"[^}]*}', content, path.read_text()))
    with pytest.raises(UserError, match='epoch_2.json is not a results file'):
        read_results(tmp_path)


def test_evaluations_with_tta_stay_out_of_tables(tmp_path):
    cfg = Config(dict(work_dir=str(tmp_path / 'w'), test_evaluator=dict(ann_file='a.json')))
    path = write_result(cfg, 'net', {}, 'a/epoch_2.pth', 1, {'coco/bbox_mAP': 0.5}, tta=True)
    assert path == tmp_path / 'w/results_tta/epoch_2.json' and read_results(tmp_path) == []


def test_results_that_cannot_be_written_leave_the_earlier_ones(tmp_path):
    path = write(tmp_path)
    before = path.read_text()
    with little_room(20), pytest.raises(UserError, match='epoch_2.json cannot be written: File too large'):
        write(tmp_path, ap=0.5)
    assert path.read_text() == before and [file.name for file in path.parent.iterdir()] == ['epoch_2.json']
