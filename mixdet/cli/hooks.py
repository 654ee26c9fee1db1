"""mixdet's hooks and metric for configs of MMDetection, which have none of them."""

from mmengine.config import Config

# as in configs/_base_/default_runtime.py
HOOKS = dict(
    checkpoint='mixdet.CheckpointHook',
    folded_batch_norm='mixdet.FoldedBatchNormHook',
    image_cache='mixdet.ImageCacheHook',
    interrupt='mixdet.InterruptHook',
    nonfinite='mixdet.NonFiniteHook',
    report='mixdet.ReportHook',
)
REPLACED = {'checkpoint': 'CheckpointHook'}  # MMDetection's, of which ours takes the arguments
METRIC = 'CocoMetric'


def add_hooks(cfg: Config) -> list[str]:
    """Add mixdet's hooks and its COCO metric to ``cfg`` where it has MMDetection's or none; returns the changes."""
    changes = []
    hooks = cfg.setdefault('default_hooks', {})
    for name, kind in HOOKS.items():
        present = hooks.get(name)
        if present is None or present.get('type') == REPLACED.get(name):
            hooks[name] = {**(present or {}), 'type': kind}
            changes.append(f'default_hooks.{name}: {kind}')
    for key in ('val_evaluator', 'test_evaluator'):
        metric = cfg.get(key)
        if isinstance(metric, dict) and metric.get('type') == METRIC:
            metric['type'] = f'mixdet.{METRIC}'
            changes.append(f'{key}: mixdet.{METRIC}')
    return changes
