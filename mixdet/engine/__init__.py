"""What stands around MMEngine's Runner: console, hooks, evaluation, and checks of the user's input."""

from mixdet.engine.amp import CPUAmpOptimWrapper
from mixdet.engine.checkpoint_hook import CheckpointHook
from mixdet.engine.console import ConsoleHook
from mixdet.engine.hooks import ChannelsLastHook, MixConvImplHook, PredictionGridHook
from mixdet.engine.interrupt import InterruptHook
from mixdet.engine.metric import CocoMetric
from mixdet.engine.nonfinite import NonFiniteHook
from mixdet.engine.runner import Runner

__all__ = [
    'CPUAmpOptimWrapper',
    'ChannelsLastHook',
    'CheckpointHook',
    'CocoMetric',
    'ConsoleHook',
    'InterruptHook',
    'MixConvImplHook',
    'NonFiniteHook',
    'PredictionGridHook',
    'Runner',
]
