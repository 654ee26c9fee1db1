import csv
import io

import pytest
from helpers import ROOT

from mixdet.benchmark.complexity import Complexity
from mixdet.errors import UserError
from mixdet.evaluation.results import Result
from mixdet.reproduction.paper import TABLE1
from mixdet.reproduction.table1 import (
    ROW_NAMES,
    Table1Row,
    find_config,
    markdown_table,
    merge_results,
    row_name,
    table1_csv,
    table_cells,
)
from mixdet.reproduction.table1_plot import plot_table1

CONFIGS = ROOT / 'configs'


def make_rows():
    rows = []
    for name in ('mobilenetv2-baseline3x3', 'mobilenetv2-mixconv357', 'mixnet-s'):
        cost = Complexity(5_000_000, 800_000_000, ())
        rows.append(
            Table1Row(name, find_config(CONFIGS, name), cost, cost, TABLE1.get(name), {'cpu': 12.5}),
        )
    return rows


def result(row, ap, annotations='data/coco/annotations/instances_val2017.json', images=5000):
    return Result(row.config.stem, 'epoch_1.pth', annotations, images, {'mAP': ap}, {})


def test_every_row_has_its_config():
    for name in ROW_NAMES:
        assert row_name(find_config(CONFIGS, name)) == name
    in1k = find_config(CONFIGS, 'mobilenetv2-baseline3x3-in1k')
    assert find_config(CONFIGS, str(in1k)) == in1k
    with pytest.raises(UserError, match='--rows mobilenetv3: must be a config file, or one of mobilenetv1-baseline3x3'):
        find_config(CONFIGS, 'mobilenetv3')


def test_nothing_of_the_papers_stands_in_our_column():
    heads, cells = table_cells(make_rows())
    assert [line[-1] for line in cells] == ['not trained'] * 3
    column = heads.index('mAP (paper)')
    assert [line[column] for line in cells] == ['21.5', '22.3', '-']
    assert (
        markdown_table(heads, cells).splitlines()[2].startswith('| mobilenetv2-baseline3x3 | 4.35M | 5.00M | 0.79G |')
    )


def test_results_are_merged_by_config_and_data():
    rows = make_rows()
    cells = 'blood/annotations/val.json'
    evaluations = [
        result(rows[0], 0.2),
        result(rows[0], 0.5, cells, 87),
        result(rows[1], 0.5, cells, 87),
        result(rows[1], 0.6, cells, 87),
        Result('somebody_elses', 'x.pth', cells, 87, {'mAP': 0.9}, {}),
    ]
    merge_results(rows, evaluations)
    heads, lines = table_cells(rows)
    assert heads[-2:] == ['AP ours: coco/instances_val2017, 5000 images', 'AP ours: blood/val, 87 images']
    assert [line[-2:] for line in lines] == [
        ['20.0', '50.0'],
        ['not trained', '55.0 ± 7.1 (2 seeds)'],
        ['not trained', 'not trained'],
    ]
    records = list(csv.DictReader(io.StringIO(table1_csv(rows))))
    assert [record['ap'] for record in records] == ['0.2', '0.5', '0.5', '0.6', '']
    assert records[0]['paper_map'] == '21.5' and records[-1]['paper_map'] == ''
    assert records[0]['latency_ms_cpu'] == '12.5'


def points(figure_rows, monkeypatch, tmp_path):
    """What is drawn: panel title, label and number of points."""
    drawn = []
    from matplotlib.axes import Axes

    original = Axes.scatter

    def scatter(self, x, y, **style):
        drawn.append((style['label'], list(zip(x, y))))
        return original(self, x, y, **style)

    monkeypatch.setattr(Axes, 'scatter', scatter)
    plot_table1(figure_rows, tmp_path / 'table1.png')
    assert (tmp_path / 'table1.png').read_bytes()[:4] == b'\x89PNG'
    return drawn


def test_plot_shows_the_papers_points_and_ours_apart(monkeypatch, tmp_path):
    rows = make_rows()
    paper = ("the paper's figures", [(0.79, 21.5), (0.88, 22.3)])
    assert points(rows, monkeypatch, tmp_path) == [paper]
    merge_results(rows, [result(rows[1], 0.25)])
    assert points(rows, monkeypatch, tmp_path) == [
        paper,
        ('ours: coco/instances_val2017, 5000 images', [(0.8, 25.0)]),
    ]
