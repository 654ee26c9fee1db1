from pathlib import Path

import mmdet
import pytest
from helpers import ROOT, run_tool
from mmengine.config import Config

pytestmark = pytest.mark.slow

CONFIG = ROOT / 'configs/mixnet/retinanet_mixnet-s_fpn_8xb2-12e_coco.py'


def test_writes_a_config_that_loads(tmp_path):
    done = run_tool('swap_backbone.py', CONFIG, 'out.py', '--backbone', 'mobilenetv2-mixconv35', cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert 'neck.in_channels: [24, 40, 120, 200] -> [24, 32, 96, 320]' in done.stdout
    cfg = Config.fromfile(tmp_path / 'out.py')
    assert cfg.model.backbone == dict(type='mixdet.MobileNetV2', kernel_sizes=(3, 5), out_indices=(0, 1, 2, 3))
    text = (tmp_path / 'out.py').read_text()
    assert text.startswith(f'# {CONFIG} with mobilenetv2-mixconv35\n')
    assert len(text.splitlines()) < 40 and cfg.default_hooks.report.type == 'mixdet.ReportHook'
    assert cfg.train_cfg.max_epochs == 12  # inherited
    done = run_tool('swap_backbone.py', CONFIG, 'out.py', '--backbone', 'mixnet-l', cwd=tmp_path)
    assert done.returncode == 2 and done.stderr.startswith('error: out.py exists already')
    assert (tmp_path / 'out.py').read_text() == text


def test_a_config_that_mmdetection_installed_is_named_by_package(tmp_path):
    config = Path(mmdet.__file__).parent / '.mim/configs/retinanet/retinanet_r18_fpn_1x_coco.py'
    done = run_tool('swap_backbone.py', config, 'out.py', '--backbone', 'mixnet-s', '--no-hooks', cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    text = (tmp_path / 'out.py').read_text()
    assert "_base_ = 'mmdet::retinanet/retinanet_r18_fpn_1x_coco.py'" in text and 'default_hooks' not in text
    cfg = Config.fromfile(tmp_path / 'out.py')
    assert cfg.model.neck.in_channels == [24, 40, 120, 200] and cfg.model.backbone.type == 'mixdet.MixNet'
    assert cfg.default_hooks.checkpoint.type == 'CheckpointHook'


def test_bad_arguments_are_one_line(tmp_path):
    for arguments, message in [
        ((CONFIG, 'o.py', '--backbone', 'resnet'), 'error: --backbone resnet: must be mixnet-s'),
        (('no.py', 'o.py', '--backbone', 'mixnet-s'), 'error: config no.py does not exist'),
    ]:
        done = run_tool('swap_backbone.py', *arguments, cwd=tmp_path)
        assert done.returncode == 2 and done.stderr.startswith(message) and len(done.stderr.splitlines()) == 1
