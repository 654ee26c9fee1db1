"""A detector that tests of inference and export share; nobody changes its files."""

import numpy as np
import pytest
import torch
from helpers import tiny_checkpoint

from mixdet.datasets.demo import draw_image
from mixdet.deploy.inference import Detector


@pytest.fixture(scope='session')
def demo_images():
    """Three images (H, W, 3), uint8 BGR."""
    return [draw_image(np.random.default_rng(i))[0] for i in range(3)]


@pytest.fixture(scope='session')
def tiny(tmp_path_factory, demo_images):
    """Config and checkpoint of a detector; it has the batch-norm statistics of the images, so detections differ."""
    config, checkpoint = tiny_checkpoint(tmp_path_factory.mktemp('tiny'))
    detector = Detector(config, checkpoint, fuse=False)
    for module in detector.model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    detector.model.train()
    with torch.no_grad():
        detector.model(detector.preprocess(demo_images), mode='tensor')
    torch.save(dict(state_dict=detector.model.state_dict()), checkpoint)
    return config, checkpoint
