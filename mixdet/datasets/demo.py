"""The built-in detection set: drawn on first use, nothing to download.

Textured shapes on less saturated textured backgrounds; several to an image, overlapping, from small to large in COCO's
sense. The classes differ in shape and, with some spread, in hue, so that a network learns them in minutes on a CPU. On
disk it is an ordinary COCO-format folder; boxes and areas are those of the visible part of an object, as in COCO.
"""

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any, Union

import cv2
import mmcv
import numpy as np
from mmdet.datasets import CocoDataset

from mixdet.registry import DATASETS

CLASSES = ('disc', 'square', 'triangle', 'star')
PALETTE = [(220, 20, 60), (0, 130, 200), (60, 180, 75), (245, 160, 0)]
IMAGES = {'train': 400, 'val': 80}
HEIGHT, WIDTH = 240, 320
SIZES = ((22, 32), (44, 100), (120, 190))  # px across; COCO's small, medium, large are areas below 32^2, 96^2, above
SIZE_WEIGHTS = (0.12, 0.5, 0.38)
TILT = 0.3  # rad, in either direction
HUE_SPREAD = 16.0  # degrees, standard deviation around a class's hue
OBJECTS = (2, 6)  # fewest and most in an image
MIN_INSIDE = 0.8  # share of an object that lies in the image
MIN_VISIBLE = 0.5  # share of an object that later ones leave uncovered
SEED = 20190722


@DATASETS.register_module()
class DemoDataset(CocoDataset):
    """MMDetection's ``CocoDataset`` of the built-in set, which is drawn if the folder ``data_root`` does not exist."""

    METAINFO = dict(classes=CLASSES, palette=PALETTE)

    def __init__(self, *args: Any, data_root: str, **kwargs: Any) -> None:
        make_demo_data(data_root)
        super().__init__(*args, data_root=data_root, **kwargs)


def make_demo_data(root: Union[str, Path], images: dict[str, int] = IMAGES, seed: int = SEED) -> Path:
    """Draw the set: ``annotations/{train,val}.json`` and ``images/{train,val}/`` below ``root``.

    The folder appears complete or not at all, so an interruption, or several processes at once, do no harm.

    Args:
        root: the folder; if it exists, nothing is drawn.
        images: number of images of each split.
        seed: the same seed gives the same pixels.

    Returns:
        ``root``.
    """
    root = Path(root)
    if root.exists():
        return root
    root.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f'.{root.name}-', dir=root.parent))
    try:
        (partial / 'annotations').mkdir()
        for number, (split, count) in enumerate(images.items()):
            (partial / 'images' / split).mkdir(parents=True)
            coco = _draw_split(partial / 'images' / split, count, (seed, number))
            (partial / 'annotations' / f'{split}.json').write_text(json.dumps(coco), encoding='utf-8')
        partial.chmod(0o755)
        os.rename(partial, root)
    except OSError:
        if not root.exists():  # otherwise another process was faster
            raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return root


def _draw_split(folder: Path, count: int, seed: tuple[int, int]) -> dict:
    """Draw the images of one split into ``folder`` and return their COCO file's content."""
    images: list[dict] = []
    annotations: list[dict] = []
    for image_id in range(1, count + 1):
        image, objects = draw_image(np.random.default_rng((*seed, image_id)))
        name = f'{image_id:06d}.jpg'
        mmcv.imwrite(image, str(folder / name))
        images.append(dict(id=image_id, file_name=name, height=HEIGHT, width=WIDTH))
        for label, mask in objects:
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=image_id,
                    category_id=label + 1,
                    bbox=list(cv2.boundingRect(mask.astype(np.uint8))),
                    area=int(mask.sum()),
                    segmentation=_polygons(mask),
                    iscrowd=0,
                )
            )
    return dict(
        info=dict(description='mixdet demo data', seed=list(seed)),
        images=images,
        annotations=annotations,
        categories=[dict(id=i + 1, name=name) for i, name in enumerate(CLASSES)],
    )


