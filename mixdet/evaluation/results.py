"""The results file that an evaluation leaves for tables and reports."""

import json
import tempfile
from pathlib import Path
from typing import NamedTuple, Union

import torch
from mmengine.config import Config

from mixdet.errors import UserError
from mixdet.evaluation.numbers import IOU_TYPES, CocoNumbers, IouTypeNumbers
from mixdet.version import __version__

RESULTS_FOLDER = 'results'  # in the work dir, a file per checkpoint
# where the file has the numbers: mixdet 0.1 wrote those of boxes alone
NUMBER_KEYS = {'bbox': ('metrics', 'per_class'), 'segm': ('mask_metrics', 'mask_per_class')}


class EvaluationResult(NamedTuple):
    """One evaluation: ``config`` (its name), ``checkpoint`` (file name), the annotation file with its number of
    ``images``, the COCO ``numbers``, and of the training its ``epoch`` and ``seed``, 0 where unknown.
    """

    config: str
    checkpoint: str
    annotations: str
    images: int
    numbers: CocoNumbers
    epoch: int = 0
    seed: int = 0


def write_result(
    cfg: Config,
    name: str,
    checkpoint: dict,
    path: Union[str, Path],
    images: int,
    metrics: dict,
    tta: bool = False,
) -> Path:
    """Write the evaluation of the checkpoint ``path`` to ``<work_dir>/results/<its name>.json``, and return that path.

    Args:
        cfg: the config evaluated.
        name: the config's name.
        checkpoint: what the file holds; its ``meta`` has epoch and seed if MMEngine wrote it.
        path: its file.
        images: images evaluated.
        metrics: what the evaluator returned; only COCO's numbers are written.
        tta: whether test-time augmentation was on; the folder is then ``results_tta``, which tables leave out.

    Raises UserError if it cannot be written; the results of an earlier evaluation stay then.
    """
    numbers = CocoNumbers.from_metrics(metrics)
    evaluators = cfg.test_evaluator if isinstance(cfg.test_evaluator, list) else [cfg.test_evaluator]
    meta = checkpoint.get('meta', {})
    content = dict(
        config=name,
        checkpoint=Path(path).name,
        annotations=next((str(evaluator['ann_file']) for evaluator in evaluators if evaluator.get('ann_file')), ''),
        images=images,
        epoch=int(meta.get('epoch', 0)),
        seed=int(meta.get('seed') or 0),
    )
    for iou_type, of_type in numbers.by_type.items():
        stats_key, classes_key = NUMBER_KEYS[iou_type]
        content.update({stats_key: of_type.stats, classes_key: of_type.per_class})
    content['versions'] = dict(mixdet=__version__, torch=torch.__version__)
    out = result_path(cfg.work_dir, path, tta)
    _write(out, json.dumps(content, indent=1) + '\n')
    return out


def result_path(work_dir: Union[str, Path], checkpoint: Union[str, Path], tta: bool = False) -> Path:
    """Where the evaluation of ``checkpoint`` is kept; its pictures lie in the folder of the same name."""
    return Path(work_dir, f'{RESULTS_FOLDER}_tta' if tta else RESULTS_FOLDER, f'{Path(checkpoint).stem}.json')


def read_results(folder: Union[str, Path]) -> list[EvaluationResult]:
    """The newest evaluation of every work dir below ``folder``. Raises UserError for a file that cannot be read."""
    files = Path(folder).rglob(f'{RESULTS_FOLDER}/*.json')
    newest = {path.parent: path for path in sorted(files, key=lambda path: (path.stat().st_mtime_ns, path))}
    return [_read(path) for _, path in sorted(newest.items())]


def _read(path: Path) -> EvaluationResult:
    try:
        content = json.loads(path.read_text(encoding='utf-8'))
        fields = {name: content[name] for name in EvaluationResult._fields if name != 'numbers'}
        bbox, segm = (
            IouTypeNumbers(*(_floats(content.get(key, {})) for key in NUMBER_KEYS[iou_type])) for iou_type in IOU_TYPES
        )
        return EvaluationResult(**fields, numbers=CocoNumbers(bbox, segm))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OSError) as error:
        raise UserError(
            f'{path} is not a results file of tools/test.py ({type(error).__name__}: {error}); remove it'
        ) from error


def _write(path: Path, text: str) -> None:
    """Write ``text`` whole or not at all; what the engine writes with lies below this room."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix='.', suffix='.partial', dir=path.parent) as folder:
            partial = Path(folder, path.name)
            partial.write_text(text, encoding='utf-8')
            partial.replace(path)
    except OSError as error:
        raise UserError(f'results file {path} cannot be written: {error.strerror or error}') from error


def _floats(numbers: dict) -> dict[str, float]:
    return {name: float(value) for name, value in numbers.items()}
