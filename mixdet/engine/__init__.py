"""How is a training kept safe and repeatable? Checkpoints, exact resume, seeds, NaN, interrupts, console output.

May use ``layers`` and ``evaluation``.
"""

from mixdet.engine.amp import CPUAmpOptimWrapper
from mixdet.engine.checkpoint_hook import CheckpointHook
from mixdet.engine.class_names import ClassNamesHook
from mixdet.engine.console import ConsoleHook
from mixdet.engine.hooks import ChannelsLastHook, MixConvImplHook, PredictionGridHook
from mixdet.engine.interrupt import InterruptHook
from mixdet.engine.nonfinite import NonFiniteHook
from mixdet.engine.picture_hook import PictureHook
from mixdet.engine.runner import Runner

__all__ = [
    'CPUAmpOptimWrapper',
    'ChannelsLastHook',
    'CheckpointHook',
    'ClassNamesHook',
    'ConsoleHook',
    'InterruptHook',
    'MixConvImplHook',
    'NonFiniteHook',
    'PictureHook',
    'PredictionGridHook',
    'Runner',
]
