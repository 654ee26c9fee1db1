"""Are the classes that a checkpoint was trained for those that it is used with?

A network gives numbers; which class a number stands for is written in the checkpoint alone. With data whose classes
have another order it is evaluated, or trained on, as if it took each object for another one.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Optional

from mmengine.hooks import Hook
from mmengine.logging import MMLogger
from mmengine.runner import Runner

from mixdet.engine.checkpoint import read_checkpoint
from mixdet.engine.wrappers import unwrap_model
from mixdet.errors import UserError
from mixdet.registry import HOOKS

SHOWN = 5  # names in a message
CURE = (
    'give data with the classes in that order: metainfo.classes, and the annotation file, of which '
    'tools/check_dataset.py ANN.json --fix OUT.json --classes NAME ... writes such a copy'
)


class Difference(NamedTuple):
    """How two lists of classes differ: in words, and whether a class of one stands in another place in the other."""

    text: str
    moved: bool = False


@HOOKS.register_module()
class ClassNamesHook(Hook):
    """Compares the classes of the checkpoint that is loaded with those of the data, by name.

    An evaluation with classes in another order is refused; other names, and a training that begins with weights for
    other classes, are a warning. A file without names says nothing, and so do detectors that are told their classes
    in words. A checkpoint that is resumed must fit exactly, which ``mixdet.CheckpointHook`` checks. ``mixdet.Runner``
    adds this hook; in any other config: ``custom_hooks = [dict(type='mixdet.ClassNamesHook')]``.
    """

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Compare the file's classes with those of the training, else of the test."""
        if runner._resume:
            return
        part = next((part for part in ('train', 'test', 'val') if _is_built(runner, part)), None)
        if part:
            _compare(runner, part, stored_classes(checkpoint), f'checkpoint {runner._load_from}')

    def before_train(self, runner: Runner) -> None:
        """Compare the classes of files that an ``init_cfg`` of the model or its head names."""
        if runner._resume or runner._load_from:  # which is loaded over them
            return
        for name, module in unwrap_model(runner.model).named_modules():
            init = getattr(module, 'init_cfg', None)
            for cfg in [init] if isinstance(init, dict) else init or ():
                file = str(cfg.get('checkpoint')) if cfg.get('type') == 'Pretrained' else ''
                if file and '://' not in file and (not name or 'head' in name):
                    _compare(runner, 'train', stored_classes(read_checkpoint(file)), f'checkpoint {file}')

    def before_test(self, runner: Runner) -> None:
        """Compare the classes of a model that knows them itself, as an exported one does."""
        model = unwrap_model(runner.model)
        _compare(runner, 'test', named_classes(getattr(model, 'dataset_meta', None)), type(model).__name__)


def named_classes(meta: Any) -> tuple[str, ...]:
    """The classes that a data set's ``metainfo`` names; empty if it names none."""
    found = (meta.get('classes') or meta.get('CLASSES')) if isinstance(meta, Mapping) else None
    names = (found,) if isinstance(found, str) else found  # a single one may be a mere string
    return tuple(map(str, names)) if isinstance(names, (list, tuple)) else ()


def stored_classes(checkpoint: Mapping) -> tuple[str, ...]:
    """The classes that a checkpoint of MMEngine or MMDetection 2 was trained for; empty if it does not name them."""
    meta = checkpoint.get('meta')
    return (named_classes(meta.get('dataset_meta')) or named_classes(meta)) if isinstance(meta, Mapping) else ()


def class_difference(before: Sequence[str], now: Sequence[str], where: str) -> Optional[Difference]:
    """How the classes ``now``, which are those of ``where``, differ from those ``before``.

    None if they do not, or one of the two is not known. A name that differs in case or punctuation alone is the same
    class, spelt otherwise.
    """
    if not before or not now or tuple(before) == tuple(now):
        return None
    if len(before) != len(now):
        return Difference(f'its classes are {_short(before)}, not {_short(now)} as in {where}')
    plain, plain_now = list(map(_plain, before)), list(map(_plain, now))
    different = [i for i, name in enumerate(before) if name != now[i]]
    moved = [
        i
        for i in different
        if before[i] in now
        or now[i] in before
        or (plain[i] != plain_now[i] and (plain[i] in plain_now or plain_now[i] in plain))
    ]
    kind = 'are in another order' if moved else 'are spelt otherwise' if plain == plain_now else 'have other names'
    first = (moved or different)[0]
    example = f'class {first} is {before[first]!r}, not {now[first]!r}'
    return Difference(
        f'its classes {kind} than in {where}: {example} ({len(different)} of {len(now)} differ)', bool(moved)
    )


def check_evaluated(before: Sequence[str], now: Sequence[str], what: str, where: str) -> None:
    """Raise UserError if the network ``what``, of the classes ``before``, has ``now`` in another order.

    These are the classes of ``where``, on which it is to be evaluated. Other differences are a warning.
    """
    difference = class_difference(before, now, where)
    if difference is None:
        return
    if difference.moved:
        raise UserError(f'{what}: {difference.text}; {CURE}')
    warn(f'{what}: {difference.text}; each detection counts for the class in its place')


def warn(text: str) -> None:
    """Log a warning."""
    MMLogger.get_current_instance().warning(text)


def _compare(runner: Runner, part: str, before: Sequence[str], what: str) -> None:
    if hasattr(unwrap_model(runner.model), 'language_model'):
        return
    where = f'{part}_dataloader'
    now = named_classes(getattr(getattr(runner, where).dataset, 'metainfo', None))
    if part != 'train':
        check_evaluated(before, now, what, where)
        return
    difference = class_difference(before, now, where)
    if difference and len(before) == len(now):  # else the head has another shape, which MMEngine says
        warn(f'{what}: {difference.text}; the training begins with weights for those classes')


def _is_built(runner: Runner, part: str) -> bool:
    return hasattr(getattr(runner, f'_{part}_loop', None), 'dataloader')


def _plain(name: str) -> str:
    return re.sub(r'[\W_]+', ' ', name.casefold()).strip() or name


def _short(names: Sequence[str]) -> str:
    shown = ', '.join(names[:SHOWN])
    return f'{shown}, ... ({len(names)})' if len(names) > SHOWN else shown
