import pytest
import torch
from helpers import tiny_detector
from mmengine.logging import MMLogger

from mixdet.engine.checkpoint import check_fits, check_pretrained
from mixdet.engine.expectations import warn_of_differences


@pytest.fixture
def warnings(monkeypatch):
    """The warnings that are logged."""
    found = []
    monkeypatch.setattr(MMLogger, 'warning', lambda self, message: found.append(message))
    return found


TF = dict(padding='same', eps=1e-3, mean=[127.5] * 3, std=[127.5] * 3, bgr_to_rgb=True)


def test_every_key_that_differs_is_named_in_one_line(warnings):
    model = tiny_detector(padding='same')  # the neck is symmetric
    checkpoint = dict(state_dict=model.state_dict(), meta=dict(expects=TF))
    check_fits(checkpoint, model, 'a.pth')
    (message,) = warnings
    assert message == (
        "a.pth: these weights expect model.neck.padding='same' (the config has 'symmetric'); set it so in the config, "
        'or they compute something else than they were trained for'
    )
    warnings.clear()
    model.data_preprocessor.mean[0] = 123.675
    model.data_preprocessor._channel_conversion = False
    for module in model.bbox_head.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eps = 1e-5
    warn_of_differences(checkpoint, model, 'a.pth')
    (message,) = warnings
    for part in (
        "model.neck.padding='same' (the config has 'symmetric')",
        'model.bbox_head.norm_cfg.eps=0.001 (the config has 1e-05)',
        'model.data_preprocessor.mean=[127.5, 127.5, 127.5] (the config has [123.675, 127.5, 127.5])',
        'model.data_preprocessor.bgr_to_rgb=True (the config has False)',
    ):
        assert part in message
    assert 'std' not in message and 'backbone' not in message


@pytest.mark.parametrize('meta', [None, 'text', {}, dict(expects='{broken'), dict(expects=3)])
def test_other_checkpoints_expect_nothing(meta, warnings):
    model = tiny_detector()
    warn_of_differences(dict(state_dict=model.state_dict(), meta=meta), model, 'a.pth')
    warn_of_differences(model.state_dict(), model, 'a.pth')
    assert not warnings


def test_a_backbones_file_is_compared_with_the_backbone_alone(tmp_path, warnings):
    model = tiny_detector()
    expects = dict(TF, padding='symmetric', eps=1e-5)
    path = str(tmp_path / 'a.pth')
    torch.save(dict(state_dict=model.backbone.state_dict(), meta=dict(expects=expects)), path)
    model.backbone.init_cfg = dict(type='Pretrained', checkpoint=path)
    check_pretrained(model)
    (message,) = warnings
    assert f'{path}: these weights expect model.backbone.norm_cfg.eps=1e-05 (the config has 0.001);' in message
