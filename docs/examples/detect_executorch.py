"""Run a detector exported by tools/export.py --format executorch with numpy, pillow and executorch alone.

python docs/examples/detect_executorch.py MODEL.pte MODEL.pte.json IMAGE
"""

import torch  # which executorch's package for Python brings along
from detection import main
from executorch.runtime import Runtime


def load(path):
    """The network as a function from normalised images (1, 3, H, W) to boxes (A, 4) and scores (A, classes)."""
    network = Runtime.get().load_program(path).load_method('forward')
    return lambda images: [output[0].numpy() for output in network.execute([torch.from_numpy(images)])]


if __name__ == '__main__':
    main(load)
