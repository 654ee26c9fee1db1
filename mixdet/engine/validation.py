"""Checks that a training can validate, before it begins; and training without a validation."""

import re
from pathlib import Path
from typing import Any, Optional

from mmdet.datasets import XMLDataset
from mmdet.evaluation import CocoMetric, VOCMetric
from mmengine.config import Config

from mixdet.datasets.wrappers import wrapped_datasets
from mixdet.errors import UserError
from mixdet.evaluation.numbers import CLASS_SUFFIX, IOU_TYPES
from mixdet.registry import DATASETS, METRICS

WITHOUT = 'to train without validation, set all three to None or give --no-validate'


def without_validation(cfg: Config) -> None:
    """Change ``cfg`` so that nothing is validated and no best checkpoint is chosen."""
    cfg.val_dataloader = cfg.val_cfg = cfg.val_evaluator = None
    hook = _checkpoint_hook(cfg)
    if hook.get('save_best'):
        hook['save_best'] = None


def check_validation(cfg: Config, parts: tuple[str, ...]) -> None:
    """Check that what belongs together is given together, and ``check_evaluators``.

    Raises:
        UserError: if only some of dataloader, loop and evaluator are given, if ``data_root`` lacks the slash that an
            evaluator's file needs, and as ``check_evaluators`` does.
    """
    for part in ('val', 'test'):  # MMEngine refuses half of one whichever runs
        keys = [f'{part}_dataloader', f'{part}_cfg', f'{part}_evaluator']
        missing = [key for key in keys if cfg.get(key) is None]
        if 0 < len(missing) < len(keys):
            given = [key for key in keys if key not in missing]
            cure = WITHOUT if part == 'val' else 'set all three, or none'
            verbs = ['is' if len(names) == 1 else 'are' for names in (missing, given)]
            raise UserError(
                f'{" and ".join(missing)} {verbs[0]} None, but {" and ".join(given)} {verbs[1]} not; {cure}'
            )
    _check_roots(cfg, parts)
    check_evaluators(cfg, parts)


def check_evaluators(cfg: Config, parts: tuple[str, ...]) -> None:
    """Check that the evaluators of ``parts`` ('train', 'val', 'test') fit their data and the choice of the best.

    Raises:
        UserError: if a COCO file is to be evaluated with images of VOC's format, or ``save_best`` names a metric that
            the evaluator does not compute: training would stop at the first validation.
    """
    for part in ('val', 'test'):
        if part in parts and cfg.get(f'{part}_dataloader') and cfg.get(f'{part}_evaluator'):
            _check_files(cfg, part)
    if 'train' in parts and 'val' in parts and cfg.get('val_evaluator'):
        _check_save_best(cfg)


def _checkpoint_hook(cfg: Config) -> dict:
    hook = (cfg.get('default_hooks') or {}).get('checkpoint')
    return hook if isinstance(hook, dict) else {}


def _metrics(evaluator: Any) -> list[tuple[Any, Optional[type]]]:
    """The metrics of an evaluator's config, each with its class, as far as that is known."""
    found = []
    for metric in evaluator if isinstance(evaluator, (list, tuple)) else [evaluator]:
        cls = metric.get('type') if isinstance(metric, dict) else None
        if isinstance(cls, str):
            with METRICS.switch_scope_and_registry('mmdet') as registry:
                cls = registry.get(cls)
        found.append((metric, cls if isinstance(cls, type) else None))
    return found


def _check_roots(cfg: Config, parts: tuple[str, ...]) -> None:
    """Raise UserError if an evaluator's file is ``data_root`` and a name with no slash between them."""
    for part in parts:
        evaluator = cfg.get(f'{part}_evaluator') or []
        dataset = (cfg.get(f'{part}_dataloader') or {}).get('dataset')
        roots = (
            {inner.get('data_root') for _, inner in wrapped_datasets(dataset)} if isinstance(dataset, dict) else set()
        )
        for metric in evaluator if isinstance(evaluator, (list, tuple)) else [evaluator]:
            file = str(metric.get('ann_file') or '') if isinstance(metric, dict) else ''
            for root in roots if file and not Path(file).exists() else ():
                if root and not root.endswith('/') and file.startswith(root) and not file.startswith(f'{root}/'):
                    raise UserError(
                        f'{part}_evaluator.ann_file: {file} does not exist; data_root={root!r} needs a slash at its '
                        'end, because the config puts it before the names of files'
                    )


def _check_files(cfg: Config, part: str) -> None:
    """Raise UserError if images with names for ids, as in VOC's format, are evaluated with a COCO file."""
    dataset = cfg[f'{part}_dataloader'].get('dataset')
    for key, inner in wrapped_datasets(dataset, f'{part}_dataloader.dataset') if isinstance(dataset, dict) else ():
        name = inner.get('type')
        with DATASETS.switch_scope_and_registry('mmdet') as registry:
            cls = registry.get(name) if isinstance(name, str) else name
        if not (isinstance(cls, type) and issubclass(cls, XMLDataset)):
            continue
        for metric, kind in _metrics(cfg[f'{part}_evaluator']):
            if kind is not None and issubclass(kind, CocoMetric) and metric.get('ann_file'):
                raise UserError(
                    f'{part}_evaluator.ann_file={metric["ann_file"]!r}: {key} is a {cls.__name__}, whose image ids no '
                    "COCO file has; use dict(type='VOCMetric', metric='mAP') and save_best='pascal_voc/mAP'"
                )


def _check_save_best(cfg: Config) -> None:
    wanted = _checkpoint_hook(cfg).get('save_best')
    known = []
    for metric, cls in _metrics(cfg.val_evaluator):
        names = _names_of(metric, cls)
        if names is None:
            return  # one that can give anything
        known.append(names)
    for name in [wanted] if isinstance(wanted, str) else wanted or ():
        if name != 'auto' and not any(pattern.fullmatch(name) for _, pattern in known):
            examples = ', '.join(repr(example) for example, _ in known)
            raise UserError(
                f'default_hooks.checkpoint.save_best={name!r} is not a metric of val_evaluator, and the training would '
                f"stop at its first validation; set it to {examples}, 'auto' (the first metric) or None"
            )


def _names_of(metric: Any, cls: Optional[type]) -> Optional[tuple[str, re.Pattern]]:
    """A name that the metric surely gives, and a pattern of all that it may give; None if that is not known."""
    prefix = cls and (metric.get('prefix') or getattr(cls, 'default_prefix', None))
    if cls is None or not prefix:
        return None
    prefix = f'{prefix}/'
    chosen = metric.get('metric')
    if issubclass(cls, CocoMetric) and cls.__name__ == CocoMetric.__name__:  # not one derived for another data set
        types = [chosen or 'bbox'] if not isinstance(chosen, (list, tuple)) else chosen
        if set(types) <= set(IOU_TYPES):
            names = rf'({"|".join(types)})_(mAP|AR).*|.*{CLASS_SUFFIX}'
            return f'{prefix}{types[0]}_mAP', re.compile(f'{re.escape(prefix)}({names})', re.DOTALL)
    if issubclass(cls, VOCMetric) and chosen in (None, 'mAP'):
        return f'{prefix}mAP', re.compile(rf'{re.escape(prefix)}(mAP|AP\d+)')
    return f'{prefix}...', re.compile(f'{re.escape(prefix)}.*', re.DOTALL)
