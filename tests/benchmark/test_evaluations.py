import json
import sys

import pytest
import torch
from mmdet.datasets import CocoDataset
from mmengine.config import Config

from mixdet.benchmark import evaluations
from mixdet.datasets.demo import make_demo_data
from mixdet.engine.config import load_config
from mixdet.errors import UserError


def test_a_process_is_timed(tmp_path):
    once = evaluations.time_process([sys.executable, '-c', 'import time; time.sleep(0.3)'], tmp_path, 1)
    assert once.wall >= 0.3 and 0 < once.cpu < 0.3
    with pytest.raises(UserError, match='failed: SystemExit|failed: no such thing'):
        evaluations.time_process([sys.executable, '-c', "raise SystemExit('no such thing')"], tmp_path, 1)


def test_start_up_is_told_from_images():
    """Two seconds, and 10 ms an image; MMDetection's needs 20 ms."""
    times = {
        name: evaluations.EvaluationTimes(
            [evaluations.ProcessTime(2 + 100 * each, 1 + 100 * each)] * 3,
            [evaluations.ProcessTime(2 + 8 * each, 1 + 8 * each)] * 3,
        )
        for name, each in (('ours', 0.01), ('theirs', 0.02))
    }
    rows = [line for line in evaluations.evaluations_markdown(times, 100, 8).splitlines() if line.startswith('| ours')]
    assert rows == [
        '| ours | wall-clock time | 30.0 | 0.75 | 2.0 | 10.0 | 0.50 |',
        '| ours | CPU time | 20.0 | 0.67 | 1.0 | 10.0 | 0.50 |',
    ]


def test_mmdetections_own_tool_tests_its_own_detector(tmp_path):
    make_demo_data(tmp_path / 'demo', images=dict(train=1, val=8))
    ann_file, images = tmp_path / 'demo/annotations/val.json', tmp_path / 'demo/images/val'
    content = json.loads(ann_file.read_text())
    content['categories'] = [dict(id=i, name=name) for i, name in enumerate(CocoDataset.METAINFO['classes'], start=1)]
    ann_file.write_text(json.dumps(content))
    path, tool = evaluations.mmdet_evaluation()
    cfg = load_config(path)
    test_cfg = dict(nms_pre=100, nms=dict(type='nms', iou_threshold=0.6), score_thr=0.001, max_per_img=10)
    found = evaluations.write_evaluation('theirs', cfg, tool, tmp_path, ann_file, images, test_cfg, 4)
    cfg = Config.fromfile(tmp_path / 'theirs-few.py')
    assert cfg.model.bbox_head.type == 'mixdet.SSDHead' and cfg.model.test_cfg.max_per_img == 10
    assert cfg.test_dataloader.dataset.indices == 4 and cfg.test_dataloader.num_workers == 0
    assert torch.load(tmp_path / 'theirs.pth')['state_dict']
    once = evaluations.time_process(found.on_few, tmp_path, 1)
    assert once.cpu > 0
    (log,) = (tmp_path / 'work_dirs/theirs-few').glob('*/*.log')
    assert 'Epoch(test) [1/1]' in log.read_text()
