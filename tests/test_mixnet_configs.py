"""The configs of configs/mixnet: MMDetection's detectors on MixNet, on real images where they are at hand."""

import re
import sys

import pytest
import torch
from helpers import ROOT, shared_path
from mmengine.config import Config

from mixdet.benchmark.complexity import count_complexity
from mixdet.compat.mmcv_ops import has_compiled_ops
from mixdet.registry import DATASETS, MODELS

pytestmark = pytest.mark.slow

FOLDER = ROOT / 'configs/mixnet'
CONFIGS = sorted(FOLDER.glob('*_coco.py'))
SIDE = 128
config = pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)


def small(cfg):
    """The config's model with few proposals, which are what its training time is made of, and images of one size."""
    model = cfg.model
    model.data_preprocessor.pop('batch_augments', None)
    if 'score_thr' in model.test_cfg:
        model.test_cfg.score_thr = 0  # untrained, some find nothing else
    if 'roi_head' in model:
        model.test_cfg.rcnn.score_thr = 0
        model.train_cfg.rpn_proposal.max_per_img = model.test_cfg.rpn.max_per_img = 20
        stages = model.train_cfg.rcnn if isinstance(model.train_cfg.rcnn, list) else [model.train_cfg.rcnn]
        for stage in stages:
            stage.sampler.num = 32
    return model


def real_batch(with_mask):
    """Two images of COCO with their boxes, as a data loader gives them."""
    root = shared_path('data', 'coco-mini')
    dataset = DATASETS.build(
        dict(
            type='CocoDataset',
            data_root=f'{root}/',
            ann_file='annotations/instances_val2017.json',
            data_prefix=dict(img='val2017/'),
            filter_cfg=dict(filter_empty_gt=True),
            indices=2,
            pipeline=[
                dict(type='LoadImageFromFile'),
                dict(type='LoadAnnotations', with_bbox=True, with_mask=with_mask),
                dict(type='Resize', scale=(SIDE, SIDE), keep_ratio=False),
                dict(type='PackDetInputs'),
            ],
        )
    )
    samples = [dataset[i] for i in range(2)]
    return {key: [sample[key] for sample in samples] for key in ('inputs', 'data_samples')}


@config
def test_takes_a_step_and_predicts(path, monkeypatch):
    cfg = Config.fromfile(path)
    torch.manual_seed(0)
    model = MODELS.build(small(cfg))
    model.init_weights()
    model.train()
    operators = record_operators(monkeypatch)
    with_mask = 'mask_head' in cfg.model.get('roi_head', {})
    data = model.data_preprocessor(real_batch(with_mask), training=True)
    losses = model.loss(data['inputs'], data['data_samples'])
    loss, parts = model.parse_losses(losses)
    assert all(torch.isfinite(torch.as_tensor(part)).all() for part in parts.values())
    loss.backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()] == []
    model.eval()
    with torch.no_grad():
        results = model.test_step(real_batch(with_mask))
    for result in results:
        found = result.pred_instances
        assert len(found) and torch.isfinite(found.bboxes).all() and (found.labels < 80).all()
    if not has_compiled_ops():
        assert operators == set(re.findall(r'`(\w+)`', row_of(path)[4]))


def sizes(model):
    """As the README prints them: million parameters, and thousand million multiply-adds at 320x320 without RoI head."""
    cost = count_complexity(model, (320, 320))
    macs = sum(layer.macs for layer in cost.layers if not layer.name.startswith('roi_head'))
    return f'{cost.params / 1e6:.3f}M, {macs / 1e9:.3f}G'


@config
def test_the_readme_states_the_sizes(path, tmp_path):
    text = path.read_text().replace("'../_base_", f"'{ROOT}/configs/_base_")
    for arch, cell in zip('sml', row_of(path)[1:4]):
        (tmp_path / 'c.py').write_text(text.replace('mixnet-s.py', f'mixnet-{arch}.py'))
        cfg = Config.fromfile(tmp_path / 'c.py')
        assert cfg.model.backbone.arch == arch
        if arch == 's':
            assert sizes(MODELS.build(small(cfg))) == cell
        else:
            with torch.device('meta'):  # nothing to initialise
                model = MODELS.build(small(cfg))
            assert f'{sum(p.numel() for p in model.parameters()) / 1e6:.3f}M' == cell.split(',')[0]


@pytest.mark.parametrize('arch', ['s', 'm', 'l', 'xl'])
def test_the_bases_state_the_backbones_channels(arch):
    base = Config.fromfile(ROOT / f'configs/_base_/backbones/mixnet-{arch}.py')
    for levels in ('c2c5', 'c3c5'):
        backbone = MODELS.build(base[f'mixnet_{levels}'])
        assert [*backbone.out_channels] == base[f'channels_{levels}']
        assert backbone.out_strides == {'c2c5': (4, 8, 16, 32), 'c3c5': (8, 16, 32)}[levels]


def record_operators(monkeypatch):
    """Names of mmcv's compiled operators that are called from here on."""
    called = set()
    extension = sys.modules.get('mmcv._ext')
    if extension is None or has_compiled_ops():
        return called

    def wrap(name, function):
        def recorded(*args, **kwargs):
            called.add(name.removesuffix('_forward').removesuffix('_backward'))
            return function(*args, **kwargs)

        return recorded

    for name in ('nms', 'roi_align_forward', 'roi_align_backward'):
        monkeypatch.setattr(extension, name, wrap(name, getattr(extension, name)))
    return called


def row_of(path):
    """The config's cells in the README: name, sizes of S, M and L, operators on a CPU and on a GPU."""
    (row,) = (line for line in (FOLDER / 'README.md').read_text().splitlines() if f']({path.name})' in line)
    return [cell.strip() for cell in row.split('|')[1:-1]]


@config
def test_the_readme_states_what_a_gpu_needs_besides(path):
    text = str(Config.fromfile(path).model)
    expected = {'sigmoid_focal_loss'} if "'FocalLoss'" in text else set()
    if 'DeformableDETR' in text:
        expected.add('ms_deform_attn')
    assert set(re.findall(r'`(\w+)`', row_of(path)[5])) == expected
