"""A trained detector as a function on images."""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Optional, Union

import cv2
import numpy as np
import PIL.Image
import PIL.ImageOps
import torch
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.model import BaseModel
from mmengine.registry import init_default_scope

from mixdet.datasets.wrappers import unwrap_dataset
from mixdet.deploy.exported import ExportedDetector
from mixdet.deploy.formats import format_of
from mixdet.deploy.fusing import optimize_for_inference
from mixdet.deploy.images import read_image
from mixdet.engine.checkpoint import check_fits, read_checkpoint
from mixdet.engine.class_names import class_difference, named_classes, stored_classes, warn
from mixdet.engine.config import load_config
from mixdet.errors import UserError, check_fraction, first_line
from mixdet.registry import DATASETS, MODELS

Image = Union[str, Path, np.ndarray, PIL.Image.Image]
PIL_MODES = ('1', 'L', 'LA', 'P', 'RGB', 'RGBA', 'CMYK', 'YCbCr')  # of 8 bits


class Detection(NamedTuple):
    """One detected object.

    Attributes:
        name: its class.
        label: the index of its class.
        score: between 0 and 1.
        box: x1, y1, x2, y2 in px of the image, after any rotation that its EXIF data ask for.
    """

    name: str
    label: int
    score: float
    box: tuple[float, float, float, float]


class Detector:
    """A detector of any MMDetection config, ready to predict.

    ``Detector(config, checkpoint)('image.jpg')`` returns a list of ``Detection``, best first.

    Args:
        config: path or Config.
        checkpoint: path, also of a file exported by ``tools/export.py``, which its own runtime runs on as many threads
            as PyTorch uses, one image at a time.
        device: 'cpu', 'cuda', 'cuda:1' ...; for an exported file 'cpu'.
        score_thr: lowest score of the detections returned.
        fuse: on a CPU, predict with a fused copy of the network in channels_last, as ``tools/test.py`` does: faster,
            and the same up to rounding. False leaves ``model`` as it was trained, which an export
            starts from.
        agnostic_nms: of overlapping boxes keep the best, whatever their classes; not for an exported file.

    Attributes:
        model: the network, in evaluation mode; for an exported file an ``ExportedDetector``.
        cfg: its config.
        classes: the names of its classes.

    Raises:
        UserError: if the config or the checkpoint cannot be read or do not belong together, ``score_thr`` is not from
            0 to 1, or there is no NMS.
    """

    def __init__(
        self,
        config: Union[str, Path, Config],
        checkpoint: Union[str, Path],
        device: str = 'cpu',
        score_thr: float = 0.3,
        fuse: bool = True,
        agnostic_nms: bool = False,
    ) -> None:
        try:
            self.score_thr = check_fraction('score_thr', score_thr)
        except ValueError as error:
            raise UserError(str(error)) from error
        self.cfg = config if isinstance(config, Config) else load_config(str(config))
        init_default_scope(self.cfg.get('default_scope', 'mmdet'))
        if format_of(checkpoint):
            if agnostic_nms or device != 'cpu':
                given = 'agnostic NMS' if agnostic_nms else f'device {device}'
                raise UserError(f'{checkpoint}: {given} is not for an exported file, which has its NMS and its CPU')
            self.model: BaseModel = ExportedDetector(str(checkpoint), self.cfg.model.get('data_preprocessor'))
            stored = self.classes = self.model.dataset_meta['classes']
        else:
            weights = self._build(checkpoint, device, fuse, agnostic_nms)
            stored, self.classes = stored_classes(weights), class_names(self.cfg, weights)
        difference = class_difference(stored, _configured_classes(self.cfg), 'the config')
        if difference:
            kind = 'file' if format_of(checkpoint) else 'checkpoint'
            warn(f'{kind} {checkpoint}: {difference.text}; the names are those of the {kind}')
        self.model.dataset_meta = dict(classes=self.classes)
        self._pipeline = Compose(inference_transforms(self.cfg))

    def _build(self, checkpoint: Union[str, Path], device: str, fuse: bool, agnostic_nms: bool) -> dict:
        """Build the network and load the checkpoint, which is returned."""
        model_cfg = copy.deepcopy(self.cfg.model)
        if agnostic_nms and not _make_nms_agnostic(model_cfg):
            raise UserError('the model has no NMS that could be class-agnostic')
        weights = read_checkpoint(checkpoint)
        model = MODELS.build(model_cfg)
        check_fits(weights, model, checkpoint)
        model.load_state_dict(
            {key.removeprefix('module.'): value for key, value in weights.get('state_dict', weights).items()},
            strict=False,
        )
        try:
            model.to(device).eval()
        except (RuntimeError, AssertionError) as error:  # no such device; AssertionError from a torch without CUDA
            raise UserError(f'device {device}: {first_line(error)}') from error
        self.model = optimize_for_inference(model) if fuse else model
        return weights

    def __repr__(self) -> str:
        device = next((parameter.device for parameter in self.model.parameters()), 'cpu')
        shown = ', '.join(self.classes[:5]) + (', ...' if len(self.classes) > 5 else '')
        name = type(self.model).__name__
        return f'Detector({name} on {device}, {len(self.classes)} classes: {shown}; score_thr={self.score_thr})'

    def __call__(self, image: Image) -> list[Detection]:
        """Detections in one image: a file, a PIL image, or an array (H, W), (H, W, 3) or (H, W, 4), uint8 BGR."""
        return self.predict([image])[0]

    def predict(self, images: Sequence[Image]) -> list[list[Detection]]:
        """Detections in each of ``images``, as one batch."""
        return [self.detections(sample) for sample in self.predict_samples([to_array(image) for image in images])]

    def predict_samples(self, arrays: Sequence[np.ndarray]) -> list[DetDataSample]:
        """MMDetection's ``DetDataSample`` for each array (H, W, 3), uint8 BGR, as one batch."""
        batch = pseudo_collate([self._pipeline(dict(img=array, img_id=i)) for i, array in enumerate(arrays)])
        with torch.inference_mode():
            return self.model.test_step(batch)

    def preprocess(self, arrays: Sequence[np.ndarray]) -> torch.Tensor:
        """The network's input for arrays (H, W, 3), uint8 BGR: normalised images (N, 3, H, W)."""
        batch = pseudo_collate([self._pipeline(dict(img=array, img_id=i)) for i, array in enumerate(arrays)])
        return self.model.data_preprocessor(batch)['inputs']

    def detections(self, sample: DetDataSample) -> list[Detection]:
        """The detections in ``sample`` from the score threshold on, best first."""
        found = sample.pred_instances.cpu()
        found = found[found.scores >= self.score_thr]
        order = found.scores.argsort(descending=True, stable=True)
        return [
            Detection(self.classes[label], label, score, tuple(box))
            for label, score, box in zip(
                found.labels[order].tolist(), found.scores[order].tolist(), found.bboxes[order].tolist()
            )
        ]


