import pytest
import torch
from helpers import tiny_detector
from torch import nn

from mixdet.benchmark import networks, peers
from mixdet.benchmark.timing import Timing

pytestmark = pytest.mark.slow


def test_time_and_memory_of_every_peer(tmp_path):
    model = tiny_detector(kernel_sizes=(3, 5))
    compared = [
        peers.eager_peer('ours', model, True, same_network=True),
        peers.fused_peer('ours', model, same_network=True),
        peers.split_peer('ours', model),
    ]
    timings, memory = networks.measure_networks(compared, (64, 64), (1,), train_batch=2, seconds=0.0)
    names = {work: list(results) for work, results in timings.items()}
    assert names == {
        'inference, batch 1': ['ours', 'ours, fused', 'ours, split NCHW'],
        'training step, batch 2': ['ours', 'ours, split NCHW'],
    }
    assert {work: list(results) for work, results in memory.items()} == names
    assert 0 < memory['inference, batch 1']['ours, fused'] < memory['inference, batch 1']['ours']
    assert memory['training step, batch 2']['ours'] > memory['inference, batch 1']['ours']


def test_images_reach_the_network_in_its_memory_format(monkeypatch):
    monkeypatch.setattr(networks, 'peak_memory', lambda work: 3 * 2**19)
    seen = []

    def run(x):
        assert not torch.is_grad_enabled()
        seen.append((tuple(x.shape), x.is_contiguous(memory_format=torch.channels_last)))

    model = nn.Conv2d(3, 4, 1).train()
    compared = [
        peers.Peer('channels_last', run, model, True, False),
        peers.Peer('NCHW', run, None, False, False),
    ]
    timings, memory = networks.measure_networks(compared, (8, 10), (2,), train_batch=0, seconds=0.0)
    assert memory == {'inference, batch 2': {'channels_last': 1.5, 'NCHW': 1.5}}
    assert list(timings) == ['inference, batch 2'] and not model.training
    assert set(seen) == {((2, 3, 8, 10), True), ((2, 3, 8, 10), False)}


def test_memory_is_not_counted_outside_pytorch():
    network = object.__new__(peers.OnnxNetwork)
    network.sessions = {torch.Size((1, 3, 4, 4)): type('Session', (), dict(run=lambda *_: []))}
    compared = [peers.Peer('ONNX Runtime', network, None, False, False)]
    timings, memory = networks.measure_networks(compared, (4, 4), (1,), train_batch=8, seconds=0.0)
    assert timings['inference, batch 1'].keys() == {'ONNX Runtime'} and memory['inference, batch 1'] == {}
    assert timings['training step, batch 8'] == {}


@pytest.mark.parametrize('part', ['detector', 'backbone'])
def test_a_training_step_trains(part):
    model = tiny_detector(frozen_stages=0)
    model = model if part == 'detector' else model.backbone
    before = {name: value.clone() for name, value in model.eval().named_parameters()}
    networks.training_step(model, True, 2, (64, 64))()
    assert model.training
    after = dict(model.named_parameters())
    changed = {name for name, value in before.items() if not torch.equal(value, after[name])}
    trained = {name for name in before if after[name].requires_grad}
    assert changed <= trained < set(before)
    assert len(changed) > len(trained) / 2  # not all: some gradients are too small for the rate of 1e-4
    assert all(value.grad is None for value in after.values())


def test_a_batch_has_boxes_inside_its_images():
    batch = networks.noise_batch(3, (40, 80), num_classes=2)
    assert batch['inputs'].shape == (3, 3, 40, 80)
    for sample in batch['data_samples']:
        boxes, labels = sample.gt_instances.bboxes, sample.gt_instances.labels
        assert boxes.shape == (4, 4) and ((boxes[:, 2:] - boxes[:, :2]) >= torch.tensor([16, 8])).all()
        assert boxes.min() >= 0 and (boxes[:, 2] <= 80).all() and (boxes[:, 3] <= 40).all()
        assert set(labels.tolist()) <= {0, 1} and sample.img_shape == (40, 80)
    assert len({int(label) for sample in batch['data_samples'] for label in sample.gt_instances.labels}) == 2


TIMINGS = {
    'inference, batch 1': {
        'ours': Timing(wall=5.0, low=4.0, high=7.0, cpu=8.0),
        'theirs': Timing(wall=10.0, low=9.0, high=11.0, cpu=32.0),
    }
}


def test_table_of_networks():
    page = networks.networks_markdown(TIMINGS, {'inference, batch 1': {'ours': 12.3}}, {'ours': 1e-6}, 'theirs')
    lines = page.splitlines()
    assert lines[2] == '| | | ms | over theirs | CPU time over it | memory, MiB |'
    assert lines[4:6] == [
        '| inference, batch 1 | ours | 5.0 [4.0, 7.0] | 0.50 | 0.25 | 12 |',
        '| inference, batch 1 | theirs | 10.0 [9.0, 11.0] | 1.00 | 1.00 | - |',
    ]
    assert lines[7].endswith('over the largest value: ours 1.0e-06.')
    assert len(networks.networks_markdown(TIMINGS, {'inference, batch 1': {}}, {}, 'ours').splitlines()) == 6


def test_plot_of_networks(tmp_path):
    networks.plot_networks(TIMINGS, tmp_path / 'speed.png')
    assert (tmp_path / 'speed.png').read_bytes().startswith(b'\x89PNG')
