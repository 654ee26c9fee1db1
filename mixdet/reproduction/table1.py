"""The paper's Table 1 from our configs: sizes, latency and trained results beside the paper's figures."""

import csv
import io
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Optional, Union

import torch

from mixdet.benchmark.complexity import Complexity
from mixdet.benchmark.latency import measure_latency
from mixdet.engine.config import load_config
from mixdet.errors import UserError
from mixdet.evaluation.results import EvaluationResult
from mixdet.registry import MODELS
from mixdet.reproduction.counting import count_config
from mixdet.reproduction.paper import TABLE1, PaperRow
from mixdet.text import csv_cell, markdown_cell

ROW_NAMES = (*TABLE1, 'mixnet-s', 'mixnet-m', 'mixnet-l', 'mixnet-xl')
NOT_TRAINED = 'not trained'


@dataclass
class Table1Row:
    """A config of the table.

    Attributes:
        name: such as ``mobilenetv2-mixconv357``.
        config: its file.
        as_trained, as_in_paper: its cost by the two conventions of :func:`count_config`, 'real' and 'paper'.
        paper: the row of the paper's table, if it has one.
        latency: ms by device; empty if not measured.
        trained: AP of each seed, by data set.
    """

    name: str
    config: Path
    as_trained: Complexity
    as_in_paper: Complexity
    paper: Optional[PaperRow] = None
    latency: dict[str, float] = field(default_factory=dict)
    trained: dict[str, list[float]] = field(default_factory=dict)


def find_config(configs: Path, name: str) -> Path:
    """The config file of a row, found in the folder ``configs`` by its name, such as ``mobilenetv2-mixconv357``.

    ``name`` may also be the path of a config file. Raises UserError if there is no such config.
    """
    if name.endswith('.py') and Path(name).is_file():
        return Path(name)
    found = list(configs.glob(f'*/ssdlite_{name}_*coco.py'))
    if len(found) != 1:
        raise UserError(f'--rows {name}: must be a config file, or one of {", ".join(ROW_NAMES)}')
    return found[0]


def count_row(path: Path) -> Table1Row:
    """The row of the config in ``path``, counted. Raises UserError if it cannot be read, ValueError if not SSDLite."""
    cfg = load_config(str(path))
    name = row_name(path)
    return Table1Row(name, path, count_config(cfg), count_config(cfg, convention='paper'), TABLE1.get(name))


def add_latency(rows: Sequence[Table1Row], rounds: int) -> None:
    """Time the detectors of ``rows`` on the CPU, and on the GPU if there is one: the median of ``rounds`` passes."""
    models = {str(row.config): MODELS.build(load_config(str(row.config)).model) for row in rows}
    for device in ['cpu', *(['cuda'] if torch.cuda.is_available() else [])]:
        times = measure_latency(models, device=device, rounds=rounds)
        for row in rows:
            row.latency[device] = times[str(row.config)]


def row_name(config: Union[str, Path]) -> str:
    """``mobilenetv2-mixconv357`` of ``ssdlite_mobilenetv2-mixconv357_8xb24-600e_coco.py``."""
    return Path(config).stem.removeprefix('ssdlite_').partition('_')[0]


def merge_results(rows: Sequence[Table1Row], results: Iterable[EvaluationResult]) -> None:
    """Add the AP of each evaluation to the row of its config; evaluations of other configs are left out."""
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


def table_cells(rows: Sequence[Table1Row]) -> tuple[list[str], list[list[str]]]:
    """The column heads and the cells of each row.

    Parameters and multiply-adds counted as in the paper stand beside the paper's own figures; those of the detector
    as it is trained follow.
    """
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
                f'{row.as_in_paper.params / 1e6:.2f}M',
                paper[1],
                f'{row.as_in_paper.macs / 1e9:.2f}G',
                f'{row.as_trained.params / 1e6:.3f}M',
                f'{row.as_trained.macs / 1e9:.3f}G',
                *(f'{row.latency[device]:.1f}' for device in devices),
                f'{row.paper.map:.1f}' if row.paper else '-',
                *(_ap(row.trained.get(data)) for data in data_sets or ['none']),
            ]
        )
    return heads, cells


def _ap(values: Optional[list[float]]) -> str:
    """In percent, as in the paper: the mean, with the standard deviation if there are several seeds."""
    if not values:
        return NOT_TRAINED
    mean = f'{100 * statistics.mean(values):.1f}'
    return f'{mean} ± {100 * statistics.stdev(values):.1f} ({len(values)} seeds)' if len(values) > 1 else mean


def markdown_table(heads: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [heads, ['---'] * len(heads), *cells]
    return ''.join(f'| {" | ".join(map(markdown_cell, line))} |\n' for line in lines)


def table1_csv(rows: Sequence[Table1Row]) -> str:
    """All figures unrounded: a line for each trained seed of a row, one line with an empty AP if none is trained."""
    devices = list(rows[0].latency) if rows else []
    out = io.StringIO()
    writer = csv.writer(out, lineterminator='\n')
    writer.writerow(
        ['config', 'params', 'macs', 'params_paper_convention', 'macs_paper_convention']
        + [f'latency_ms_{device}' for device in devices]
        + ['paper_params_m', 'paper_macs_g', 'paper_map', 'data', 'ap']
    )
    for row in rows:
        sizes = [row.as_trained.params, row.as_trained.macs, row.as_in_paper.params, row.as_in_paper.macs]
        latency = [row.latency[device] for device in devices]
        paper = row.paper or ('', '', '')
        trained = [[csv_cell(data), str(ap)] for data, values in row.trained.items() for ap in values]
        writer.writerows([csv_cell(row.name), *sizes, *latency, *paper, *result] for result in trained or [['', '']])
    return out.getvalue()
