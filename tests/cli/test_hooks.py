from helpers import ROOT
from mmengine.config import Config

from mixdet.cli.hooks import HOOKS, add_hooks


def test_the_hooks_are_those_of_our_own_configs():
    hooks = Config.fromfile(ROOT / 'configs/_base_/default_runtime.py').default_hooks
    assert {name: hook.type for name, hook in hooks.items() if hook.type.startswith('mixdet.')} == HOOKS


def test_our_hooks_replace_mmdetections_alone():
    metric = dict(type='CocoMetric', metric='bbox')
    mine = dict(type='my.Report')
    cfg = Config(
        dict(
            default_hooks=dict(checkpoint=dict(type='CheckpointHook', interval=3), report=mine),
            val_evaluator=metric,
            test_evaluator=[metric],
        )
    )
    changes = add_hooks(cfg)
    assert cfg.default_hooks.checkpoint == dict(type='mixdet.CheckpointHook', interval=3)
    assert cfg.default_hooks.report == mine and cfg.default_hooks.nonfinite.type == 'mixdet.NonFiniteHook'
    assert cfg.val_evaluator == dict(type='mixdet.CocoMetric', metric='bbox') and cfg.test_evaluator == [metric]
    assert changes == [
        'default_hooks.checkpoint: mixdet.CheckpointHook',
        'default_hooks.folded_batch_norm: mixdet.FoldedBatchNormHook',
        'default_hooks.image_cache: mixdet.ImageCacheHook',
        'default_hooks.interrupt: mixdet.InterruptHook',
        'default_hooks.nonfinite: mixdet.NonFiniteHook',
        'val_evaluator: mixdet.CocoMetric',
    ]
    bare = Config(dict(default_hooks=dict(checkpoint=dict(type='my.Checkpoints'))))
    add_hooks(bare)
    assert bare.default_hooks.checkpoint.type == 'my.Checkpoints' and bare.default_hooks.report.type
