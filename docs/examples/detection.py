"""What the examples for files without NMS share: from an image to the network's input, from its outputs to detections.

Copy this file beside the example that you use; it needs numpy and pillow alone.
"""

import json
import sys

import numpy as np
from PIL import Image, ImageOps


def resize(image, height, width, half_pixel):
    """Bilinear without antialiasing, as in training: OpenCV's resize, or TensorFlow's without its half-pixel shift."""
    shift = 0.5 if half_pixel else 0.0
    for axis, (old, new) in enumerate(zip(image.shape, (height, width))):
        at = ((np.arange(new, dtype=np.float32) + shift) * np.float32(old / new) - shift).clip(0, old - 1)
        low = at.astype(int)
        share = (at - low).reshape((-1, 1, 1) if axis == 0 else (1, -1, 1))
        near, far = (image.take(index, axis).astype(np.float32) for index in (low, (low + 1).clip(max=old - 1)))
        image = near + (far - near) * share
    return image.round() if half_pixel else image


def suppress(boxes, scores, score_thr, iou_threshold, max_per_img, candidates):
    """From all anchors' boxes (A, 4) and scores (A, classes) to detections: boxes, scores and classes, best first."""
    anchors, labels = np.nonzero(scores > score_thr)
    best = np.argsort(-scores[anchors, labels], kind='stable')[:candidates]
    boxes, scores, labels = boxes[anchors[best]], scores[anchors[best], labels[best]], labels[best]
    areas, kept = (boxes[:, 2:] - boxes[:, :2]).prod(1), []
    for i, box in enumerate(boxes):  # one that overlaps a better one of its class too much is dropped
        same = [k for k in kept if labels[k] == labels[i]]
        overlap = (np.minimum(boxes[same, 2:], box[2:]) - np.maximum(boxes[same, :2], box[:2])).clip(0).prod(1)
        if not (overlap > iou_threshold * (areas[same] + areas[i] - overlap)).any():
            kept.append(i)
    return boxes[kept[:max_per_img]], scores[kept[:max_per_img]], labels[kept[:max_per_img]]


def detect(run, meta, image, score_thr=0.3):
    """The objects in an RGB image (H, W, 3), uint8: (class name, score, [x1, y1, x2, y2] in px) of each."""
    height, width = meta['input_size']
    pixels = resize(image, height, width, meta['resize'] == 'Resize')
    pixels = np.float32((pixels - np.float32(meta['mean'])) / np.float32(meta['std']))
    boxes, scores, labels = suppress(*run(np.ascontiguousarray(pixels.transpose(2, 0, 1)[None])), **meta['thresholds'])
    boxes = (boxes / np.float32((width, height) * 2)).clip(0, 1) * np.float32(image.shape[1::-1] * 2)
    found = zip(labels, scores, boxes)
    return [(meta['classes'][label], float(score), box.tolist()) for label, score, box in found if score >= score_thr]


def main(load):
    """Print what is in an image; ``load`` opens the file whose path it is given, as each example says."""
    _, path, metadata, image = sys.argv
    with open(metadata, encoding='utf-8') as file:
        meta = json.load(file)
    for name, score, box in detect(
        load(path), meta, np.array(ImageOps.exif_transpose(Image.open(image)).convert('RGB'))
    ):
        print(f'{name:16} {score:.3f}  ' + '  '.join(f'{value:7.1f}' for value in box))
