"""Swaps in MMDetection's own configs: what changes, what is noted, what is refused, and that the result runs."""

import copy
from pathlib import Path

import pytest
import torch
from helpers import ROOT, detector_batch
from mmengine.config import Config

from mixdet.errors import UserError
from mixdet.registry import MODELS
from mixdet.swap import load_config_leniently, named_backbone, swap_backbone
from mixdet.swap.swap import _carried_over

pytestmark = pytest.mark.slow


def upstream(name):
    """A config that the installed MMDetection ships."""
    import mmdet

    return load_config_leniently(str(Path(mmdet.__file__).parent / '.mim' / 'configs' / f'{name}.py'))


def predict(cfg):
    model = MODELS.build(copy.deepcopy(cfg.model))
    model.eval()
    with torch.no_grad():
        if cfg.model.get('bbox_head', {}).get('type') == 'SSDHead':  # the upstream head cannot predict
            return [model(torch.zeros(1, 3, 300, 300), mode='tensor')]
        return model.test_step(detector_batch((96, 128), num_images=1))


FPN = [24, 40, 120, 200]


@pytest.mark.parametrize(
    ('name', 'out_indices', 'wired'),
    [
        ('retinanet/retinanet_r18_fpn_1x_coco', (0, 1, 2, 3), {'neck.in_channels': FPN}),
        ('yolox/yolox_tiny_8xb8-300e_coco', (1, 2, 3), {'neck.in_channels': [40, 120, 200]}),
        ('yolof/yolof_r50-c5_8xb8-1x_coco', (3,), {'neck.in_channels': 200}),
        ('detr/detr_r18_8xb2-500e_coco', (3,), {'neck.in_channels': [200]}),
        (
            'ssd/ssd300_coco',
            (1, 2),
            {
                'neck.in_channels': [40, 120],
                'neck.out_channels': [40, 120, 512, 256, 256, 256],
                'bbox_head.in_channels': [40, 120, 512, 256, 256, 256],
            },
        ),
        (
            'yolo/yolov3_d53_8xb8-320-273e_coco',
            (1, 2, 3),
            {'neck.in_channels': [200, 120, 40], 'bbox_head.out_channels': [1024, 512, 256]},
        ),
        ('rpn/rpn_r50-caffe-c4_1x_coco', (2,), {'rpn_head.in_channels': 120}),
        (
            'faster_rcnn/faster-rcnn_r50-caffe-dc5_1x_coco',
            (2,),
            {
                'rpn_head.in_channels': 120,
                'roi_head.bbox_roi_extractor.out_channels': 120,
                'roi_head.bbox_head.in_channels': 120,
            },
        ),
        ('mask2former/mask2former_r50_8xb2-lsj-50e_coco', (0, 1, 2, 3), {'panoptic_head.in_channels': FPN}),
    ],
)
def test_channels_are_rewired(name, out_indices, wired):
    cfg = swap_backbone(upstream(name), 'mixnet-s').cfg
    assert cfg.model.backbone.type == 'mixdet.MixNet' and cfg.model.backbone.out_indices == out_indices
    for key, value in wired.items():
        found = cfg.model
        for part in key.split('.'):
            found = found[part]
        assert found == value or list(found) == value
    if 'mask2former' not in name:  # too slow
        assert len(predict(cfg)) == 1


def test_lists_of_necks_and_detectors_inside_a_model():
    cfg = swap_backbone(upstream('libra_rcnn/libra-faster-rcnn_r50_fpn_1x_coco'), 'mixnet-l').cfg
    assert cfg.model.neck[0].in_channels == [40, 56, 160, 264] and cfg.model.neck[1].in_channels == 256
    swap = swap_backbone(upstream('soft_teacher/soft-teacher_faster-rcnn_r50-caffe_fpn_180k_semi-0.1-coco'), 'mixnet-s')
    assert swap.cfg.model.detector.neck.in_channels == FPN
    assert swap.cfg.model.detector.data_preprocessor.std == [58.395, 57.12, 57.375]


def test_pretrained_weights_keep_what_froze_the_old_ones(tmp_path):
    name = 'fcos/fcos_r50-caffe_fpn_gn-head_1x_coco'
    scratch, tuned = (swap_backbone(upstream(name), 'mixnet-s', path) for path in (None, 'mixnet_s.pth'))
    assert 'frozen_stages' not in scratch.cfg.model.backbone
    assert 'no pretrained weights: frozen_stages and norm_eval are off' in scratch.notes
    backbone = tuned.cfg.model.backbone
    assert backbone.frozen_stages == 1 and backbone.norm_eval
    assert backbone.init_cfg == dict(type='Pretrained', checkpoint='mixnet_s.pth')
    for swap in (scratch, tuned):
        preprocessor = swap.cfg.model.data_preprocessor
        assert preprocessor.bgr_to_rgb and preprocessor.mean == [123.675, 116.28, 103.53]


