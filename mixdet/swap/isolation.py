"""Building and running a detector in a process of its own, which may hang, crash or run out of memory."""

import logging
import multiprocessing
import re
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import torch
from mmengine.config import ConfigDict

from mixdet.registry import MODELS

if sys.platform != 'win32':
    import resource

RUNS, BUILDS, FAILS = 'runs', 'builds', 'fails'
MEMORY = 12 << 30  # bytes of address space for one detector
# With and without the heads' own initialisation, as some find nothing with it and others too much without it; on images
# of two sizes (px), as two-stage transformers take the best 900 tokens and the last level of SSD needs 300 px
TRIES = ((True, (224, 256)), (True, (512, 512)), (False, (224, 256)))
CLASSIFIERS = ('BaseReID', 'ImageClassifier')


def run_isolated(model: dict, seconds: float) -> tuple[str, str]:
    """Build the detector of the config ``model`` and predict on one image, for at most ``seconds``.

    Returns:
        'runs', 'builds' (but does not predict) or 'fails', and the reason in one line.
    """
    return _in_a_process(_build_and_run, model, seconds)


def shorten_reason(text: str, limit: int = 240) -> str:
    """``text`` in one line, without the folders of this machine in file names."""
    return re.sub(r'(?<![\w.])/([^\s/:"]+/)+', '', ' '.join(text.split()))[:limit]


def _in_a_process(function: Callable[[dict, Connection], Any], model: dict, seconds: float) -> tuple[str, str]:
    context = multiprocessing.get_context('fork')
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=function, args=(model, theirs), daemon=True)
    process.start()
    theirs.close()
    outcome = (FAILS, f'no result within {seconds} s')
    if ours.poll(seconds):
        try:
            outcome = ours.recv()
        except EOFError:
            outcome = (FAILS, 'the process ended without a result')
    process.kill()
    process.join()
    return outcome


def _build_and_run(model: dict, pipe: Connection) -> None:
    """Send the status and the reason through ``pipe``."""
    torch.set_num_threads(1)
    logging.disable(logging.CRITICAL)  # MMEngine lists every parameter that it initialises
    status = FAILS
    try:
        if sys.platform != 'win32':
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        for initialised, size in TRIES:
            network = MODELS.build(ConfigDict(model))
            if initialised:
                network.init_weights()
            network.eval()
            status = BUILDS
            try:
                with torch.no_grad():
                    _predict(network, size)
                break
            except Exception:
                if (initialised, size) == TRIES[-1]:
                    raise
        pipe.send((RUNS, ''))
    except BaseException as error:  # any error of upstream is a result
        pipe.send((status, shorten_reason(f'{type(error).__name__}: {error}')))


def _predict(network: torch.nn.Module, shape: tuple[int, int]) -> None:
    from mmdet.structures import DetDataSample, ReIDDataSample, TrackDataSample
    from mmengine.structures import InstanceData

    image = torch.zeros(1, 3, *shape)
    kind = type(network).__name__
    if kind in CLASSIFIERS:
        network(image, [ReIDDataSample()], mode='tensor')
        return
    size = dict(
        border=[0, 0, 0, 0],
        img_shape=shape,
        ori_shape=shape,
        pad_shape=shape,
        batch_input_shape=shape,
        scale_factor=(1.0, 1.0),
    )
    sample = DetDataSample(metainfo=dict(size, img_id=0, img_path='', text='cat . dog', custom_entities=True))
    if kind == 'FastRCNN':  # not for detectors with an RPN, which given proposals would bypass
        sample.proposals = InstanceData(bboxes=torch.tensor([[8.0, 8.0, 64.0, 64.0]]), scores=torch.ones(1))
    if kind == 'Mask2FormerVideo':
        sample.set_metainfo(dict(frame_id=0, video_id=0, video_length=1, ori_video_length=1))
        network(image[None], [TrackDataSample(video_data_samples=[sample])], mode='predict')
        return
    # SSDHead of mmdet 3.3.0 cannot predict: 'SSDHead' object has no attribute 'loss_cls'
    broken = type(getattr(network, 'bbox_head', None)).__name__.endswith('SSDHead')
    network(image, [sample], mode='tensor' if broken else 'predict')
