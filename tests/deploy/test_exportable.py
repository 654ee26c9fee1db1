import pytest
import torch
from helpers import detector_batch, tiny_detector

from mixdet.deploy.exportable import NMS_ONNX, NMS_STEPS, ExportableSSDLite
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


@pytest.mark.parametrize('nms', [NMS_STEPS, NMS_ONNX])
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


def test_without_nms_every_anchor_comes():
    detector = spread(tiny_detector())
    network = ExportableSSDLite(detector, SIZE, None).eval()
    with torch.no_grad():
        boxes, scores = network(torch.randn(2, 3, *SIZE))
    assert boxes.shape == (2, len(network.priors), 4) and scores.shape == (2, len(network.priors), 3)
    assert boxes.min() >= 0 and boxes.max() <= 96


def test_what_cannot_be_exported_is_said():
    detector = tiny_detector()
    detector.test_cfg.nms.type = 'soft_nms'
    with pytest.raises(UserError, match="test_cfg.nms.type='soft_nms'"):
        ExportableSSDLite(detector, SIZE, NMS_STEPS)
    with pytest.raises(UserError, match='export is for detectors with mixdet.SSDLiteHead'):
        ExportableSSDLite(torch.nn.Identity(), SIZE, NMS_STEPS)
