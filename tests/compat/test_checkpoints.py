import functools
import os
import pickle

import numpy as np
import pytest
import torch
from helpers import needs_torch
from mmengine.logging import HistoryBuffer, MessageHub

import mixdet  # noqa: F401
from mixdet.compat.checkpoints import history_method, weights_only
from mixdet.errors import UserError

safe_loading = needs_torch('2.6')


def test_message_hub_survives_a_safe_load(tmp_path):
    hub = MessageHub('checkpoint-test')
    for value in (1.0, 2.0, 4.0):
        hub.update_scalar('train/loss', value)
    hub.update_info('seed', np.int64(3))
    hub.update_info('best', np.float64(0.5))
    torch.save(dict(message_hub=hub.state_dict(), array=np.arange(3, dtype=np.float32)), tmp_path / 'a.pth')
    loaded = torch.load(tmp_path / 'a.pth', weights_only=weights_only())
    history = loaded['message_hub']['log_scalars']['train/loss']
    assert isinstance(history, HistoryBuffer) and history.mean() == pytest.approx(7 / 3) and history.current() == 4
    assert loaded['message_hub']['runtime_info']['seed'] == 3 and loaded['array'].tolist() == [0, 1, 2]


class Attack:
    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


@safe_loading
@pytest.mark.parametrize(
    'attack',
    [
        Attack(os.system, 'touch hacked'),
        Attack(getattr, str, 'format'),
        Attack(getattr, HistoryBuffer, '__init__'),
        Attack(getattr, HistoryBuffer.mean, '__globals__'),
    ],
)
def test_hostile_files_are_refused(tmp_path, monkeypatch, attack):
    monkeypatch.chdir(tmp_path)
    torch.save(dict(state_dict={}, meta=attack), 'a.pth')
    with pytest.raises((pickle.UnpicklingError, ValueError)):
        torch.load('a.pth', weights_only=True)
    assert os.listdir() == ['a.pth']


def test_only_statistics_are_resolved():
    assert history_method(HistoryBuffer, 'mean') is HistoryBuffer.mean
    for owner, name in ((HistoryBuffer, 'update'), (os, 'system'), (str, 'mean')):
        with pytest.raises(ValueError, match='not allowed'):
            history_method(owner, name)


@safe_loading
def test_no_config_is_run_from_a_checkpoint(tmp_path, monkeypatch):
    from mmdet.apis import DetInferencer
    from mmengine.runner.checkpoint import _load_checkpoint

    monkeypatch.chdir(tmp_path)
    code = "open('hacked', 'w')"
    hub = dict(runtime_info=dict(cfg=code), log_scalars={}, resumed_keys={})
    torch.save(dict(state_dict={}, meta=dict(config=code, cfg=code, epoch=3), message_hub=hub), 'a.pth')
    assert _load_checkpoint('a.pth')['meta'] == dict(cfg=code, epoch=3)
    with pytest.raises(UserError, match='the config of a.pth would be run as Python code'):
        DetInferencer(weights='a.pth', device='cpu')
    assert os.listdir() == ['a.pth']


@safe_loading
def test_downloads_are_loaded_without_executing(monkeypatch):
    from mmengine.runner import checkpoint

    seen = {}
    monkeypatch.setattr(
        checkpoint, 'load_url', functools.partial(checkpoint.load_url.func, lambda *a, **k: seen.update(k))
    )
    checkpoint.load_from_http('http://example.com/a.pth')
    assert seen['weights_only'] is True


@safe_loading
def test_untrusted_weights_are_refused_in_one_line(tmp_path, monkeypatch):
    from mmengine.runner.checkpoint import load_checkpoint

    monkeypatch.chdir(tmp_path)
    torch.save(dict(state_dict=Attack(os.system, 'touch hacked')), 'a.pth')
    with pytest.raises(UserError, match='^checkpoint a.pth needs (posix|nt).system, which is code and not weights'):
        load_checkpoint(torch.nn.Linear(1, 1), 'a.pth')  # as init_cfg=dict(type='Pretrained') does
    assert os.listdir() == ['a.pth']
