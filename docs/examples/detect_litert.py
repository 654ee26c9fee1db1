"""Run a detector exported by tools/export.py --format tflite with numpy, pillow and ai-edge-litert alone.

python docs/examples/detect_litert.py MODEL.tflite MODEL.tflite.json IMAGE
"""

from ai_edge_litert.interpreter import Interpreter
from detection import main


def load(path):
    """The network as a function from normalised images (1, 3, H, W) to boxes (A, 4) and scores (A, classes)."""
    network = Interpreter(path).get_signature_runner()
    (image,), outputs = network.get_input_details(), sorted(network.get_output_details())

    def run(images):
        found = network(**{image: images})
        return [found[name][0] for name in outputs]

    return run


if __name__ == '__main__':
    main(load)
