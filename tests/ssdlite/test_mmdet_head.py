from pathlib import Path

import mmdet
import pytest
import torch
from helpers import detector_batch
from mmengine.config import Config

from mixdet.registry import MODELS


@pytest.fixture
def cfg():
    path = Path(mmdet.__file__).parent / '.mim/configs/ssd/ssdlite_mobilenetv2-scratch_8xb24-600e_coco.py'
    return Config.fromfile(path).model


def test_mmdetections_ssdlite_predicts_with_this_head(cfg):
    cfg.bbox_head.type = 'mixdet.SSDHead'
    torch.manual_seed(0)
    model = MODELS.build(cfg).eval()
    with torch.no_grad():
        (sample,) = model.test_step(detector_batch((320, 320), num_images=1))
    assert sample.pred_instances.bboxes.shape == (len(sample.pred_instances.scores), 4)


def test_its_own_head_cannot(cfg):
    """If this fails, the head has been mended upstream, and ours can go."""
    with torch.no_grad(), pytest.raises(AttributeError, match='loss_cls'):
        MODELS.build(cfg).eval().test_step(detector_batch((320, 320), num_images=1))
