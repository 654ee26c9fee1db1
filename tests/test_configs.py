"""Every config builds, takes a step and predicts; the sizes are the paper's."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import ROOT, detector_batch
from mmengine.config import Config
from mmengine.dataset import Compose

from mixdet.benchmark.complexity import count_complexity
from mixdet.datasets.wrappers import unwrap_dataset
from mixdet.registry import MODELS, TRANSFORMS

pytestmark = pytest.mark.slow

CONFIGS = sorted(path for path in (ROOT / 'configs').glob('*/*.py') if path.parent.name != '_base_')
# million parameters and thousand million multiply-adds at 320x320, 80 classes and background: all of torch's
# parameters, all convolutions
SIZES = {
    'mobilenetv1-baseline3x3': (5.1007, 1.3092),
    'mobilenetv1-depthwise5x5': (5.1800, 1.3722),
    'mobilenetv1-mixconv35': (5.1403, 1.3407),
    'mobilenetv1-depthwise7x7': (5.2991, 1.4669),
    'mobilenetv1-mixconv357': (5.1928, 1.3813),
    'mobilenetv2-baseline3x3': (4.3370, 0.7888),
    'mobilenetv2-depthwise5x5': (4.4512, 0.8640),
    'mobilenetv2-mixconv35': (4.3941, 0.8264),
    'mobilenetv2-depthwise7x7': (4.6225, 0.9767),
    'mobilenetv2-mixconv357': (4.4702, 0.8756),
    'mixnet-s': (4.952, 0.698),
    'mixnet-m': (5.832, 0.901),
    'mixnet-l': (8.213, 1.368),
}
config = pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
ssdlite_config = pytest.mark.parametrize(  # tests/test_mixnet_configs.py takes the others
    'path', [path for path in CONFIGS if path.parent.name != 'mixnet'], ids=lambda path: path.stem
)


def load(path: Path) -> Config:
    return Config.fromfile(path)


def test_there_are_configs():
    assert len(CONFIGS) >= 16


@ssdlite_config
def test_training_images_are_normalised_on_the_device(path):
    cfg = load(path)
    train, val = (unwrap_dataset(cfg[f'{part}_dataloader'].dataset).pipeline for part in ('train', 'val'))
    image = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    instances = [dict(bbox=[10, 10, 60, 50], bbox_label=0, ignore_flag=0)]
    with TRANSFORMS.switch_scope_and_registry('mmdet'):
        sample = Compose(train[1:])(dict(img=image, img_shape=(60, 80), instances=instances))
    width, height = val[1].scale
    assert sample['inputs'].shape == (3, height, width) and sample['inputs'].max() > 100  # levels as yet
    assert sample['data_samples'].gt_instances.bboxes.shape == (1, 4)


@ssdlite_config
def test_builds_takes_a_step_and_predicts(path):
    cfg = load(path)
    torch.manual_seed(0)
    if cfg.model.backbone.init_cfg.type == 'Pretrained':
        assert cfg.model.backbone.pop('init_cfg').checkpoint.endswith(f'{path.stem.split("-in1k")[0][8:]}_in1k.pth')
    model = MODELS.build(cfg.model)
    model.init_weights()
    num_classes = cfg.model.bbox_head.num_classes
    size = (128, 160)
    data = model.data_preprocessor(detector_batch(size, num_classes=num_classes), training=True)
    losses = model.loss(data['inputs'], data['data_samples'])
    assert all(torch.isfinite(loss) for loss in losses.values())
    sum(losses.values()).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()] == []
    model.eval()
    with torch.no_grad():
        results = model.test_step(detector_batch(size, num_classes=num_classes))
    for result in results:
        found = result.pred_instances
        assert 0 < len(found) <= cfg.model.test_cfg.max_per_img
        assert found.labels.max() < num_classes and torch.isfinite(found.bboxes).all()


@pytest.mark.parametrize('name', SIZES)
def test_size_at_320(name):
    (path,) = (path for path in CONFIGS if path.stem.startswith(f'ssdlite_{name}_8xb'))
    params, macs = count_complexity(MODELS.build(load(path).model))[:2]
    digits = 4 if name.startswith('mobilenet') else 3  # as far as the reference is known
    assert (round(params / 1e6, digits), round(macs / 1e9, digits)) == SIZES[name]


@config
def test_is_a_whole_training_config(path):
    cfg = load(path)
    for part in ('train', 'val', 'test'):
        assert cfg[f'{part}_dataloader'].dataset and cfg[f'{part}_cfg'].type
    assert cfg.default_scope == 'mmdet' and cfg.custom_imports.imports == ['mixdet']
    assert cfg.optim_wrapper.optimizer and cfg.param_scheduler and cfg.val_evaluator.ann_file
    assert cfg.default_hooks.checkpoint.save_best == 'coco/bbox_mAP'


@config
def test_epochs_and_batch_size_are_those_of_the_name(path):
    match = re.search(r'_(\d+)xb(\d+)-(?:ms-)?(\d+)e_', path.name)
    if not match:
        assert path.parent.name == 'custom' or '-tf-' in path.name  # for evaluation of TensorFlow's weights
        return
    gpus, batch, epochs = map(int, match.groups())
    cfg = load(path)
    assert cfg.train_dataloader.batch_size == batch
    assert cfg.train_cfg.max_epochs * cfg.train_dataloader.dataset.get('times', 1) == epochs
    assert cfg.get('auto_scale_lr', {}).get('base_batch_size', gpus * batch) == gpus * batch


@pytest.mark.parametrize('version', [1, 2])
@pytest.mark.parametrize('start', ['', '-in1k'])
def test_table_1_rows_differ_only_in_the_backbones_kernels(version, start):
    rows = [load(path) for path in CONFIGS if re.match(rf'ssdlite_mobilenetv{version}-\w+{start}_8xb', path.name)]
    assert len(rows) == 5
    texts = set()
    for cfg in rows:
        cfg.model.backbone.pop('kernel_sizes')
        if start:
            cfg.model.backbone.init_cfg.pop('checkpoint')
        texts.add(cfg.pretty_text)
    assert len(texts) == 1


def test_model_index_lists_every_config():
    import yaml

    index = yaml.safe_load((ROOT / 'model-index.yml').read_text())
    listed = {}
    for metafile in index['Import']:
        models = yaml.safe_load((ROOT / metafile).read_text())['Models']
        listed.update({model['Config']: model['Name'] for model in models})
    expected = {str(path.relative_to(ROOT)): path.stem for path in CONFIGS}
    assert listed == expected


@pytest.mark.parametrize('path', sorted((ROOT / 'configs').glob('*/metafile.yml')), ids=lambda path: path.parent.name)
def test_metafiles_have_openmmlabs_form(path):
    import yaml

    index = yaml.safe_load((ROOT / 'model-index.yml').read_text())
    assert str(path.relative_to(ROOT)) in index['Import']
    content = yaml.safe_load(path.read_text())
    assert set(content) == {'Collections', 'Models'}
    for collection in content['Collections']:
        assert collection['Name'] and collection['Paper']['Title'] and collection['Paper']['URL'].startswith('https://')
    names = {collection['Name'] for collection in content['Collections']}
    models = content['Models']
    assert {model['In Collection'] for model in models} == names
    assert len({model['Name'] for model in models}) == len(models) > 0
    for model in models:
        assert (ROOT / model['Config']).parent == path.parent and (ROOT / model['Config']).is_file()
        for result in model.get('Results', ()):  # a result is one of weights that can be had
            assert result['Task'] == 'Object Detection' and result['Dataset'] and result['Metrics'] and model['Weights']


def test_mixdet_bases_resolve(tmp_path):
    path = tmp_path / 'mine.py'
    path.write_text(
        "_base_ = 'mixdet::ssdlite_mixnet/ssdlite_mixnet-s_8xb24-600e_coco.py'\nmodel = dict(backbone=dict(arch='m'))\n"
    )
    cfg = load(path)
    assert cfg.model.backbone.type == 'mixdet.MixNet' and cfg.model.backbone.arch == 'm'


@pytest.mark.parametrize('name', [*SIZES, 'mixnet-xl'])
def test_readmes_state_the_sizes(name):
    (path,) = (path for path in CONFIGS if path.stem.startswith(f'ssdlite_{name}_8xb'))
    params, macs = count_complexity(MODELS.build(load(path).model))[:2]
    readme = ROOT / f'configs/ssdlite_{name.split("-")[0]}/README.md'
    (row,) = (line for line in readme.read_text().splitlines() if line.startswith(f'| [{name}]('))
    link = re.search(r'\((.+?)\)', row)[1]
    assert (readme.parent / link).resolve() == path
    assert row.split('|')[2:4] == [f' {params / 1e6:.3f}M ', f' {macs / 1e9:.3f}G ']


def test_docs_state_the_backbones_channels():
    lines = (ROOT / 'docs/backbones.md').read_text().splitlines()
    rows = [[cell.strip(' `') for cell in line.split('|')[1:-1]] for line in lines if line.startswith('| `')]
    networks = [
        dict(type='mixdet.MobileNetV1'),
        dict(type='mixdet.MobileNetV2'),
        *(dict(type='mixdet.MixNet', arch=arch) for arch in ('s', 'm', 'l', 'xl')),
    ]
    for name, stride, *channels in rows:
        output = int(name) if name.isdigit() else name.strip("'")
        for network, expected in zip(networks, channels):
            if expected != '-':
                model = MODELS.build({**network, 'out_indices': (output,)})
                assert (model.out_channels, model.out_strides) == ((int(expected),), (int(stride),))
    assert len(rows) == 6
