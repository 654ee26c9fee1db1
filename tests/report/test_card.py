import subprocess
from types import SimpleNamespace

import pytest
import torch
from helpers import ROOT, tiny_detector
from mmengine.config import Config
from torch import nn

import mixdet
from mixdet.benchmark.complexity import count_complexity
from mixdet.report import card


@pytest.mark.parametrize(
    ('name', 'size'),
    [
        ('demo/ssdlite_mixnet-s_1xb8-12e_demo', (160, 160)),
        ('ssdlite_mobilenetv2/ssdlite_mobilenetv2-baseline3x3-tf-300_coco', (300, 300)),
    ],
)
def test_input_size_of_our_configs(name, size):
    assert card.input_size(Config.fromfile(ROOT / f'configs/{name}.py')) == size


def test_input_size_through_wrappers_and_without():
    pipeline = [dict(type='LoadImageFromFile'), dict(type='mmdet.Resize', scale=(1333, 800), keep_ratio=True)]
    loader = dict(dataset=dict(type='RepeatDataset', dataset=dict(pipeline=pipeline)))
    assert card.input_size(Config(dict(val_dataloader=loader))) == (800, 1333)
    assert card.input_size(Config(dict())) == (320, 320)


def test_costs_leave_the_model_as_it_was():
    model = tiny_detector().train()
    model.backbone.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    costs = card._costs(model, (96, 96))
    assert costs['macs'] == count_complexity(model, (96, 96)).macs and costs['latency_rounds'] >= 5
    low, high = costs['latency_quartiles_ms']
    assert 0 < low <= costs['latency_ms'] <= high and costs['latency_cpu_ms'] > 0
    assert model.training and not model.backbone.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_network_that_cannot_be_run_is_reported():
    costs = card._costs(nn.Linear(3, 4), (96, 96))
    assert costs['params'] == 16 and 'macs' not in costs and costs['not_measured'].startswith('RuntimeError: ')


def test_revision_is_of_mixdets_own_checkout(tmp_path, monkeypatch):
    head = subprocess.run(['git', 'rev-parse', 'HEAD'], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    if head:
        assert head.startswith(card.git_revision().rstrip('+')) and card.git_revision()
    subprocess.run(['git', 'init', '-q', tmp_path], check=True)
    package = tmp_path / 'site/mixdet'
    package.mkdir(parents=True)
    (package / '__init__.py').write_text('')
    monkeypatch.setattr(card, 'mixdet', SimpleNamespace(__file__=str(package / '__init__.py'), __version__='1'))
    assert card.git_revision() == ''
    assert card._versions()['mixdet'] == '1' and card._versions()['torch'] == torch.__version__


def test_paths_are_short_where_they_can_be(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert card.shown_path(tmp_path / 'a/b') == card.shown_path('a/b') == 'a/b'
    assert card.shown_path('/elsewhere/c') == '/elsewhere/c'
    assert mixdet.__version__ in card._versions().values()


def test_annotation_files_of_wrapped_data_sets_are_all_named():
    parts = [dict(data_root='a/', ann_file='x.json'), dict(type='RepeatDataset', dataset=dict(ann_file='b/y.json'))]
    loader = dict(dataset=dict(type='ConcatDataset', datasets=parts))
    assert card._data(range(7), loader) == dict(images=7, annotations='a/x.json, b/y.json')


def test_a_latency_says_how_far_it_can_be_trusted():
    calm = dict(latency_ms=33.0, latency_quartiles_ms=[32.5, 34.0], latency_rounds=30, latency_cpu_ms=32.9)
    text = '33.0 ms (quartiles 32.5 and 34.0, 30 runs), CPU time 32.9 ms'
    assert card.describe_latency(calm) == text
    warning = ', unsteady: the machine was busy, do not compare'
    assert card.describe_latency(dict(calm, latency_quartiles_ms=[32.5, 49.0])).endswith(warning)
    assert card.describe_latency(dict(calm, latency_ms=42.0)).endswith(warning)  # it waited for the processor
    assert not card.describe_latency(dict(calm, latency_cpu_ms=64.0)).endswith(warning)  # two threads
    assert card.describe_latency(dict(latency_ms=33.0)) == '33.0 ms' and card.describe_latency({}) == ''  # mixdet 0.2


def test_losses_are_named_with_class_and_weight():
    assert card._losses(tiny_detector()) == {
        'bbox_head.loss_cls': 'CrossEntropyLoss x 1.0', 'bbox_head.loss_bbox': 'SmoothL1Loss x 1.0'
    }  # fmt: skip
