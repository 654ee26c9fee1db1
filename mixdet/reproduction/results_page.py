"""The page of the results of a study, and the columns of the families' READMEs, from the result files."""

import math
import re
import statistics
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from mixdet.reproduction.paired import CONFIDENCE, agreement, mean_and_deviation, paired_difference
from mixdet.reproduction.paper import TABLE1
from mixdet.reproduction.run_results import RunResult
from mixdet.reproduction.study import HELD_OUT
from mixdet.reproduction.table1 import NOT_TRAINED, markdown_table
from mixdet.text import printable

MARK = '<!-- written by tools/results_page.py; do not edit -->'
PICTURES = {'results_ap.png': 'AP against multiply-adds', 'results_loss.png': 'Training loss'}
# mixed kernels, and the vanilla ones of the same network that they are compared with
PAIRS = (
    ('mixconv35', 'baseline3x3'),
    ('mixconv35', 'depthwise5x5'),
    ('mixconv357', 'baseline3x3'),
    ('mixconv357', 'depthwise5x5'),
    ('mixconv357', 'depthwise7x7'),
)
README_CELLS = 5  # of the READMEs' own: config, params, MACs, the paper's mAP, ours on COCO


class Results(NamedTuple):
    """All results of a folder: the ``runs`` on test images, and of each family what was ``chosen`` by held-out ones."""

    runs: Sequence[RunResult]
    chosen: Sequence[dict]

    @property
    def data_sets(self) -> list[str]:
        """Names, in the order in which most runs are done."""
        names = {run.data for run in self.runs}
        return sorted(names, key=lambda name: (-sum(run.data == name for run in self.runs), name))

    def rows(self, data: str) -> dict[str, list[RunResult]]:
        """The runs of each row on a data set, by seed; rows in the order of the paper's table, then by name."""
        order = {name: i for i, name in enumerate(TABLE1)}
        found: dict[str, list[RunResult]] = {}
        for run in sorted(self.runs, key=lambda run: (order.get(run.row, len(order)), run.row, run.seed)):
            if run.data == data:
                found.setdefault(run.row, []).append(run)
        return found

    def by_seed(self, data: str, family: str, kernels: str) -> dict[tuple[str, int], float]:
        """AP of ``<family>-<kernels>`` by family and seed."""
        return {(family, run.seed): run.ap for run in self.rows(data).get(f'{family}-{kernels}', ())}


def split_results(runs: Iterable[RunResult], chosen: Sequence[dict]) -> Results:
    """Results without the runs by which settings were chosen: those are in ``chosen``."""
    return Results([run for run in runs if not run.data.endswith(HELD_OUT)], chosen)


def results_page(results: Results, command: str) -> str:
    """The page in Markdown, with those parts for which there are results.

    Args:
        results: of a study.
        command: that trains everything.
    """
    parts = [MARK, '# Results on small data sets', INTRODUCTION]
    if results.runs:
        for part in (_data, _tables, _pictures, _pairs, _orders, _choices, _time):
            parts += part(results)
    else:
        parts.append('No run has been finished yet.')
    parts += [LIMITS, '## Commands', COMMANDS.replace('COMMAND', command)]
    return '\n\n'.join(part.strip('\n') for part in parts if part) + '\n'


def readme_with_results(text: str, results: Results) -> str:
    """A family's README with a column in the table of its rows for each data set that one of them was trained on."""
    lines = text.splitlines(keepends=True)
    table = [i for i, line in enumerate(lines) if line.startswith('|')]
    cells = {i: [cell.strip() for cell in re.split(r'(?<!\\)\|', lines[i].strip())[1:-1]] for i in table}
    head = next((i for i in table if cells[i][0] == 'config' and 'mAP (ours)' in cells[i]), None)
    if head is None:
        return text
    body = [i for i in table if i > head + 1 and set(range(head, i)) <= set(table)]
    rows = {i: (re.match(r'\[(.+?)\]', cells[i][0]) or ['', ''])[1] for i in body}
    names = [name for name in results.data_sets if set(rows.values()) & set(results.rows(name))]
    cells[head][README_CELLS:] = [f'AP, {name} (ours)' for name in names]
    cells[head + 1][README_CELLS:] = ['---'] * len(names)
    for i, row in rows.items():
        aps = [[run.ap for run in results.rows(name).get(row, ())] for name in names]
        cells[i][README_CELLS:] = [mean_and_deviation(values) if values else NOT_TRAINED for values in aps]
    for i in (head, head + 1, *body):
        lines[i] = f'| {" | ".join(cells[i])} |\n' if i != head + 1 else f'|{"|".join(cells[i])}|\n'
    return ''.join(lines)


