"""TensorFlow's SSDLite-MobileNetV2, tensor by tensor, on one COCO image."""

import numpy as np
import pytest
import torch
from helpers import ROOT, run_tool, shared_path
from mmengine.config import Config

from mixdet.errors import UserError
from mixdet.evaluation.results import read_results
from mixdet.registry import MODELS
from mixdet.weights import fill
from mixdet.weights.tensorflow import USED_IDS, backbone_entries, ssdlite_entries

pytestmark = pytest.mark.slow

CONFIG = ROOT / 'configs/ssdlite_mobilenetv2/ssdlite_mobilenetv2-baseline3x3-tf-300_coco.py'


def build(**backbone):
    cfg = Config.fromfile(CONFIG).model
    cfg.backbone.update(backbone)
    return MODELS.build(cfg).eval()


@pytest.fixture(scope='module')
def source():
    return dict(np.load(shared_path('weights', 'ssdlite_mobilenet_v2_coco.npz')))


@pytest.fixture(scope='module')
def reference():
    return np.load(shared_path('reference', 'tf_ssdlite_mobilenet_v2_coco_000000397133.npz'))


@pytest.fixture(scope='module')
def detector(source):
    model = build()
    assert fill(model, ssdlite_entries(model, USED_IDS), source) == []
    return model


def difference(ours, theirs):
    """Largest difference relative to the tensor's scale."""
    assert ours.shape == theirs.shape
    return float(np.abs(ours.numpy() - theirs).max() / np.abs(theirs).max())


def test_every_tensor_equals_tensorflows(detector, reference):
    image = torch.from_numpy(reference['pre']).permute(0, 3, 1, 2)
    with torch.no_grad():
        features = detector.neck(detector.backbone(image))
        scores, deltas = detector.bbox_head(features)
    head = detector.bbox_head
    found = {
        name: difference(feature.permute(0, 2, 3, 1), reference[name])
        for name, feature in zip(('c4_expanded_conv_13_expand', 'Conv_1', 'ex2', 'ex3', 'ex4', 'ex5'), features)
    }
    deltas, scores = head._flatten(deltas, 4), head._flatten(scores, 81)
    boxes = head.bbox_coder.decode(torch.cat(head._priors(features, [dict(batch_input_shape=(300, 300))])), deltas[0])
    found['box_encodings'] = difference(deltas[..., [1, 0, 3, 2]], reference['box_encodings'])
    found['class_logits'] = difference(scores, reference['class_logits'][..., [*USED_IDS, 0]])
    found['boxes_yxyx'] = difference(boxes[:, [1, 0, 3, 2]] / 300, reference['boxes_yxyx'][0, :, 0])
    found['scores90'] = difference(scores[..., :80].sigmoid(), reference['scores90'][..., [i - 1 for i in USED_IDS]])
    assert len(found) == 10 and max(found.values()) <= 1e-4


def test_symmetric_padding_gives_other_features(source, reference):
    model = build(padding='symmetric')
    fill(model, ssdlite_entries(model, USED_IDS), source)
    with torch.no_grad():
        features = model.backbone(torch.from_numpy(reference['pre']).permute(0, 3, 1, 2))
    assert difference(features[1].permute(0, 2, 3, 1), reference['Conv_1']) > 0.1


@pytest.mark.parametrize('kernel_sizes', [5, 7, (3, 5), (3, 5, 7)])
def test_grown_kernels_compute_the_same(detector, source, reference, kernel_sizes):
    grown = build(kernel_sizes=kernel_sizes)
    fill(grown, ssdlite_entries(grown, USED_IDS), source)
    image = torch.from_numpy(reference['pre']).permute(0, 3, 1, 2)
    with torch.no_grad():
        for ours, theirs in zip(grown(image), detector(image)):
            for a, b in zip(ours, theirs):
                assert difference(a, b.numpy()) <= 1e-5