def draw_image(rng: np.random.Generator) -> tuple[np.ndarray, list[tuple[int, np.ndarray]]]:
    """One BGR image (H, W, 3) and its objects as (label, visible mask (H, W)), back to front."""
    image = _texture(rng, hue=rng.uniform(0, 360), saturation=rng.uniform(0, 0.3))
    objects: list[tuple[int, np.ndarray, int]] = []
    wanted = rng.integers(OBJECTS[0], OBJECTS[1] + 1)
    for _ in range(4 * wanted):  # attempts; a crowded image may end up with fewer objects
        if len(objects) == wanted:
            break
        label = int(rng.integers(len(CLASSES)))
        size = rng.uniform(*SIZES[rng.choice(len(SIZES), p=SIZE_WEIGHTS)])
        mask, full_area = _shape(rng, CLASSES[label], size)
        remaining = [old & ~mask for _, old, _ in objects]
        if mask.sum() < MIN_INSIDE * full_area:
            continue
        if any(rest.sum() < MIN_VISIBLE * area for rest, (_, _, area) in zip(remaining, objects)):
            continue
        objects = [(old_label, rest, area) for rest, (old_label, _, area) in zip(remaining, objects)]
        objects.append((label, mask, int(mask.sum())))
        hue = 360 * label / len(CLASSES) + rng.normal(0, HUE_SPREAD)
        fill = _texture(rng, hue, saturation=rng.uniform(0.5, 0.9))
        image = np.where(mask[..., None], fill, image)
        outline, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(image, outline, -1, rng.integers(0, 60, 3).tolist(), 1, cv2.LINE_AA)
    noise = rng.normal(0, 6, image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8), [(label, mask) for label, mask, _ in objects]


def _texture(rng: np.random.Generator, hue: float, saturation: float) -> np.ndarray:
    """Clouds of one hue (degrees) and saturation (0 to 1) with a finer grain, BGR uint8 (H, W, 3)."""
    coarse = rng.uniform(0, 1, (3, 4)).astype(np.float32)
    fine = rng.uniform(-1, 1, (HEIGHT // int(rng.integers(4, 24)), WIDTH // int(rng.integers(4, 24))))
    value = rng.uniform(0.25, 0.6) + 0.35 * cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    value += rng.uniform(0.02, 0.1) * cv2.resize(fine.astype(np.float32), (WIDTH, HEIGHT))
    hsv = np.stack([np.full_like(value, hue % 360), np.full_like(value, saturation), np.clip(value, 0, 1)], axis=-1)
    return np.uint8(255 * cv2.cvtColor(hsv.astype(np.float32), cv2.COLOR_HSV2BGR))


def _shape(rng: np.random.Generator, name: str, size: float) -> tuple[np.ndarray, float]:
    """Mask (H, W) of a shape about ``size`` px wide at a random place and tilt, and its area before cropping, px^2."""
    centre = rng.uniform((0.3 * size, 0.3 * size), (WIDTH - 0.3 * size, HEIGHT - 0.3 * size))
    corners = {'disc': 40, 'square': 4, 'triangle': 3, 'star': 10}[name]
    upright = np.pi / 4 if name == 'square' else -np.pi / 2
    angles = upright + rng.uniform(-TILT, TILT) + np.arange(corners) * 2 * np.pi / corners
    radius = np.full(corners, size / 2 if name != 'square' else size / np.sqrt(2) * 0.9)
    if name == 'star':
        radius[1::2] *= 0.45
    points = centre + np.stack([np.cos(angles), np.sin(angles)], 1) * radius[:, None] * (1, rng.uniform(0.85, 1.15))
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    cv2.fillPoly(mask, [np.round(points).astype(np.int32)], 1)
    return mask.astype(bool), float(cv2.contourArea(points.astype(np.float32)))


def _polygons(mask: np.ndarray) -> list[list[int]]:
    """The outlines of ``mask`` as COCO's polygons: x, y, x, y, ..."""
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    return [contour.flatten().tolist() for contour in contours if len(contour) >= 3]
