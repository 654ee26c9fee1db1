import cv2
import numpy as np
import pytest
import torch
from helpers import ROOT, run_tool, shared_path

from mixdet.engine.checkpoint import check_fits, read_checkpoint
from mixdet.registry import MODELS

pytestmark = pytest.mark.slow

TF_CONFIG = ROOT / 'configs/ssdlite_mobilenetv2/ssdlite_mobilenetv2-baseline3x3-tf-300_coco.py'


def convert_weights(tmp_path, *arguments):
    return run_tool('convert_weights.py', *arguments, cwd=tmp_path)


def test_the_coco_detector_loads_into_its_config(tmp_path):
    from mmengine.config import Config

    source = shared_path('weights', 'ssdlite_mobilenet_v2_coco.npz')
    done = convert_weights(tmp_path, source, 'tf.pth', '--as', 'ssdlite_mobilenetv2', '--licence', 'Apache-2.0')
    assert done.returncode == 0, done.stderr
    assert 'left out: nothing' in done.stdout
    assert '64 batch-norms are folded (mean 0, variance 1): right for evaluation; before training' in done.stdout
    checkpoint = read_checkpoint(tmp_path / 'tf.pth')
    check_fits(checkpoint, MODELS.build(Config.fromfile(TF_CONFIG).model), 'tf.pth')
    meta = checkpoint['meta']
    assert meta['source'] == source.name and len(meta['sha256']) == 64 and meta['licence'] == 'Apache-2.0'
    assert (
        convert_weights(tmp_path, source, 'tf.pth', '--as', 'ssdlite_mobilenetv2').returncode == 2
    )  # is not overwritten

    cv2.imwrite(str(tmp_path / 'a.png'), np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8))
    options = ('--keep-ids', '--kernel-sizes', '(3,5,7)', '--images', '.')
    done = convert_weights(tmp_path, source, 'ids.pth', '--as', 'ssdlite_mobilenetv2', *options)
    assert done.returncode == 0, done.stderr
    assert '64 folded batch-norms now have the statistics of 1 images' in done.stdout
    assert 'right for evaluation' not in done.stdout
    kept = read_checkpoint(tmp_path / 'ids.pth')['state_dict']
    assert kept['bbox_head.cls_convs.0.1.weight'].shape[0] == 3 * 91
    assert kept['backbone.stages.3.0.depthwise.conv.convs.2.weight'].shape[2:] == (7, 7)


@pytest.mark.parametrize(
    ('file', 'kind', 'network', 'left_out'),
    [
        ('mobilenet_v1_1.0_224_imagenet.npz', 'mobilenetv1', 'MobileNetV1', 'MobilenetV1/Logits/Conv2d_1c_1x1/biases'),
        ('mobilenet_v2-b0353104.pth', 'torchvision_mobilenetv2', 'MobileNetV2', 'classifier.1.weight'),
    ],
)
def test_backbones_load_as_pretrained(tmp_path, file, kind, network, left_out):
    done = convert_weights(tmp_path, shared_path('weights', file), 'a.pth', '--as', kind)
    assert done.returncode == 0, done.stderr
    assert left_out in done.stdout
    init_cfg = dict(type='Pretrained', checkpoint=str(tmp_path / 'a.pth'))
    model = MODELS.build(dict(type=f'mixdet.{network}', out_indices=(2, 3), init_cfg=init_cfg))
    model.init_weights()
    stored = read_checkpoint(tmp_path / 'a.pth')['state_dict']
    for name, value in model.state_dict().items():
        assert torch.equal(value, stored[name])


def test_what_is_no_such_model_is_refused_in_one_line(tmp_path):
    np.savez(tmp_path / 'other.npz', a=np.zeros(3))
    done = convert_weights(tmp_path, 'other.npz', 'out.pth', '--as', 'mobilenetv1')
    assert done.returncode == 2 and len(done.stderr.strip().splitlines()) == 1
    assert 'tensors are missing in the source: MobilenetV1/Conv2d_0/weights' in done.stderr
    assert not (tmp_path / 'out.pth').exists()
