import json
import os

import pytest
from mmengine.config import Config

from mixdet.errors import UserError
from mixdet.evaluation.results import read_results, write_result


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
    assert result.metrics == {'mAP': 0.25, 'mAP_50': 0.5} and result.per_class == {'red cell': 0.125}
    assert (result.config, result.checkpoint, result.images) == ('net', 'epoch_2.pth', 79)
    assert (result.annotations, result.epoch, result.seed) == ('d/annotations/val.json', 2, 7)
    assert json.loads(path.read_text())['versions'].keys() == {'mixdet', 'torch'}


def test_each_work_dir_counts_once_with_its_newest(tmp_path):
    for i, (folder, name, ap) in enumerate([('a', 'epoch_9.pth', 0.1), ('a', 'epoch_1.pth', 0.2), ('b', 'x.pth', 0.3)]):
        os.utime(write(tmp_path / folder, name, ap), (i, i))
    assert [result.metrics['mAP'] for result in read_results(tmp_path)] == [0.2, 0.3]
    assert read_results(tmp_path / 'none') == []


@pytest.mark.parametrize('content', ['', '[]', '{}', '{"config": "a"}'])
def test_a_file_that_is_none_is_named(tmp_path, content):
    path = write(tmp_path)
    path.write_text(content)
    with pytest.raises(UserError, match='epoch_2.json is no results file'):
        read_results(tmp_path)


def test_mirrored_tests_stay_out_of_tables(tmp_path):
    cfg = Config(dict(work_dir=str(tmp_path / 'w'), test_evaluator=dict(ann_file='a.json')))
    path = write_result(cfg, 'net', {}, 'a/epoch_2.pth', 1, {'coco/bbox_mAP': 0.5}, tta=True)
    assert path == tmp_path / 'w/results_tta/epoch_2.json' and read_results(tmp_path) == []
