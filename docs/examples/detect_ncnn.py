"""Run a detector exported by tools/export.py --format ncnn with numpy, pillow and ncnn alone.

python docs/examples/detect_ncnn.py MODEL.ncnn/model MODEL.ncnn/mixdet.json IMAGE
"""

import ncnn
import numpy as np
from detection import main


def load(path):
    """The network as a function from normalised images (1, 3, H, W) to boxes (A, 4) and scores (A, classes)."""
    network = ncnn.Net()
    if network.load_param(f'{path}.param') or network.load_model(f'{path}.bin'):
        raise SystemExit(f'{path}.param and {path}.bin cannot be loaded')

    def run(images):
        extractor = network.create_extractor()
        extractor.input('in0', ncnn.Mat(images[0]))
        return [np.array(extractor.extract(name)[1]) for name in ('out0', 'out1')]

    return run


if __name__ == '__main__':
    main(load)
