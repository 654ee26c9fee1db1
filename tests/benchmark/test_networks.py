from helpers import tiny_detector

from mixdet.benchmark import networks, peers


def test_time_and_memory_of_every_peer(tmp_path):
    model = tiny_detector(kernel_sizes=(3, 5))
    compared = [
        peers.eager_peer('ours', model, True, same_network=True),
        peers.fused_peer('ours', model, same_network=True),
        peers.split_peer('ours', model),
    ]
    timings, memory = networks.measure_networks(compared, (64, 64), (1,), train_batch=2, seconds=0.0)
    names = {part: list(results) for part, results in timings.items()}
    assert names == {
        'inference, batch 1': ['ours', 'ours, fused', 'ours, split NCHW'],
        'training step, batch 2': ['ours', 'ours, split NCHW'],
    }
    assert {part: list(results) for part, results in memory.items()} == names
    assert 0 < memory['inference, batch 1']['ours, fused'] < memory['inference, batch 1']['ours']
    assert memory['training step, batch 2']['ours'] > memory['inference, batch 1']['ours']
    page = networks.networks_markdown(timings, memory, {'ours': 1e-6}, 'ours, split NCHW')
    assert '| inference, batch 1 | ours, split NCHW |' in page and '| 1.00 | 1.00 |' in page and 'ours 1.0e-06' in page
    networks.plot_networks(timings, tmp_path / 'speed.png')
    assert (tmp_path / 'speed.png').read_bytes().startswith(b'\x89PNG')


def test_a_backbone_is_trained_on_its_features():
    backbone = tiny_detector().backbone
    timings, _ = networks.measure_networks(
        [peers.eager_peer('backbone', backbone, False)], (64, 64), (), train_batch=2, seconds=0.0
    )
    assert list(timings) == ['training step, batch 2']