def test_normalisation_and_checkpointing_carry_over():
    cfg = upstream('retinanet/retinanet_r18_fpn_1x_coco')
    cfg.model.backbone.update(norm_cfg=dict(type='SyncBN', requires_grad=True), with_cp=True)
    backbone = swap_backbone(cfg, 'mixnet-s').cfg.model.backbone
    assert backbone.norm_cfg == dict(type='SyncBN', eps=0.001, momentum=0.01) and backbone.with_cp
    cfg.model.backbone.norm_cfg = dict(type='GN', num_groups=32)
    assert any('GN' in note for note in swap_backbone(cfg, 'mixnet-s').notes)


def test_settings_made_for_the_old_backbone_are_removed_or_noted():
    cfg = upstream('convnext/mask-rcnn_convnext-t-p4-w7_fpn_amp-ms-crop-3x_coco')
    swap = swap_backbone(cfg, 'mixnet-s')
    assert swap.cfg.custom_imports.imports == ['mixdet'] and 'constructor' not in swap.cfg.optim_wrapper
    notes = ' '.join(swap.notes)
    assert 'ConvNeXt' in notes and 'learning rate over the layers' in notes and 'mmpretrain.models' in notes
    cfg = upstream('retinanet/retinanet_r18_fpn_1x_coco')
    cfg.load_from = 'whole_detector.pth'
    cfg.model.backbone.dcn = dict(type='DCNv2')
    cfg.optim_wrapper.paramwise_cfg = dict(custom_keys=dict(backbone=dict(lr_mult=0.1)))
    notes = ' '.join(swap_backbone(cfg, 'mixnet-s').notes)
    assert 'whole_detector.pth' in notes and 'dcn' in notes and 'lr_mult=0.1' in notes


def test_a_config_that_is_not_for_training():
    cfg = upstream('retinanet/retinanet_r18_fpn_1x_coco')
    cfg.optim_wrapper = None  # as in trackers that only combine trained parts
    assert swap_backbone(cfg, 'mixnet-s').cfg.model.backbone.type == 'mixdet.MixNet'


def test_the_given_config_is_not_changed():
    cfg = upstream('retinanet/retinanet_r18_fpn_1x_coco')
    before = cfg.pretty_text
    swap_backbone(cfg, 'mobilenetv2')
    assert cfg.pretty_text == before


def test_our_backbones_replace_each_other():
    cfg = Config.fromfile(ROOT / 'configs/mixnet/retinanet_mixnet-s_fpn_8xb2-12e_coco.py')
    swap = swap_backbone(cfg, 'mobilenetv2-mixconv357')
    assert swap.cfg.model.neck.in_channels == [24, 32, 96, 320]
    assert swap.cfg.model.backbone.kernel_sizes == (3, 5, 7)


@pytest.mark.parametrize(
    ('name', 'message'),
    [
        ('faster_rcnn/faster-rcnn_r50-caffe_c4-1x_coco', 'ResLayer is the last stage of a ResNet'),
        ('detectors/cascade-rcnn_r50-rfp_1x_coco', 'RFP feeds its features back'),
        ('cornernet/cornernet_hourglass104_8xb6-210e-mstest_coco', 'outputs of stride'),
        ('misc/d2_retinanet_r50-caffe_fpn_ms-90k_coco', 'Detectron2Wrapper builds its network with detectron2'),
        ('rtmdet/rtmdet_l_swin_b_4xb32-100e_coco', 'neck CSPNeXtPAFPN does not take .* divisible by num_groups'),
        ('retinanet/retinanet_tta', 'there is no model'),
    ],
)
def test_detectors_that_cannot_be_wired_are_refused_with_the_reason(name, message):
    with pytest.raises(UserError, match=message) as error:
        swap_backbone(upstream(name), 'mixnet-s')
    assert '\n' not in str(error.value)


def test_a_neck_made_for_other_channels_is_named():
    cfg = upstream('retinanet/retinanet_r18_fpn_1x_coco')
    cfg.model.neck.in_channels = [1, 2, 3, 4]
    with pytest.raises(UserError, match=r'\(64, 128, 256, 512\) channels, but neck.in_channels=\[1, 2, 3, 4\]'):
        swap_backbone(cfg, 'mixnet-s')