def _data(results: Results) -> list[str]:
    cells = []
    for name in results.data_sets:
        runs = [run for run in results.runs if run.data == name]
        first = runs[0]
        seeds = [len(of_row) for of_row in results.rows(name).values()]
        cells.append(
            [
                name,
                first.images['train'],
                first.images['test'],
                len(first.per_class),
                f'{first.input_size[0]}x{first.input_size[1]}',
                f'{first.epochs} ({first.iterations} iterations of {first.batch_size})',
                len(seeds),
                _range(seeds),
            ]
        )
    heads = ['data set', 'training images', 'test images', 'classes', 'input, px', 'epochs', 'rows', 'seeds of a row']
    return ['## Data', _table(heads, cells)]


def _tables(results: Results) -> list[str]:
    parts = ['## AP', 'In percent, mean ± standard deviation over the seeds. ' + PAPER_COLUMN]
    for name in results.data_sets:
        cells = []
        for row, runs in results.rows(name).items():
            numbers = [mean_and_deviation([run.stats[key] for run in runs]) for key in ('mAP', 'mAP_50', 'mAP_75')]
            size = [f'{runs[0].params / 1e6:.2f}M', f'{runs[0].macs / 1e9:.3f}G']
            paper = f'{TABLE1[row].map:.1f}' if row in TABLE1 else '-'
            cells.append([row, *size, *numbers, len(runs), paper])
        heads = ['row', 'params', 'MACs', 'AP', 'AP50', 'AP75', 'seeds', "the paper's COCO mAP"]
        parts += [f'### {printable(name)}', _table(heads, cells)]
    return parts


def _pictures(results: Results) -> list[str]:
    return [f'![{title}]({file})' for file, title in PICTURES.items()]


def _pairs(results: Results) -> list[str]:
    families = sorted({run.family for run in results.runs})
    cells = []
    for name in results.data_sets:
        for mixed, vanilla in PAIRS:
            values = {
                family: (results.by_seed(name, family, mixed), results.by_seed(name, family, vanilla))
                for family in families
            }
            both = [dict(item for pair in values.values() for item in pair[i].items()) for i in (0, 1)]
            groups = {family: [*pair] for family, pair in values.items()}
            if len(groups) > 1:
                groups['both'] = both
            for who, (a, b) in groups.items():
                found = paired_difference(a, b)
                if found is not None:
                    low, high = found.interval or (math.nan, math.nan)
                    interval = f'{100 * low:+.1f} to {100 * high:+.1f}' if found.interval else '-'
                    ahead = f'{found.ahead:g} of {found.pairs}'
                    cells.append([name, f'{mixed} - {vanilla}', who, f'{100 * found.mean:+.1f}', interval, ahead])
    if not cells:
        return []
    heads = ['data set', 'difference', 'network', 'AP, points', f'{CONFIDENCE:.0%} interval', 'ahead']
    return ['## Mixed against vanilla kernels', PAIRED, _table(heads, cells)]


def _orders(results: Results) -> list[str]:
    cells = []
    for name in results.data_sets:
        means = {row: statistics.fmean(run.ap for run in runs) for row, runs in results.rows(name).items()}
        for family in sorted({run.family for run in results.runs}):
            ours = {row: ap for row, ap in means.items() if row.startswith(f'{family}-')}
            found = agreement(ours, {row: figures.map for row, figures in TABLE1.items()})
            if found is not None:
                cells.append([name, family, f'{found.tau:+.2f}', f'{found.same} of {found.pairs}'])
    heads = ['data set', 'network', "Kendall's tau", 'pairs of rows in the order of the paper']
    return ['## Is the order that of the paper?', ORDER, _table(heads, cells)] if cells else []


def _choices(results: Results) -> list[str]:
    cells = []
    for choice in results.chosen:
        for tried in choice['tried']:
            settings = ', '.join(f'{key}={value}' for key, value in tried['settings'].items())
            mark = 'chosen' if tried['settings'] == choice['chosen'] else ''
            cells.append([choice['family'], choice['row'], settings, mean_and_deviation(tried['ap']), mark])
    heads = ['family', 'tried with', 'settings', 'AP, images held out', '']
    return ['## Settings', CHOSEN, _table(heads, cells)] if cells else []


