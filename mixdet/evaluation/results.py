"""The results file that an evaluation leaves for tables and reports."""

import json
from pathlib import Path
from typing import NamedTuple, Union

import torch
from mmengine.config import Config

from mixdet.errors import UserError
from mixdet.evaluation.coco import STATS
from mixdet.evaluation.metric import CLASS_SUFFIX
from mixdet.version import __version__

FOLDER = 'results'  # in the work dir, a file per checkpoint


class Result(NamedTuple):
    """One evaluation: ``config`` (its name), ``checkpoint`` (file name), the annotation file with its number of
    ``images``, the COCO ``metrics`` by MMDetection's names (``mAP`` ...) and AP ``per_class``."""

    config: str
    checkpoint: str
    annotations: str
    images: int
    metrics: dict[str, float]
    per_class: dict[str, float]
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
        checkpoint: what the file holds; its ``meta`` tells epoch and seed, where MMEngine wrote it.
        path: its file.
        images: images evaluated.
        metrics: what the evaluator returned.
        tta: whether test-time augmentation was on; the folder is then ``results_tta``, which tables leave out.
    """
    by_name = {key.rpartition('bbox_')[2]: value for key, value in metrics.items() if 'bbox_' in key}
    evaluators = cfg.test_evaluator if isinstance(cfg.test_evaluator, list) else [cfg.test_evaluator]
    meta = checkpoint.get('meta', {})
    result = Result(
        config=name,
        checkpoint=Path(path).name,
        annotations=next((str(evaluator['ann_file']) for evaluator in evaluators if evaluator.get('ann_file')), ''),
        images=images,
        metrics={key: by_name[key] for key in STATS if key in by_name},
        per_class={
            key.partition('/')[2].removesuffix(CLASS_SUFFIX): value
            for key, value in metrics.items()
            if key.endswith(CLASS_SUFFIX)
        },
        epoch=int(meta.get('epoch', 0)),
        seed=int(meta.get('seed') or 0),
    )
    out = result_path(cfg.work_dir, path, tta)
    out.parent.mkdir(parents=True, exist_ok=True)
    versions = dict(mixdet=__version__, torch=torch.__version__)
    out.write_text(json.dumps({**result._asdict(), 'versions': versions}, indent=1) + '\n')
    return out


def result_path(work_dir: Union[str, Path], checkpoint: Union[str, Path], tta: bool = False) -> Path:
    """Where the evaluation of ``checkpoint`` is kept; its pictures lie in the folder of the same name."""
    return Path(work_dir, f'{FOLDER}_tta' if tta else FOLDER, f'{Path(checkpoint).stem}.json')


def read_results(folder: Union[str, Path]) -> list[Result]:
    """Of every work dir below ``folder`` its newest evaluation. Raises UserError for a file that cannot be read."""
    newest: dict[Path, Path] = {}
    for path in sorted(Path(folder).rglob(f'{FOLDER}/*.json'), key=lambda path: path.stat().st_mtime_ns):
        newest[path.parent] = path
    return [_read(path) for _, path in sorted(newest.items())]


def _read(path: Path) -> Result:
    try:
        content = json.loads(path.read_text())
        result = Result(**{field: content[field] for field in Result._fields})
        float(result.metrics['mAP'])
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise UserError(
            f'{path} is no results file of tools/test.py ({type(error).__name__}: {error}); remove it'
        ) from error
    return result
