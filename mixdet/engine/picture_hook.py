"""Pictures of a test's predictions, in files or a window."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Optional

import mmcv
import numpy as np
from mmdet.structures import DetDataSample
from mmengine.dist import is_main_process
from mmengine.fileio import get
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmengine.visualization import Visualizer

from mixdet.engine.drawing import draw_instances, literal_names
from mixdet.engine.outputs import OutputFolder, common_folder, relative_path
from mixdet.errors import UserError, check_fraction
from mixdet.registry import HOOKS
from mixdet.text import print

OTHER_PREDICTIONS = ('pred_panoptic_seg', 'pred_sem_seg')  # which MMDetection's visualizer draws


@HOOKS.register_module()
class PictureHook(Hook):
    """Draws the detections of every image of a test.

    Unlike MMDetection's ``DetVisualizationHook`` it keeps the folders of the images, so that no picture replaces
    another of its name, and says where they are.

    Args:
        out_dir: folder to write to; a relative one lies in the folder of this run, ``<work_dir>/<time>``. None writes
            nothing.
        score_thr: lowest score that is drawn.
        show: show each in a window.
        wait_time: seconds between windows; 0 waits for a key.

    Raises:
        ValueError: if ``score_thr`` is not from 0 to 1.
    """

    def __init__(
        self, out_dir: Optional[str] = None, score_thr: float = 0.3, show: bool = False, wait_time: float = 2.0
    ) -> None:
        self.out_dir = out_dir
        self.score_thr = check_fraction('score_thr', score_thr)
        self.show = show
        self.wait_time = wait_time
        self.count = 0

    def before_test(self, runner: Runner) -> None:
        """Find the folder that all images lie in."""
        dataset = runner.test_dataloader.dataset
        self.classes = tuple((getattr(dataset, 'metainfo', None) or {}).get('classes', ()))
        self.out = OutputFolder(Path(runner.work_dir, runner.timestamp, self.out_dir)) if self.out_dir else None
        paths = []
        if self.out and hasattr(dataset, 'get_data_info'):
            paths = [dataset.get_data_info(index).get('img_path') for index in range(len(dataset))]
        self.root = common_folder(Path(path) for path in paths) if paths and all(paths) else None

    def after_test_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Sequence[DetDataSample] = ()
    ) -> None:
        """Draw."""
        for sample in outputs:
            image = mmcv.imfrombytes(get(sample.img_path))
            if image is None:
                raise UserError(f'{sample.img_path} cannot be decoded as an image')
            picture = self._draw(runner.visualizer, np.ascontiguousarray(image[..., ::-1]), sample)
            if self.out is not None:
                relative = relative_path(Path(sample.img_path), self.root)
                self.out.write_image(relative, np.ascontiguousarray(picture[..., ::-1]))
                self.count += 1
            if self.show:
                runner.visualizer.show(picture, win_name=Path(sample.img_path).name, wait_time=self.wait_time)

    def after_test_epoch(self, runner: Runner, metrics: Optional[dict] = None) -> None:
        """Say where the pictures are."""
        if self.out is not None and is_main_process():
            more = ' of this process' if runner.world_size > 1 else ''
            print(f'Pictures: {self.out.folder} ({self.count}{more})', flush=True)

    def _draw(self, visualizer: Visualizer, image: np.ndarray, sample: DetDataSample) -> np.ndarray:
        if any(name in sample for name in OTHER_PREDICTIONS):
            with literal_names(visualizer):
                visualizer.add_datasample('', image, sample, draw_gt=False, pred_score_thr=self.score_thr, show=False)
                return visualizer.get_image()
        return draw_instances(image, sample.pred_instances, self.classes, self.score_thr)