def to_array(image: Image) -> np.ndarray:
    """``image`` as (H, W, 3) uint8 BGR. Raises UserError if it cannot be read or is an array of another kind."""
    if isinstance(image, PIL.Image.Image):
        if image.mode not in PIL_MODES:
            raise UserError(f'a PIL image must be of 8 bits per channel, not of mode {image.mode!r}: convert it to RGB')
        return np.ascontiguousarray(np.asarray(PIL.ImageOps.exif_transpose(image).convert('RGB'))[..., ::-1])
    if not isinstance(image, np.ndarray):
        return read_image(image)
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] not in (1, 3, 4)):
        raise UserError(f'an image array must be uint8 (H, W), (H, W, 3) or (H, W, 4), not {image.dtype} {image.shape}')
    if not image.size:
        raise UserError(f'an image array has no pixels: {image.shape}')
    if image.ndim == 2 or image.shape[2] == 1:
        return cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)
    return np.ascontiguousarray(image[..., :3])


def class_names(cfg: Config, checkpoint: Optional[dict] = None) -> tuple[str, ...]:
    """Names of the classes: from the checkpoint if MMEngine stored them there, else from the config's test set.

    Raises UserError if neither has them.
    """
    names = stored_classes(checkpoint or {}) or _configured_classes(cfg)
    if not names:
        raise UserError('neither the checkpoint nor test_dataloader.dataset.metainfo contains the class names')
    return names


def _configured_classes(cfg: Config) -> tuple[str, ...]:
    """Names of the classes of the config's test set; empty if it has none."""
    dataset = unwrap_dataset(cfg.get('test_dataloader', {}).get('dataset', {}))
    names = named_classes(dataset.get('metainfo'))
    if names or not dataset.get('type'):
        return names
    with DATASETS.switch_scope_and_registry('mmdet') as registry:
        dataset_class = registry.get(dataset['type']) if isinstance(dataset['type'], str) else dataset['type']
    return named_classes(getattr(dataset_class, 'METAINFO', None))


def _make_nms_agnostic(node: dict, inside: bool = False) -> bool:
    """Make every NMS in the ``test_cfg`` of a model's config class-agnostic; whether there is one."""
    found = False
    for name, value in node.items():
        if inside and name == 'nms' and isinstance(value, dict):
            value['class_agnostic'] = found = True
        elif isinstance(value, dict) and name != 'rpn':  # whose proposals have no classes
            found = _make_nms_agnostic(value, inside or name == 'test_cfg') or found
    return found


def inference_transforms(cfg: Config) -> list[dict]:
    """The config's test pipeline for an image in memory: without loading files and annotations.

    Raises UserError if there is no pipeline or it does not begin with loading an image.
    """
    dataset = unwrap_dataset(cfg.get('test_dataloader', {}).get('dataset', {}))
    transforms = [dict(transform) for transform in dataset.get('pipeline', [])]
    if not transforms or not str(transforms[0]['type']).endswith(('LoadImageFromFile', 'LoadCachedImage')):
        raise UserError('test_dataloader.dataset.pipeline: must begin with LoadImageFromFile')
    rest = [transform for transform in transforms[1:] if 'LoadAnnotations' not in str(transform['type'])]
    return [dict(type='mmdet.LoadImageFromNDArray'), *rest]