@pytest.mark.parametrize('name', ['resnet', 'mixnet', 'mixnet-q', 'mobilenetv2-mixconv3', 'mixnet-s-mixconv35'])
def test_unknown_names(name):
    with pytest.raises(UserError, match=f'--backbone {name}: must be mixnet-s'):
        named_backbone(name)


def test_names_of_our_configs():
    assert named_backbone('mixnet-xl') == dict(type='mixdet.MixNet', arch='xl')
    assert named_backbone('mobilenetv1') == dict(type='mixdet.MobileNetV1', kernel_sizes=3)
    assert named_backbone('mobilenetv2-layer9-mixconv3579')['layer_kernel_sizes'] == {9: (3, 5, 7, 9)}


def retinanet(**backbone):
    """A small config with the parts that a swap looks at."""
    preprocessor = dict(type='DetDataPreprocessor', mean=[1.0, 2.0, 3.0], std=[1.0, 1.0, 1.0], rgb_to_bgr=True)
    model = dict(
        type='RetinaNet',
        data_preprocessor=preprocessor,
        backbone=dict(type='ResNet', depth=18, **backbone),
        neck=dict(type='FPN', in_channels=[64, 128, 256, 512], out_channels=8, num_outs=4),
    )
    return Config(dict(model=model))


@pytest.mark.parametrize(
    ('model', 'message'),
    [
        (None, 'there is no model in this config'),
        ('RetinaNet', 'there is no model in this config'),
        (dict(), 'model without a type has no backbone'),
        (dict(type='DETR', backbone=None, detector=dict(neck=dict())), 'model DETR has no backbone'),
        (dict(type='DETR', backbone=dict(depth=18)), 'model DETR has no backbone'),
        (dict(type='Detectron2Wrapper'), 'cannot be wired to another backbone: Detectron2Wrapper builds its network'),
        (
            dict(type='R', backbone=dict(type='ResNet'), neck=[dict(type='RFP'), dict(type='RFP')],
                 roi_head=dict(type='TridentRoIHead')),
            'another backbone: RFP feeds .* DetectoRS_ResNet; TridentRoIHead takes .* TridentResNet$',
        ),
        (dict(type='R', backbone=dict(type='NoNet')), 'backbone NoNet cannot be built here, and no neck states its'),
    ],
)  # fmt: skip
def test_models_without_a_backbone_to_replace(model, message):
    with pytest.raises(UserError, match=message):
        swap_backbone(Config(dict(model=model)), 'mixnet-s')


@pytest.mark.parametrize(('in_channels', 'strides', 'new'), [([7, 8, 9], (8, 16, 32), [40, 120, 200]), (9, (32,), 200)])
def test_a_backbone_that_cannot_be_built_is_wired_by_the_channels_of_the_neck(monkeypatch, in_channels, strides, new):
    monkeypatch.setattr('mixdet.swap.wiring._check_neck', lambda *args: None)
    cfg = retinanet()
    cfg.model.backbone.type = 'NoNet'
    cfg.model.neck.in_channels = in_channels
    swap = swap_backbone(cfg, 'mixnet-s')
    assert swap.cfg.model.neck.in_channels == new
    assert swap.notes[0].startswith('NoNet cannot be built here (')
    assert swap.notes[0].endswith(f'): its outputs are assumed to have strides {strides}')


def test_outputs_follow_the_old_strides_or_are_chosen():
    cfg = retinanet(out_indices=(1, 2))
    cfg.model.neck.update(in_channels=[128, 256], num_outs=2)
    swap = swap_backbone(cfg, dict(type='mixdet.MixNet'))
    assert swap.cfg.model.backbone.out_indices == (1, 2) and swap.cfg.model.neck.in_channels == [40, 120]
    swap = swap_backbone(retinanet(), dict(type='mixdet.MixNet', out_indices=(0, 1, 2, 'head')))
    assert swap.cfg.model.neck.in_channels == [24, 40, 120, 1536]


def test_every_change_is_listed():
    assert swap_backbone(retinanet(), 'mixnet-s').changes == [
        'backbone: ResNet -> mixdet.MixNet, out_indices=(0, 1, 2, 3)',
        'neck.in_channels: [64, 128, 256, 512] -> [24, 40, 120, 200]',
        'data_preprocessor: mean, std and channel order of ImageNet',
    ]


