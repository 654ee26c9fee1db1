"""Run a detector exported by tools/export.py with numpy, pillow and onnxruntime alone.

python docs/examples/detect_onnx.py MODEL.onnx IMAGE [PICTURE]    # PICTURE: also draw the detections into this file
"""

import json
import sys

import numpy as np
import onnxruntime
from PIL import Image, ImageDraw, ImageOps


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


def detect(session, image, score_thr=0.3):
    """The objects in an RGB image (H, W, 3), uint8: (class name, score, [x1, y1, x2, y2] in px) of each."""
    meta = session.get_modelmeta().custom_metadata_map
    (height, width), classes = json.loads(meta['input_size']), json.loads(meta['classes'])
    mean, std = np.float32(json.loads(meta['mean'])), np.float32(json.loads(meta['std']))
    pixels = np.float32((resize(image, height, width, meta['resize'] == 'Resize') - mean) / std)
    boxes, scores, labels = session.run(None, {'image': pixels.transpose(2, 0, 1)[None]})
    boxes = boxes * (np.float32(image.shape[1::-1] * 2) / (width, height, width, height))
    found = zip(labels[0], scores[0], boxes[0])
    return [(classes[label], float(score), box.tolist()) for label, score, box in found if score >= score_thr]


def draw(image, found):
    """The RGB image (H, W, 3) with boxes, class names and scores, as a pillow image."""
    picture = Image.fromarray(image)
    pen = ImageDraw.Draw(picture)
    for name, score, box in reversed(found):  # the best one on top
        pen.rectangle(box, outline='orange', width=2)
        label, corner = f'{name} {score:.2f}', (box[0] + 3, max(box[1], 0) + 2)
        pen.rectangle(pen.textbbox(corner, label), fill='black')
        pen.text(corner, label, fill='white')
    return picture


if __name__ == '__main__':
    session = onnxruntime.InferenceSession(sys.argv[1], providers=['CPUExecutionProvider'])
    image = np.array(ImageOps.exif_transpose(Image.open(sys.argv[2])).convert('RGB'))
    found = detect(session, image)
    for name, score, box in found:
        print(f'{name:16} {score:.3f}  ' + '  '.join(f'{value:7.1f}' for value in box))
    if len(sys.argv) > 3:
        draw(image, found).save(sys.argv[3])