@pytest.mark.parametrize('kernel_sizes', [5, 7, (3, 5), (3, 5, 7)])
def test_grown_kernels_of_mobilenetv1_compute_the_same(kernel_sizes):
    source = dict(np.load(shared_path('weights', 'mobilenet_v1_1.0_224_imagenet.npz')))
    torch.manual_seed(0)
    image, features = torch.rand(1, 3, 96, 128) * 2 - 1, []
    for sizes in (3, kernel_sizes):
        model = MODELS.build(dict(type='mixdet.MobileNetV1', padding='same', kernel_sizes=sizes)).eval()
        fill(model, backbone_entries(model), source, allow=['MobilenetV1/Logits/*'])
        with torch.no_grad():
            features.append(model(image))
    for ours, theirs in zip(*features):
        assert difference(theirs, ours.numpy()) <= 1e-5


@pytest.mark.parametrize(
    ('resize', 'kernel_sizes', 'expected', 'tolerance'),
    [
        ('Resize', 3, 0.3551, 0.002),
        ('mixdet.TFResize', 3, 0.3485, 0.0005),
        ('mixdet.TFResize', (3, 5, 7), 0.3485, 0.0005),
    ],
)
def test_average_precision_through_test_py(source, tmp_path, resize, kernel_sizes, expected, tolerance):
    """The AP of TensorFlow's graph and exact post-processing on these images, with OpenCV's and TensorFlow's resize."""
    data = shared_path('data', 'coco-mini')
    model = build(kernel_sizes=kernel_sizes)
    fill(model, ssdlite_entries(model, USED_IDS), source)
    torch.save(dict(state_dict=model.state_dict()), tmp_path / 'tf.pth')
    (tmp_path / 'c.py').write_text(
        f"_base_ = '{CONFIG}'\nmodel = dict(backbone=dict(kernel_sizes={kernel_sizes}))\n"
        f"pipeline = _base_.test_pipeline\npipeline[1].type = '{resize}'\n"
        f'test_dataloader = dict(num_workers=0, persistent_workers=False,\n'
        f"                       dataset=dict(data_root='{data}/', pipeline=pipeline))\n"
        f"test_evaluator = dict(ann_file='{data}/annotations/instances_val2017.json')\n"
    )
    done = run_tool('test.py', 'c.py', 'tf.pth', cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (result,) = read_results(tmp_path)
    assert len(result.numbers.bbox.stats) == 12 and result.images == 79
    assert result.numbers.bbox.stats['mAP'] == pytest.approx(expected, abs=tolerance)
    assert f'{result.numbers.bbox.stats["mAP"]:.4f}' in done.stdout


def test_backbone_weights_of_slim():
    source = dict(np.load(shared_path('weights', 'mobilenet_v1_1.0_224_imagenet.npz')))
    model = MODELS.build(dict(type='mixdet.MobileNetV1', padding='same'))
    unused = fill(model, backbone_entries(model), source, allow=['MobilenetV1/Logits/*'])
    assert unused and all(name.startswith('MobilenetV1/Logits/') for name in unused)


def test_another_width_is_refused(source):
    model = build(widen_factor=0.75)
    with pytest.raises(UserError, match=r'another shape: FeatureExtractor/MobilenetV2/Conv/weights \(3, 3, 3, 32\)'):
        fill(model, ssdlite_entries(model, USED_IDS), source)


def test_what_does_not_fit_is_named(source):
    model = build()
    cases = [
        ({k: v for k, v in source.items() if 'Conv_1/weights' not in k}, 'missing in the source: FeatureExtractor'),
        ({**source, 'Extra/weights': np.zeros(3)}, 'not used .*: Extra/weights'),
        ({**source, 'BoxPredictor_0/ClassPredictor/biases': np.zeros(9)}, r'another shape: BoxPredictor_0.*\(9,\)'),
    ]
    for broken, message in cases:
        with pytest.raises(UserError, match=message):
            fill(model, ssdlite_entries(model, USED_IDS), broken)
    with pytest.raises(UserError, match=r'another shape: .*expanded_conv/depthwise'):
        smaller = build(kernel_sizes=1)
        fill(smaller, ssdlite_entries(smaller, USED_IDS), source)
    with pytest.raises(ValueError, match='MixNet has no TensorFlow weights'):
        list(backbone_entries(MODELS.build(dict(type='mixdet.MixNet'))))
