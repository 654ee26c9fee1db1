import pytest
import torch
from helpers import detector_batch, needs_torch, tiny_detector

from mixdet.deploy.export import MINIMUM_TORCH_HALF
from mixdet.deploy.exportable import NMS_ONNX, NMS_STEPS, ExportableSSDLite, nms_mask, nms_mask_operator
from mixdet.errors import UserError

SIZE = (96, 96)


def batch():
    return torch.stack(detector_batch(SIZE)['inputs']).float() / 127.5 - 1


def spread(detector):
    """With batch-norm statistics of the images and larger score weights, so that detections differ."""
    for module in detector.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    for convs in detector.bbox_head.cls_convs:
        torch.nn.init.normal_(convs[-1].weight, 0, 0.3)
    with torch.no_grad():
        detector.train()
        detector.bbox_head(detector.neck(detector.backbone(batch())))
    return detector.eval()


def reference(detector, images):
    meta = dict(batch_input_shape=SIZE, img_shape=SIZE, scale_factor=(1.0, 1.0))
    with torch.no_grad():
        outputs = detector.bbox_head(detector.neck(detector.backbone(images)))
        return detector.bbox_head.predict_by_feat(*outputs, batch_img_metas=[meta] * len(images))


@pytest.mark.parametrize('nms', [NMS_STEPS, pytest.param(NMS_ONNX, marks=needs_torch('2.4'))])
@pytest.mark.parametrize('sigmoid', [False, True])
@pytest.mark.parametrize('test_cfg', [{}, dict(nms_pre=-1, score_thr=1e-8), dict(score_thr=0.4), dict(nms_pre=20)])
def test_detections_are_the_heads(nms, sigmoid, test_cfg):
    detector = spread(tiny_detector())
    detector.bbox_head.use_sigmoid_cls = sigmoid
    detector.test_cfg.update(test_cfg)
    detector.bbox_head.test_cfg = detector.test_cfg
    images = batch()
    with torch.no_grad():
        boxes, scores, labels = ExportableSSDLite(detector, SIZE, nms).eval()(images)
    for i, expected in enumerate(reference(detector, images)):
        kept = scores[i] > 0
        assert kept.sum() == len(expected) > 0
        torch.testing.assert_close(scores[i][kept], expected.scores)
        torch.testing.assert_close(boxes[i][kept], expected.bboxes)
        assert torch.equal(labels[i][kept], expected.labels)


@pytest.mark.parametrize('nms', [NMS_STEPS, pytest.param(NMS_ONNX, marks=needs_torch('2.4'))])
def test_boxes_outside_the_image_are_no_detections(nms):
    """The finest level has the best scores; two of its anchors are moved out of the image, to the right and the top."""
    detector = spread(tiny_detector())
    detector.test_cfg.update(score_thr=1e-3, max_per_img=30)
    with torch.no_grad():
        detector.bbox_head.cls_convs[0][-1].bias.view(-1, 4)[:, 1] += 4
        deltas = detector.bbox_head.reg_convs[0][-1].bias.view(-1, 4)
        deltas[0, 0], deltas[1, 1] = 100, -100
    images = batch()
    with torch.no_grad():
        boxes, scores, _ = ExportableSSDLite(detector, SIZE, nms).eval()(images)
    for i, expected in enumerate(reference(detector, images)):
        kept = scores[i] > 0
        assert 0 < kept.sum() == len(expected) < 30
        torch.testing.assert_close(boxes[i][kept], expected.bboxes)
        torch.testing.assert_close(scores[i][kept], expected.scores)
        assert (boxes[i][kept, 2:] > boxes[i][kept, :2]).all()


def test_without_nms_every_anchor_is_returned():
    detector = spread(tiny_detector())
    network = ExportableSSDLite(detector, (96, 64), None).eval()
    images = torch.randn(2, 3, 96, 64)
    with torch.no_grad():
        boxes, scores = network(images)
        cls_scores, deltas = detector.bbox_head(detector.neck(detector.backbone(images)))
    assert boxes.shape == (2, len(network.priors), 4) and scores.shape == (2, len(network.priors), 3)
    flat = detector.bbox_head._flatten(deltas, 4)
    for i in range(2):
        expected = detector.bbox_head.bbox_coder.decode(network.priors, flat[i])
        torch.testing.assert_close(boxes[i], expected)
    torch.testing.assert_close(scores, detector.bbox_head._flatten(cls_scores, 4).softmax(-1)[..., :3])
    assert boxes[..., 0::2].max() > 64 and boxes[..., 1::2].max() > 96  # not clipped


