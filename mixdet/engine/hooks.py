"""Hooks for any MMDetection config."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Optional

import cv2
import mmcv
import numpy as np
import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mixdet.engine.atomic import atomic_path
from mixdet.engine.drawing import literal_names
from mixdet.errors import check_fraction
from mixdet.layers import set_mixconv_impl
from mixdet.layers.implementations import check_impl
from mixdet.registry import HOOKS
from mixdet.text import print


@HOOKS.register_module()
class ChannelsLastHook(Hook):
    """Runs the model in channels-last memory format.

    On a CPU, depthwise convolutions larger than 3x3 have a fast weight gradient only in this format, so that networks
    with mixed kernels train markedly faster.
    """

    def before_run(self, runner: Runner) -> None:
        """Convert the weights; activations follow them."""
        runner.model.to(memory_format=torch.channels_last)


@HOOKS.register_module()
class MixConvImplHook(Hook):
    """Sets the implementation of a detector's mixed convolutions, see ``mixdet.layers.implementations``.

    Args:
        impl: 'auto', 'split', 'padded', 'native' or 'triton'.
    """

    def __init__(self, impl: str) -> None:
        self.impl = check_impl(impl)

    def before_run(self, runner: Runner) -> None:
        """Set it in every ``MixConv2d``."""
        set_mixconv_impl(runner.model, self.impl)


@HOOKS.register_module()
class PredictionGridHook(Hook):
    """After the last validation, or a test, draws ground truth beside predictions into ``predictions.jpg``.

    Args:
        num_images: how many images of the set to draw, from the first.
        columns: images per row.
        score_thr: lowest score of a box that is drawn.

    Raises:
        ValueError: if ``score_thr`` is not from 0 to 1.
    """

    def __init__(self, num_images: int = 8, columns: int = 2, score_thr: float = 0.4) -> None:
        self.num_images = num_images
        self.columns = columns
        self.score_thr = check_fraction('score_thr', score_thr)
        self._samples: list = []

    def before_val_epoch(self, runner: Runner) -> None:
        """Forget the images of the previous validation."""
        self._samples = []

    before_test_epoch = before_val_epoch

    def after_val_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Sequence = ()) -> None:
        """Keep the first images."""
        self._samples += outputs[: self.num_images - len(self._samples)]

    after_test_iter = after_val_iter

    def after_val_epoch(self, runner: Runner, metrics: Optional[dict] = None) -> None:
        """Draw if the training has reached its end."""
        if runner.epoch >= runner.max_epochs or runner.iter >= runner.max_iters:
            self._draw(runner)

    def after_test_epoch(self, runner: Runner, metrics: Optional[dict] = None) -> None:
        """Draw."""
        self._draw(runner)

    def _draw(self, runner: Runner) -> None:
        if runner.rank != 0 or not self._samples:
            return
        tiles = []
        for sample in self._samples:
            image = mmcv.imread(sample.img_path, channel_order='rgb')
            with literal_names(runner.visualizer) as visualizer:
                visualizer.add_datasample(
                    'prediction', image, sample, draw_gt=True, draw_pred=True, pred_score_thr=self.score_thr, show=False
                )
                tiles.append(np.pad(visualizer.get_image(), ((4, 4), (4, 4), (0, 0)), constant_values=255))
        height, width = (max(tile.shape[axis] for tile in tiles) for axis in (0, 1))
        rows = -(-len(tiles) // self.columns)
        grid = np.full((rows * height, self.columns * width, 3), 255, np.uint8)
        for i, tile in enumerate(tiles):
            top, left = i // self.columns * height, i % self.columns * width
            grid[top : top + tile.shape[0], left : left + tile.shape[1]] = tile
        out_file = Path(runner.work_dir) / 'predictions.jpg'
        _, content = cv2.imencode('.jpg', np.ascontiguousarray(grid[..., ::-1]))
        try:
            with atomic_path(out_file) as partial:
                partial.write_bytes(content.tobytes())
        except OSError as error:  # it is no reason to end a training
            runner.logger.warning(f'{out_file} was not written: {error.strerror or error}')
            return
        print(f'Ground truth (left) and predictions (right) of {len(tiles)} images: {out_file}')
