import copy

import pytest
import torch
from helpers import import_timm, tiny_detector

from mixdet.backbones import MixNet
from mixdet.benchmark import peers
from mixdet.engine.config import load_config
from mixdet.errors import UserError

SIZE = (64, 64)


@pytest.fixture(scope='module')
def model():
    return peers.calibrate_norms(tiny_detector(kernel_sizes=(3, 5)), torch.randn(4, 3, *SIZE))


def test_batch_norms_are_calibrated(model):
    """Untrained, the features of this network are a thousandth of that."""
    features = peers.network_outputs(model.backbone, torch.randn(1, 3, *SIZE))
    assert all(0.2 < feature.std() < 3 for feature in features)
    assert not any(module.training for module in model.modules())


def test_all_peers_that_compute_the_same_are_checked(model):
    pytest.importorskip('onnxruntime')
    compared = [
        peers.eager_peer('ours', model, True, same_network=True),
        peers.fused_peer('ours', model, same_network=True),
        peers.split_peer('ours', model),
        peers.onnxruntime_peer('ours', model),
        peers.eager_peer('another', tiny_detector(), False),
    ]
    found = peers.float64_errors(model, compared, torch.randn(2, 3, *SIZE))
    assert list(found) == ['ours', 'ours, fused', 'ours, split NCHW', 'ours, ONNX Runtime']
    assert all(0 < error < peers.TOLERANCE for error in found.values())


def test_another_function_is_refused(model):
    wrong = copy.deepcopy(model)
    wrong.backbone.stem[0].conv.padding = (0, 0)
    wrong.backbone.stem[0].conv.weight.data *= 1.01
    for other, message in (
        (
            peers.eager_peer('padded', wrong, False, same_network=True),
            'padded is wrong by|padded gives outputs of other shapes',
        ),
        (
            peers.eager_peer('backbone', model.backbone, False, same_network=True),
            'backbone gives outputs of other shapes',
        ),
    ):
        with pytest.raises(UserError, match=message):
            peers.float64_errors(model, [other], torch.randn(1, 3, *SIZE))


@pytest.mark.parametrize('padding', ['symmetric', 'same'])
@pytest.mark.parametrize('out_indices', [('expansion', 'head'), (0, 1, 2, 3), (2,)])
def test_timm_gives_what_ours_gives(padding, out_indices):
    import_timm()
    cfg = dict(arch='s', padding=padding, out_indices=out_indices)
    backbone = MixNet(**cfg)
    peer = peers.timm_peer(backbone, cfg, torch.randn(2, 3, *SIZE))
    assert peer.name == f"timm's {'tf_' if padding == 'same' else ''}mixnet_s, NCHW"
    found = peers.float64_errors(backbone.eval(), [peer], torch.randn(1, 3, *SIZE))
    assert list(found) == [peer.name]


def test_timm_has_no_other_backbone(model):
    with pytest.raises(UserError, match='the backbone here is a MobileNetV2'):
        peers.timm_peer(model.backbone, {}, torch.randn(1, 3, *SIZE))


def test_mmdetections_own_ssdlite_can_predict():
    from helpers import detector_batch

    peer = peers.build_detector(load_config(peers.mmdet_ssdlite_config())).eval()
    peer.test_cfg.score_thr = 0.0
    peer.bbox_head.test_cfg.score_thr = 0.0
    with torch.no_grad():
        found = peer.test_step(detector_batch((320, 320), num_images=1))
    assert len(found[0].pred_instances) > 0