def _time(results: Results) -> list[str]:
    groups: dict[tuple, list[RunResult]] = {}
    for run in results.runs:
        versions = ', '.join(f'{name} {version}' for name, version in run.versions.items())
        groups.setdefault((run.data, run.device, run.jobs, versions), []).append(run)
    cells = []
    for (data, device, jobs, versions), runs in sorted(groups.items()):
        per_run = statistics.fmean(run.seconds['train'] for run in runs)
        steps = statistics.fmean(1000 * run.seconds['train'] / run.iterations for run in runs)
        test = statistics.fmean(run.seconds['test'] for run in runs)
        cells.append([data, device, jobs, len(runs), f'{per_run:.0f}', f'{steps:.0f}', f'{test:.0f}', versions])
    heads = ['data set', 'device', 'side by side', 'runs', 's of a training', 'ms of an iteration', 's of a test']
    return ['## Time', TIME, _table([*heads, 'versions'], cells)]


def _table(heads: Sequence[str], cells: Sequence[Sequence[Any]]) -> str:
    return markdown_table(heads, [[str(cell) for cell in line] for line in cells])


def _range(values: Sequence[int]) -> str:
    low, high = min(values), max(values)
    return str(low) if low == high else f'{low} to {high}'


INTRODUCTION = """
The rows of the paper's [Table 1](../README.md#table-1) trained on data sets that fit a small machine, each row with
several seeds, all rows under one protocol: does mixing kernels help there by more than the noise?

- Every row starts from ImageNet weights of the same network with 3x3 kernels. Larger kernels start as these, padded
  with zeros ([weights.md](weights.md#kernel-growth)), so all rows of a family compute the same at the start.
- All rows of a family have one schedule: AdamW, batch size 24, warm-up, cosine decay to 0. Learning rate and whether
  the moving average of the weights is tested are chosen by AP on a fifth of the *training* images that is held out,
  with the 3x3 row, so that the choice cannot favour mixed kernels. The test images play no part in any choice.
- What is tested is the end of the training, never the best checkpoint.
- Seeds decide the initial head, the order of the images and their augmentation; runs of the same seed are compared.
"""
PAPER_COLUMN = """The last column is the paper's figure for the same network on COCO at 320x320, which was not measured
here. Params and MACs are those of the detector as it was trained."""
PAIRED = """AP of the first minus AP of the second, run by run with the same seed, in points of AP (percent). The
interval is Student's t over the pairs; what it leaves out is said [below](#what-these-numbers-can-and-cannot-say).
"Ahead" counts the pairs in which the first is better, a tie as half. "both" takes the pairs of all networks."""
ORDER = """Of the five rows of a network, by mean AP, against the paper's COCO mAP. 1 is the same order, -1 the reverse;
pairs of rows with equal figures in the paper are left out of the count. With five rows chance alone gives
tau of +0.6 or more in 12 % of cases."""
CHOSEN = """Each family takes the settings with the highest AP for all of its rows, on all data sets."""
TIME = """Wall time with other runs side by side on the same device. Iterations include loading and augmenting the
images in the process that trains."""
LIMITS = """
## What these numbers can and cannot say

- They say how the rows compare after a short fine-tuning on few images. They are no COCO results, and say nothing about
  a training from scratch or for hundreds of epochs.
- The paper's rows had ImageNet trainings of their own; ours share the 3x3 network's, and have only the iterations above
  to put the new weights of larger kernels to use. A difference near 0 here does not contradict the paper.
- Standard deviations and intervals are over seeds. Other test images would move all rows, and by more where they are
  few; rows that are compared share them. Two seeds give an interval so wide that only the sign is of use.
- Several comparisons are made. One interval in twenty leaves out 0 by chance.
- A repetition on the same CPU with the same versions gives the same digits, one on a GPU does not: its sums come in no
  fixed order.
"""
COMMANDS = """
```bash
COMMAND
python tools/results_page.py --add work_dirs/table1/results   # copies them to docs/results, writes this page
```

The data sets lie in COCO format in `data/neu-det`, `data/bccd` and `data/deeppcb` (`configs/_base_/datasets/*_224.py`);
the weights in `checkpoints` ([weights.md](weights.md#fine-tuning)). `--jobs 4` trains four runs side by side; the same
command, started again or on other machines that share the folder, goes on with what is left. The file of each run in
`docs/results` holds the command that repeats it alone, with the choices that it depends on.
"""
