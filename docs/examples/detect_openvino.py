"""Run a detector exported by tools/export.py --format openvino with numpy, pillow and openvino alone.

python docs/examples/detect_openvino.py MODEL.openvino/model.xml MODEL.openvino/mixdet.json IMAGE
"""

import openvino
from detection import main


def load(path):
    """The network as a function from normalised images (1, 3, H, W) to boxes (A, 4) and scores (A, classes)."""
    exact = dict(INFERENCE_PRECISION_HINT='f32')  # else bfloat16 where the CPU has it: faster, scores a percent off
    network = openvino.compile_model(path, 'CPU', exact)
    return lambda images: [network([images])[name][0] for name in ('boxes', 'scores')]


if __name__ == '__main__':
    main(load)
