"""COCO's numbers and the metric names they go by: the one place that reads and writes those names."""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from typing import Optional

# ``COCOeval.stats`` in order: MMDetection's names, and what they say to a reader
STAT_TITLES = {
    'mAP': 'AP  IoU .50:.95',
    'mAP_50': 'AP  IoU .50',
    'mAP_75': 'AP  IoU .75',
    'mAP_s': 'AP  small',
    'mAP_m': 'AP  medium',
    'mAP_l': 'AP  large',
    'AR@1': 'AR  1 per image',
    'AR@10': 'AR  10 per image',
    'AR@100': 'AR  100 per image',
    'AR_s@100': 'AR  small',
    'AR_m@100': 'AR  medium',
    'AR_l@100': 'AR  large',
}
STATS = tuple(STAT_TITLES)
IOU_TYPES = {'bbox': 'box', 'segm': 'mask'}  # MMDetection's names, and what they say to a reader
CLASS_SUFFIX = '_precision'  # after a class's name, as MMDetection's ``classwise`` has it
SEGM_MARK = 'segm_'  # before it for masks, which MMDetection does not tell apart
STAT_KEY = re.compile(rf'(|.*/)({"|".join(IOU_TYPES)})_({"|".join(STATS)})', re.DOTALL)


@dataclass(frozen=True)
class IouTypeNumbers:
    """What one IoU type gave: the ``stats`` by MMDetection's names, as far as they are known, and AP ``per_class``.
    A value is -1 or NaN where there is no such ground truth; both are empty if it was not evaluated.
    """

    stats: dict[str, float] = field(default_factory=dict)
    per_class: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class CocoNumbers:
    """The numbers of an evaluation: of boxes (``bbox``), of masks (``segm``), and ``other`` metrics as they came."""

    bbox: IouTypeNumbers = field(default_factory=IouTypeNumbers)
    segm: IouTypeNumbers = field(default_factory=IouTypeNumbers)
    other: dict[str, float] = field(default_factory=dict)

    @property
    def by_type(self) -> dict[str, IouTypeNumbers]:
        """The IoU types that were evaluated, boxes first."""
        both = {'bbox': self.bbox, 'segm': self.segm}
        return {iou_type: numbers for iou_type, numbers in both.items() if numbers.stats}

    @property
    def ap(self) -> Optional[float]:
        """AP of the boxes, else of the masks; None if neither was evaluated."""
        return next((numbers.stats['mAP'] for numbers in self.by_type.values() if 'mAP' in numbers.stats), None)

    @classmethod
    def from_metrics(cls, metrics: Mapping[str, float]) -> 'CocoNumbers':
        """Read what an evaluator returned or a log holds, such as ``coco/bbox_mAP`` and ``coco/cat_precision``.

        The prefix before the names is free. Of several COCO metrics, told apart by it, the first counts and the rest
        are ``other``. Where masks were evaluated and no class is marked as theirs, the metric was MMDetection's own,
        whose AP of a class is that of the type evaluated last.
        """
        matches = {key: match for key in metrics if (match := STAT_KEY.fullmatch(key))}
        if not matches:
            return cls(other=dict(metrics))
        prefix = next(iter(matches.values()))[1]
        stats: dict[str, dict[str, float]] = {}
        per_class: dict[str, float] = {}
        other: dict[str, float] = {}
        for key, value in metrics.items():
            match = matches.get(key)
            if match and match[1] == prefix:
                stats.setdefault(match[2], {})[match[3]] = value
            elif not match and key.startswith(prefix) and key.endswith(CLASS_SUFFIX):
                per_class[key[len(prefix) : -len(CLASS_SUFFIX)]] = value
            else:
                other[key] = value
        classes = _classes_by_type(per_class, list(stats))
        bbox, segm = (IouTypeNumbers(_in_order(stats.get(name, {})), classes.get(name, {})) for name in IOU_TYPES)
        return cls(bbox, segm, other)

    def to_metrics(self, prefix: str = '') -> dict[str, float]:
        """The flat dict that ``from_metrics`` reads, each name after ``prefix`` (such as ``coco/``)."""
        metrics = {}
        for iou_type, numbers in self.by_type.items():
            mark = SEGM_MARK if iou_type == 'segm' else ''
            metrics.update({f'{prefix}{iou_type}_{name}': value for name, value in numbers.stats.items()})
            metrics.update({f'{prefix}{mark}{name}{CLASS_SUFFIX}': value for name, value in numbers.per_class.items()})
        return {**metrics, **self.other}


def stat_names(max_dets: Sequence[int]) -> tuple[str, ...]:
    """The names of COCO's numbers for these limits on the detections per image; ``STATS`` for 1, 10 and 100."""
    ap = (name for name in STATS if name.startswith('mAP'))
    return (*ap, *(f'AR@{limit}' for limit in max_dets), *(f'AR_{size}@{max_dets[-1]}' for size in 'sml'))


def ap_title(iou_type: str, evaluated: Collection[str]) -> str:
    """'AP', or unless boxes alone were ``evaluated``, 'box AP' and 'mask AP'."""
    return 'AP' if list(evaluated) == ['bbox'] else f'{IOU_TYPES[iou_type]} AP'


def format_number(value: Optional[float], digits: int = 3) -> str:
    """``value`` for a reader; a dash for what is not known: None, NaN, or COCO's -1."""
    return f'{value:.{digits}f}' if isinstance(value, Real) and value >= 0 else '-'


def _classes_by_type(per_class: Mapping[str, float], evaluated: list[str]) -> dict[str, dict[str, float]]:
    """AP of each class by IoU type; ``evaluated`` has the types in the order they were evaluated."""
    if 'segm' not in evaluated:
        return {'bbox': dict(per_class)}
    marked = {name: value for name, value in per_class.items() if name.startswith(SEGM_MARK)}
    if not marked:
        return {evaluated[-1]: dict(per_class)}
    return {
        'bbox': {name: value for name, value in per_class.items() if name not in marked},
        'segm': {name.removeprefix(SEGM_MARK): value for name, value in marked.items()},
    }


def _in_order(stats: Mapping[str, float]) -> dict[str, float]:
    return {name: stats[name] for name in STATS if name in stats}
