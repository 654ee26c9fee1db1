"""A detector from tools/export.py with numpy, pillow and onnxruntime alone: onnx_example.py MODEL.onnx IMAGE."""

import json
import sys

import numpy as np
import onnxruntime
from PIL import Image, ImageOps


def detect(session, image, score_thr=0.3):
    """(class name, score, [x1, y1, x2, y2] in px) of the objects in a PIL image."""
    meta = session.get_modelmeta().custom_metadata_map
    (height, width), classes = json.loads(meta['input_size']), json.loads(meta['classes'])
    mean, std = np.float32(json.loads(meta['mean'])), np.float32(json.loads(meta['std']))
    # bilinear without antialiasing, as in training
    scale = (image.width / width, 0, 0, 0, image.height / height, 0)
    small = image.transform((width, height), Image.Transform.AFFINE, scale, Image.Resampling.BILINEAR)
    pixels = (np.float32(small) - mean) / std
    boxes, scores, labels = session.run(None, {'image': pixels.transpose(2, 0, 1)[None]})
    boxes = boxes * np.float32([scale[0], scale[4], scale[0], scale[4]])
    found = zip(labels[0], scores[0], boxes[0])
    return [(classes[label], float(score), box.tolist()) for label, score, box in found if score >= score_thr]


if __name__ == '__main__':
    session = onnxruntime.InferenceSession(sys.argv[1], providers=['CPUExecutionProvider'])
    image = ImageOps.exif_transpose(Image.open(sys.argv[2])).convert('RGB')
    for name, score, box in detect(session, image):
        print(f'{name:16} {score:.3f}  ' + '  '.join(f'{value:7.1f}' for value in box))