def test_deltas_are_limited_as_in_training():
    """The coder's own limit of the ratio of sides, and its means and standard deviations."""
    detector = tiny_detector().eval()
    detector.bbox_head.bbox_coder.means = (0.1, -0.2, 0.3, 0.0)
    detector.bbox_head.bbox_coder.stds = (0.1, 0.2, 0.3, 0.4)
    network = ExportableSSDLite(detector, SIZE, None).eval()
    deltas = torch.randn(2, len(network.priors), 4, generator=torch.Generator().manual_seed(0)) * 20
    for i in range(2):
        torch.testing.assert_close(
            network._decode(deltas)[i], detector.bbox_head.bbox_coder.decode(network.priors, deltas[i])
        )


def test_number_of_candidates():
    detector = tiny_detector().eval()
    classes, anchors = 3, len(ExportableSSDLite(detector, SIZE, None).priors)
    for changes, expected in (
        (dict(nms_pre=20), 20),
        (dict(nms_pre=10**6), classes * anchors),
        (dict(nms_pre=-1, max_per_img=2), 80),
        (dict(nms_pre=-1, max_per_img=10**6), classes * anchors),
    ):
        detector.test_cfg.update(changes)
        assert ExportableSSDLite(detector, SIZE, NMS_STEPS).candidates == expected


def test_nms_mask():
    """Of one class the box of lower score goes if they overlap enough; thresholds are exclusive."""
    boxes = torch.tensor([[[0.0, 0, 10, 10], [0, 0, 10, 9], [20, 20, 30, 30], [50, 50, 60, 60]]])
    scores = torch.tensor([[[0.8, 0.9, 0.3, 0.2], [0.8, 0.1, 0.3, 0.4]]])
    mask = nms_mask(boxes, scores, 0.5, 0.2, 10)
    assert mask.tolist() == [[[0, 1, 1, 0], [1, 0, 1, 1]]]
    assert nms_mask(boxes, scores, 0.95, 0.2, 10).tolist() == [[[1, 1, 1, 0], [1, 0, 1, 1]]]
    assert nms_mask(boxes, scores, 0.5, 0.2, 1).tolist() == [[[0, 1, 0, 0], [1, 0, 0, 0]]]
    assert nms_mask(boxes, scores, 0.5, 0.9, 10).sum() == 0
    if hasattr(torch.library, 'custom_op'):
        assert torch.equal(nms_mask_operator()(boxes, scores, 0.5, 0.2, 10), mask)


@needs_torch(MINIMUM_TORCH_HALF)
def test_half_precision_is_for_the_network():
    network = ExportableSSDLite(spread(tiny_detector()), SIZE, None).eval()
    with torch.no_grad():
        boxes, scores = network(batch())
        network.halve()
        half_boxes, half_scores = network(batch())
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float16}
    assert network.priors.dtype == half_boxes.dtype == half_scores.dtype == torch.float32
    assert 0 < (half_scores - scores).abs().mean() < 0.02 and (half_boxes - boxes).abs().mean() < 0.5


def test_detectors_that_cannot_be_exported():
    detector = tiny_detector().eval()
    detector.test_cfg.nms.type = 'soft_nms'
    with pytest.raises(UserError, match="test_cfg.nms.type='soft_nms'"):
        ExportableSSDLite(detector, SIZE, NMS_STEPS)
    ExportableSSDLite(detector, SIZE, None)  # without NMS its kind does not matter
    detector.bbox_head.bbox_coder = object()
    with pytest.raises(UserError, match='and DeltaXYWHBBoxCoder'):
        ExportableSSDLite(detector, SIZE, None)
    with pytest.raises(UserError, match='export is for detectors with mixdet.SSDLiteHead'):
        ExportableSSDLite(torch.nn.Identity(), SIZE, NMS_STEPS)
