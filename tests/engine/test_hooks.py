from types import SimpleNamespace
from unittest.mock import Mock

import mmcv
import numpy as np
import pytest
import torch
from helpers import tiny_detector

from mixdet.engine import ChannelsLastHook, MixConvImplHook, PredictionGridHook
from mixdet.layers import MixConv2d


def test_channels_last_reaches_weights_and_features():
    model = tiny_detector()
    expected = model.eval().backbone(torch.ones(1, 3, 64, 64))[0]
    ChannelsLastHook().before_run(SimpleNamespace(model=model))
    features = model.backbone(torch.ones(1, 3, 64, 64))[0]
    assert features.is_contiguous(memory_format=torch.channels_last) and not features.is_contiguous()
    torch.testing.assert_close(features, expected, rtol=1e-4, atol=1e-4)


def test_mixconv_impl_reaches_every_layer():
    model = tiny_detector()
    MixConvImplHook('padded').before_run(SimpleNamespace(model=model))
    assert {module.impl for module in model.modules() if isinstance(module, MixConv2d)} == {'padded'}
    with pytest.raises(ValueError, match="impl='fast'"):
        MixConvImplHook('fast')


class Canvas:
    """A visualizer whose picture of an image is (20, 30) px of the image's number."""

    def add_datasample(self, name, image, sample, **options):
        assert options == dict(draw_gt=True, draw_pred=True, pred_score_thr=0.4, show=False)
        self.number = sample.number

    def get_image(self):
        return np.full((20, 30, 3), self.number, np.uint8)


@pytest.fixture
def finished(tmp_path):
    """Validates 6 images in batches of 2 at the end of a training; returns the written picture."""

    def run(hook, **options):
        mmcv.imwrite(np.zeros((20, 30, 3), np.uint8), str(tmp_path / 'a.jpg'))
        state = dict(rank=0, work_dir=tmp_path, visualizer=Canvas(), epoch=3, max_epochs=3, iter=12, max_iters=12)
        runner = SimpleNamespace(**{**state, **options})
        samples = [SimpleNamespace(number=10 * number, img_path=str(tmp_path / 'a.jpg')) for number in range(1, 7)]
        for _ in range(2):  # the images of an earlier validation are forgotten
            hook.before_val_epoch(runner)
            for number in range(3):
                hook.after_val_iter(runner, number, outputs=samples[2 * number : 2 * number + 2])
        hook.after_val_epoch(runner, {})
        file = tmp_path / 'predictions.jpg'
        return mmcv.imread(str(file)) if file.exists() else None

    return run


def test_the_first_images_are_drawn_in_a_grid(finished, capsys):
    grid = finished(PredictionGridHook(num_images=5, columns=2))
    assert grid.shape == (3 * 28, 2 * 38, 3)  # 3 rows, each picture with a border of 4 px
    centers = [int(grid[row * 28 + 14, column * 38 + 19].mean().round()) for row in range(3) for column in range(2)]
    assert centers == pytest.approx([10, 20, 30, 40, 50, 255], abs=2)
    assert 'predictions (right) of 5 images' in capsys.readouterr().out


@pytest.mark.parametrize('options', [dict(epoch=2, iter=8), dict(rank=1)])
def test_nothing_is_drawn_before_the_end_nor_by_other_processes(finished, options):
    assert finished(PredictionGridHook(), **options) is None


def test_an_iteration_based_training_has_an_end_too(finished):
    assert finished(PredictionGridHook(), epoch=0, max_epochs=1) is not None


def test_a_full_disk_does_not_end_a_training(finished, monkeypatch):
    logger = Mock()
    full = Mock(side_effect=OSError(28, 'No space left on device'))
    monkeypatch.setattr('mixdet.engine.hooks.atomic_path', full)
    assert finished(PredictionGridHook(), logger=logger) is None
    assert 'predictions.jpg was not written: No space left on device' in logger.warning.call_args.args[0]
