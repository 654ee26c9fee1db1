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

pytestmark = pytest.mark.slow

CHILD = """
import os, pathlib, time
time.sleep(0.5)
while time.process_time() < 0.05: pass
pathlib.Path('cpu').write_text(str(time.process_time()))
pathlib.Path('threads').write_text(os.environ['OMP_NUM_THREADS'])
"""


def test_a_process_is_timed(tmp_path):
    once = evaluations.time_process([sys.executable, '-c', CHILD], tmp_path, 3)
    assert (tmp_path / 'threads').read_text() == '3'
    # whatever else the machine does: it computed at least so long, and not while it slept
    assert float((tmp_path / 'cpu').read_text()) <= once.cpu <= once.wall - 0.5


@pytest.mark.parametrize(('code', 'message'), [
    ("print('much'); raise SystemExit('no such thing')", 'failed: no such thing'),
    ('raise SystemExit(3)', 'failed: no output'),
    ('import os; os.kill(os.getpid(), 9)', 'failed: no output'),
])  # fmt: skip
def test_a_process_that_fails(tmp_path, code, message):
    with pytest.raises(UserError, match=message):
        evaluations.time_process([sys.executable, '-c', code], tmp_path, 1)


def test_evaluations_take_turns(monkeypatch, tmp_path):
    started = []

    def time_process(command, folder, threads):
        assert (folder, threads) == (tmp_path, 2)
        started.append(*command)
        return evaluations.ProcessTime(len(started), 10 * len(started))

    monkeypatch.setattr(evaluations, 'time_process', time_process)
    pair = [evaluations.Evaluation(name, [f'{name} all'], [f'{name} few']) for name in ('ours', 'theirs')]
    lines = []
    times = evaluations.time_evaluations(pair, tmp_path, 2, 2, lines.append)
    assert started == ['ours all', 'ours few', 'theirs all', 'theirs few'] * 2
    assert times == {
        'ours': ([(1, 10), (5, 50)], [(2, 20), (6, 60)]),
        'theirs': ([(3, 30), (7, 70)], [(4, 40), (8, 80)]),
    }
    assert lines[3] == 'round 2: theirs: 7.0 s, 70.0 s of CPU time' and len(lines) == 4


def test_start_up_is_told_from_images():
    """Starting up takes two seconds, an image 10 ms and in MMDetection 20 ms."""
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


def test_no_ratio_over_images_that_took_no_time():
    """The clock is not fine enough for a few images."""
    same = [evaluations.ProcessTime(2, 2)]
    page = evaluations.evaluations_markdown({'ours': evaluations.EvaluationTimes(same, same)}, 9, 8)
    assert '| ours | CPU time | 222.2 | 1.00 | 2.0 | 0.0 | - |' in page


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
    for command, name, indices in ((found.on_all, 'theirs', None), (found.on_few, 'theirs-few', 4)):
        assert command[: len(tool)] == tool and command[len(tool)] == str(tmp_path / f'{name}.py')
        cfg = Config.fromfile(tmp_path / f'{name}.py')
        assert cfg.model.bbox_head.type == 'mixdet.SSDHead' and cfg.model.test_cfg.max_per_img == 10
        assert cfg.test_dataloader.dataset.indices == indices
        assert (cfg.test_dataloader.batch_size, cfg.test_dataloader.num_workers) == (4, 0)
        assert cfg.test_dataloader.dataset.ann_file == cfg.test_evaluator.ann_file == str(ann_file)
    assert torch.load(tmp_path / 'theirs.pth')['state_dict']
    once = evaluations.time_process(found.on_few, tmp_path, 1)
    assert once.cpu > 0
    (log,) = (tmp_path / 'work_dirs/theirs-few').glob('*/*.log')
    assert 'Epoch(test) [1/1]' in log.read_text()
