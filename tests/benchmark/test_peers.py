import copy

import pytest
import torch
from helpers import import_timm, needs_torch, tiny_detector
from torch import nn

from mixdet.backbones import MixNet
from mixdet.benchmark import peers
from mixdet.deploy.formats import FORMATS
from mixdet.engine.config import load_config
from mixdet.errors import UserError
from mixdet.layers import MixConv2d

pytestmark = pytest.mark.slow

SIZE = (64, 64)


def images(number, seed=0):
    return torch.randn(number, 3, *SIZE, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope='module')
def model():
    return peers.calibrate_norms(tiny_detector(kernel_sizes=(3, 5)), images(4))


def test_batch_norms_are_calibrated(model):
    """Without it the features of this network are a thousand times smaller."""
    features = peers.network_outputs(model.backbone, images(1, seed=1))
    assert all(0.2 < feature.std() < 3 for feature in features)
    assert not any(module.training or module._forward_pre_hooks for module in model.modules())


def test_calibration_leaves_half_of_the_mean():
    norm = nn.BatchNorm2d(3)
    x = images(4) + torch.tensor([0.0, 2.0, -4.0])[:, None, None]
    out = peers.calibrate_norms(nn.Sequential(norm, nn.BatchNorm2d(3, track_running_stats=False)), x)[0](x)
    torch.testing.assert_close(norm.running_mean, x.mean((0, 2, 3)) / 2)
    torch.testing.assert_close(out.square().mean((0, 2, 3)), torch.ones(3), rtol=1e-3, atol=0)


@needs_torch(FORMATS['onnx'].minimum_torch)
def test_all_peers_that_compute_the_same_are_checked(model):
    pytest.importorskip('onnxruntime')
    compared = [
        peers.eager_peer('ours', model, True, same_network=True),
        peers.fused_peer('ours', model, same_network=True),
        peers.split_peer('ours', model),
        peers.onnxruntime_peer('ours', model),
        peers.eager_peer('another', tiny_detector(), False),
    ]
    found = peers.float64_errors(model, compared, images(8))
    assert list(found) == ['ours', 'ours, fused', 'ours, split NCHW', 'ours, ONNX Runtime']
    assert all(0 < error < peers.TOLERANCE for error in found.values())


def test_a_pytorch_that_cannot_export_to_onnx_is_refused(monkeypatch, model):
    monkeypatch.setattr(torch, '__version__', '2.5.1')
    with pytest.raises(UserError, match='--against onnxruntime needs PyTorch 2.6, and 2.5.1 is installed'):
        peers.onnxruntime_peer('ours', model)


def test_peers_in_pytorch(model):
    assert peers.eager_peer('ours', model, False).in_pytorch
    network = object.__new__(peers.OnnxNetwork)
    assert not peers.Peer('ONNX Runtime', network, None, False, True).in_pytorch


def test_each_input_shape_has_a_session(monkeypatch):
    made = []

    class Session:
        def __init__(self, shape):
            self.shape = shape

        def run(self, names, inputs):
            assert inputs['image'].shape == self.shape
            return [inputs['image'] * 2]

    def session(network, x):
        made.append(tuple(x.shape))
        return Session(x.shape)

    monkeypatch.setattr(peers.OnnxNetwork, '_session', session)
    network = object.__new__(peers.OnnxNetwork)
    network.sessions = {}
    for number in (1, 2, 1):
        (out,) = network(images(number))
        assert torch.equal(out, images(number) * 2)
    assert made == [(1, 3, *SIZE), (2, 3, *SIZE)]


def test_what_a_training_step_may_train(model):
    eager, split = peers.eager_peer('ours', model, True), peers.split_peer('ours', model)
    assert eager.model is model and split.model is not model
    assert peers.fused_peer('ours', model, True).model is None
    assert [layer.impl for layer in split.model.modules() if isinstance(layer, MixConv2d)][:2] == ['split', 'split']
    assert not any(layer.impl == 'split' for layer in model.modules() if isinstance(layer, MixConv2d))


def test_another_function_is_refused(model):
    wrong = copy.deepcopy(model)
    wrong.bbox_head.cls_convs[0][1].weight.data *= 1.01
    other_size = model.backbone
    for network, message in ((wrong, 'ours is wrong by'), (other_size, 'ours gives outputs of other shapes')):
        peer = peers.eager_peer('ours', network, False, same_network=True)
        with pytest.raises(UserError, match=message):
            peers.float64_errors(model, [peer], images(8))


@pytest.mark.parametrize('padding', ['symmetric', 'same'])
@pytest.mark.parametrize('out_indices', [('expansion', 'head'), (0, 1, 2, 3), (2,)])
def test_timm_gives_what_ours_gives(padding, out_indices):
    import_timm()
    torch.manual_seed(0)
    cfg = dict(arch='s', padding=padding, out_indices=out_indices)
    backbone = MixNet(**cfg)
    peer = peers.timm_peer(backbone, cfg, images(2))
    assert peer.name == f"timm's {'tf_' if padding == 'same' else ''}mixnet_s, NCHW"
    found = peers.float64_errors(backbone.eval(), [peer], images(8))
    assert list(found) == [peer.name]
    assert len(peer.model.blocks) == sum(len(stage) for stage in backbone.stages) + len(backbone.stem) - 1


def test_the_peer_of_timm_keeps_no_features():
    import_timm()
    cfg = dict(arch='s', out_indices=('expansion',))
    peer = peers.timm_peer(MixNet(**cfg), cfg, images(2))
    peer.run(images(1))
    assert peer.model.expansion is None


def test_the_peer_of_timm_needs_a_mixnet(model):
    with pytest.raises(UserError, match='the backbone here is a MobileNetV2'):
        peers.timm_peer(model.backbone, {}, images(1))


def test_mmdetections_own_ssdlite_can_predict():
    from helpers import detector_batch

    peer = peers.build_detector(load_config(peers.mmdet_ssdlite_config())).eval()
    peer.test_cfg.score_thr = 0.0
    peer.bbox_head.test_cfg.score_thr = 0.0
    with torch.no_grad():
        found = peer.test_step(detector_batch((320, 320), num_images=1))
    assert len(found[0].pred_instances) > 0
