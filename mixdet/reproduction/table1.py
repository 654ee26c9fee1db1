"""The paper's Table 1 from our configs: sizes, latency and trained results beside the paper's figures."""

import csv
import io
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Optional, Union

import torch
from mmengine.config import Config

from mixdet.benchmark.complexity import Complexity
from mixdet.benchmark.latency import measure_latency
from mixdet.errors import UserError
from mixdet.evaluation.results import EvaluationResult
from mixdet.registry import MODELS
from mixdet.reproduction.counting import count_config
from mixdet.reproduction.paper import TABLE1, PaperRow

ROWS = (*TABLE1, 'mixnet-s', 'mixnet-m', 'mixnet-l', 'mixnet-xl')
NOT_TRAINED = 'not trained'


@dataclass
class Row:
    """A config of the table. ``real`` and ``paper_count``: its cost by the two conventions of ``count_config``, where
    the paper's is defined. ``latency``: ms by device. ``trained``: AP of each seed, by data set. ``paper``: its row
    in the paper, if it has one."""

    name: str
    config: Path
    real: Complexity
    paper_count: Complexity
    paper: Optional[PaperRow] = None
    latency: dict[str, float] = field(default_factory=dict)
    trained: dict[str, list[float]] = field(default_factory=dict)


def find_config(configs: Path, name: str) -> Path:
    """The config file of a row: by its name, such as ``mobilenetv2-mixconv357``, or the path of a file.

    Raises UserError if there is none.
    """
    if name.endswith('.py') and Path(name).is_file():
        return Path(name)
    found = list(configs.glob(f'*/ssdlite_{name}_*coco.py'))
    if len(found) != 1:
        raise UserError(f'--rows {name}: must be a config file, or one of {", ".join(ROWS)}')
    return found[0]


def build_rows(paths: Iterable[Path], rounds: int = 10) -> list[Row]:
    """Build and count the detectors of these configs, and time them on the CPU and on the GPU if there is one."""
    rows, models = [], {}
    for path in paths:
        cfg = Config.fromfile(path)
        name = row_name(path)
        rows.append(Row(name, path, count_config(cfg), count_config(cfg, convention='paper'), TABLE1.get(name)))
        models[name] = MODELS.build(cfg.model)
    for device in ['cpu', *(['cuda'] if torch.cuda.is_available() else [])]:
        times = measure_latency(models, device=device, rounds=rounds)
        for row in rows:
            row.latency[device] = times[row.name]
    return rows


def row_name(config: Union[str, Path]) -> str:
    """``mobilenetv2-mixconv357`` of ``ssdlite_mobilenetv2-mixconv357_8xb24-600e_coco.py``."""
    return Path(config).stem.removeprefix('ssdlite_').partition('_')[0]


def merge_results(rows: Sequence[Row], results: Iterable[EvaluationResult]) -> None:
    """Put the AP of each evaluation into the row of its config."""
    by_config = {row.config.stem: row for row in rows}
    for result in results:
        ap = result.numbers.bbox.stats.get('mAP')
        if result.config in by_config and ap is not None:
            by_config[result.config].trained.setdefault(_data_name(result), []).append(ap)


def _data_name(result: EvaluationResult) -> str:
    """``coco/instances_val2017, 5000 images``: the annotation file with the folder of its data set."""
    path = Path(result.annotations)
    folder = path.parts[-3] if len(path.parts) > 2 else ''
    return f'{folder}/{path.stem}, {result.images} images'.lstrip('/')


def table(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """Heads and cells. Params and MACs by the paper's convention stand beside the paper's own, and then as trained."""
    devices = list(rows[0].latency) if rows else []
    data_sets = list(dict.fromkeys(data for row in rows for data in row.trained))
    heads = ['config', 'params (paper)', 'params, so counted', 'MACs (paper)', 'MACs, so counted', 'params', 'MACs']
    heads += [f'ms, {device}' for device in devices]
    heads += ['mAP (paper)', *(f'AP ours: {data}' for data in data_sets or ['none'])]
    cells = []
    for row in rows:
        paper = (f'{row.paper.params:.2f}M', f'{row.paper.macs:.2f}G') if row.paper else ('-', '-')
        cells.append(
            [
                row.name,
                paper[0],
                f'{row.paper_count.params / 1e6:.2f}M',
                paper[1],
                f'{row.paper_count.macs / 1e9:.2f}G',
                f'{row.real.params / 1e6:.3f}M',
                f'{row.real.macs / 1e9:.3f}G',
                *(f'{row.latency[device]:.1f}' for device in devices),
                f'{row.paper.map:.1f}' if row.paper else '-',
                *(_ap(row.trained.get(data)) for data in data_sets or ['none']),
            ]
        )
    return heads, cells


def _ap(values: Optional[list[float]]) -> str:
    """In percent as the paper: the mean, and over several seeds their standard deviation."""
    if not values:
        return NOT_TRAINED
    mean = f'{100 * statistics.mean(values):.1f}'
    return f'{mean} ± {100 * statistics.stdev(values):.1f} ({len(values)} seeds)' if len(values) > 1 else mean


def to_markdown(heads: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [heads, ['---'] * len(heads), *cells]
    return ''.join(f'| {" | ".join(line)} |\n' for line in lines)


def to_csv(rows: Sequence[Row]) -> str:
    """All figures unrounded, a line per row and trained seed (one line with an empty AP where there is none)."""
    devices = list(rows[0].latency) if rows else []
    out = io.StringIO()
    writer = csv.writer(out, lineterminator='\n')
    writer.writerow(
        ['config', 'params', 'macs', 'params_paper_convention', 'macs_paper_convention']
        + [f'latency_ms_{device}' for device in devices]
        + ['paper_params_m', 'paper_macs_g', 'paper_map', 'data', 'ap']
    )
    for row in rows:
        figures = [row.name, row.real.params, row.real.macs, row.paper_count.params, row.paper_count.macs]
        figures += [row.latency[device] for device in devices]
        figures += list(row.paper or ('', '', ''))
        trained = [(data, ap) for data, values in row.trained.items() for ap in values]
        for data, ap in trained or [('', '')]:
            writer.writerow([*figures, data, ap])
    return out.getvalue()
