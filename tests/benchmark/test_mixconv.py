import pytest
import torch
from helpers import import_timm

from mixdet.benchmark import mixconv
from mixdet.errors import UserError
from mixdet.layers import MixConv2d, implementations, native

CASE = mixconv.Case(24, 10, 'k357', 2, 1)


def test_the_paper_shapes():
    assert len(mixconv.cases()) == 7 * 3 * 2 * 2
    assert str(mixconv.cases()[0]) == '144@80 k35 s1 b1'


def test_baseline_is_what_timm_computes():
    timm = import_timm()
    peer = timm.layers.MixedConv2d(24, 24, [3, 5, 7], stride=2, depthwise=True)
    layer = MixConv2d(24, 24, (3, 5, 7), stride=2, impl='split')
    layer.load_state_dict({f'convs.{key}': value for key, value in peer.state_dict().items()})
    x = torch.randn(2, 24, 11, 10)
    assert torch.equal(layer(x), peer(x))


def test_measures_and_reports_every_implementation(tmp_path):
    if not native.load():
        pytest.skip('no C++ compiler')
    results = [mixconv.time_mixconv(CASE, mixconv.CPU_IMPLEMENTATIONS, 0.0)]
    assert set(results[0].forward) == set(results[0].training) == set(mixconv.CPU_IMPLEMENTATIONS)
    assert mixconv.ratios(results, mixconv.BASELINE, 'forward') == [1.0]
    page = mixconv.mixconv_markdown(results)
    assert '24@10 k357 s2 b1' in page and torch.__version__ in page
    pytest.importorskip('matplotlib')
    mixconv.plot_mixconv(results, tmp_path / 'mixconv.png')
    assert (tmp_path / 'mixconv.png').read_bytes().startswith(b'\x89PNG')


def test_a_wrong_implementation_is_not_timed(monkeypatch):
    monkeypatch.setattr(implementations, 'padded', lambda layer, x: implementations.split(layer, x) * 1.001)
    with pytest.raises(UserError, match=r'padded is wrong by 1\.0e-03 .* 24@10 k357 s2 b1'):
        mixconv.time_mixconv(CASE, {'padded': mixconv.Implementation('padded', True)}, 0.0)
