"""What stands around MMEngine's Runner: console, hooks, evaluation, and checks of the user's input."""

from mixdet.engine.amp import CPUAmpOptimWrapper
from mixdet.engine.console import ConsoleHook
from mixdet.engine.hooks import ChannelsLastHook, MixConvImplHook, PredictionGridHook
from mixdet.engine.metric import CocoMetric
from mixdet.engine.runner import Runner

__all__ = [
    'CPUAmpOptimWrapper',
    'ChannelsLastHook',
    'CocoMetric',
    'ConsoleHook',
    'MixConvImplHook',
    'PredictionGridHook',
    'Runner',
]
