import pytest
import torch
from helpers import import_timm
from parity import require_native

from mixdet.benchmark import mixconv
from mixdet.errors import UserError
from mixdet.layers import MixConv2d, implementations

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


def test_measures_every_form_and_reports_them(tmp_path):
    require_native()
    results = [mixconv.measure(CASE, mixconv.FORMS, 0.0)]
    assert set(results[0].forward) == set(results[0].training) == set(mixconv.FORMS)
    assert mixconv.ratios(results, mixconv.BASELINE, 'forward') == [1.0]
    page = mixconv.markdown(results)
    assert '24@10 k357 s2 b1' in page and torch.__version__ in page
    pytest.importorskip('matplotlib')
    mixconv.plot(results, tmp_path / 'mixconv.png')
    assert (tmp_path / 'mixconv.png').read_bytes().startswith(b'\x89PNG')


def test_a_wrong_form_is_not_timed(monkeypatch):
    monkeypatch.setattr(implementations, 'padded', lambda layer, x: implementations.split(layer, x) * 1.001)
    with pytest.raises(UserError, match=r'padded is wrong by 1\.0e-03 .* 24@10 k357 s2 b1'):
        mixconv.measure(CASE, ['padded'], 0.0)