def test_normalisation_is_set_only_where_there_is_another():
    preprocessor = swap_backbone(retinanet(), 'mixnet-s').cfg.model.data_preprocessor
    imagenet = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True)
    assert preprocessor == dict(type='DetDataPreprocessor', **imagenet)
    for given in (dict(type='DetDataPreprocessor', pad_size_divisor=32), dict(type='DetDataPreprocessor', **imagenet)):
        cfg = retinanet()
        cfg.model.data_preprocessor = given
        swap = swap_backbone(cfg, 'mixnet-s')
        assert swap.cfg.model.data_preprocessor == given and len(swap.changes) == 2


PRETRAINED = dict(init_cfg=dict(type='Pretrained', checkpoint='a.pth'))


@pytest.mark.parametrize(
    ('old', 'pretrained', 'kept', 'notes'),
    [
        ({}, None, {}, []),
        (dict(norm_cfg=dict(type='BN'), frozen_stages=-1, norm_eval=False), None, {}, []),
        (dict(norm_cfg=dict(type='LN')), None, {}, []),
        (dict(norm_cfg=dict(type='MMSyncBN')), None,
         dict(norm_cfg=dict(type='MMSyncBN', eps=0.001, momentum=0.01)), []),
        (dict(norm_cfg=dict(type='GN')), None, {}, ['the old backbone was normalised by GN, ours is by BN']),
        (dict(frozen_stages=0), None, {}, ['no pretrained weights: frozen_stages and norm_eval are off']),
        (dict(norm_eval=True), None, {}, ['no pretrained weights: frozen_stages and norm_eval are off']),
        (dict(frozen_stages=5, norm_eval=False, with_cp=True), 'a.pth',
         dict(PRETRAINED, frozen_stages=4, norm_eval=False, with_cp=True), []),
        ({}, 'a.pth', PRETRAINED, []),
        (dict(dcn={}, sac=dict(a=1), plugins=[1]), None, {}, ['removed with the old backbone: sac, plugins']),
    ],
)  # fmt: skip
def test_settings_of_the_old_backbone(old, pretrained, kept, notes):
    found = []
    assert _carried_over(old, pretrained, found) == kept and found == notes


@pytest.mark.parametrize(
    ('imports', 'head', 'expected', 'noted'),
    [
        (None, 'FCOSHead', ['mixdet'], False),
        (['mine', 'mixdet', 'mmpretrain.models'], 'FCOSHead', ['mine', 'mixdet'], True),
        (['mmpretrain.models'], 'mmpretrain.Head', ['mmpretrain.models', 'mixdet'], False),
    ],
)
def test_imports(imports, head, expected, noted):
    cfg = retinanet()
    cfg.model.bbox_head = dict(type=head)
    if imports:
        cfg.custom_imports = dict(imports=imports, allow_failed_imports=True)
    swap = swap_backbone(cfg, 'mixnet-s')
    assert swap.cfg.custom_imports == dict(imports=expected, allow_failed_imports=False)
    removed = 'removed from custom_imports: mmpretrain.models, which only the old backbone needed'
    assert (removed in swap.notes) == noted


@pytest.mark.parametrize(('rate', 'pretrained', 'noted'), [(0.1, None, True), (1, None, False), (0.1, 'a.pth', False)])
def test_a_low_learning_rate_is_noted_without_pretrained_weights(rate, pretrained, noted):
    cfg = retinanet()
    cfg.optim_wrapper = dict(paramwise_cfg=dict(custom_keys=dict(backbone=dict(lr_mult=rate))))
    swap = swap_backbone(cfg, 'mixnet-s', pretrained)
    note = f'optim_wrapper.paramwise_cfg trains the backbone at lr_mult={rate}: set 1 without pretrained weights'
    assert (note in swap.notes) == noted and swap.cfg.optim_wrapper == cfg.optim_wrapper


def test_weights_of_the_old_detector_and_other_backbones_are_noted():
    cfg = retinanet()
    cfg.load_from = 'old.pth'
    cfg.model.update(init_cfg=dict(type='Pretrained', checkpoint='all.pth'), pretrained='torchvision://resnet18')
    cfg.model.img_backbone = dict(type='ResNet')
    cfg.model.bbox_head = dict(type='H', mask_backbone=dict(type='ResNet'), use_backbone=True)
    assert swap_backbone(cfg, 'mixnet-s').notes == [
        'load_from=old.pth holds the old backbone: what does not fit is skipped',
        'model.init_cfg loads weights of the old detector',
        'model.pretrained loads weights of the old detector',
        'other backbones are not changed: img_backbone, bbox_head.mask_backbone',
    ]
