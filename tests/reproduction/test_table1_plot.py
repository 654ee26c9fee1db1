from pathlib import Path

import pytest
from matplotlib.axes import Axes

from mixdet.benchmark.complexity import Complexity
from mixdet.reproduction.paper import TABLE1
from mixdet.reproduction.table1 import Table1Row
from mixdet.reproduction.table1_plot import plot_table1

PAPER = ("the paper's figures", [(0.79, 21.5), (0.88, 22.3)], False)
COCO = 'coco/instances_val2017, 5000 images'
BLOOD = 'blood/val, 87 images'


def make_rows(**trained):
    """Three rows; ``trained``: by the second part of a row's name, AP of each seed by data set."""
    real, paper = Complexity(5_000_000, 800_000_000, ()), Complexity(4_000_000, 700_000_000, ())
    names = ('mobilenetv2-baseline3x3', 'mobilenetv2-mixconv357', 'mixnet-s')
    return [
        Table1Row(name, Path('c.py'), real, paper, TABLE1.get(name), trained=trained.get(name.partition('-')[2], {}))
        for name in names
    ]


@pytest.fixture
def drawn(monkeypatch):
    """What is drawn: label, points, and whether the axis is the right one."""
    drawn = []
    original = Axes.scatter

    def scatter(self, x, y, **style):
        drawn.append((style['label'], list(zip(x, y)), self.yaxis.get_label_position() == 'right'))
        return original(self, x, y, **style)

    monkeypatch.setattr(Axes, 'scatter', scatter)
    return drawn


def test_points_of_the_paper(drawn, tmp_path):
    plot_table1(make_rows(), tmp_path / 'table1.png')
    assert (tmp_path / 'table1.png').read_bytes()[:4] == b'\x89PNG'
    assert drawn == [PAPER]


def test_nothing_is_drawn_of_untrained_mixnets(drawn, tmp_path):
    plot_table1(make_rows()[2:], tmp_path / 'table1.png')
    assert (tmp_path / 'table1.png').is_file() and not drawn


def test_names_of_any_kind(tmp_path):
    rows = make_rows(mixconv357={r'$\frac$, 2 images': [0.25]})
    rows[1].name = r'mobilenetv2-$\frac$'
    plot_table1(rows, tmp_path / 'table1.png')
    assert (tmp_path / 'table1.png').is_file()


def test_our_points_are_apart_from_the_papers(drawn, tmp_path):
    plot_table1(make_rows(mixconv357={COCO: [0.25, 0.27]}), tmp_path / 'table1.png')
    assert drawn == [PAPER, (f'ours: {COCO}', [(0.8, pytest.approx(26.0))], False)]


def test_other_data_has_its_own_axis_and_mixnets_are_in_both_panels(drawn, tmp_path):
    plot_table1(make_rows(mixconv357={BLOOD: [0.5]}, s={COCO: [0.3], BLOOD: [0.6]}), tmp_path / 'table1.png')
    mixnet = (f'ours: {COCO}', [(0.8, 30.0)], False)
    assert drawn == [
        (f'ours: {BLOOD}', [(0.8, 60.0)], True),
        mixnet,
        PAPER,
        (f'ours: {BLOOD}', [(0.8, 50.0), (0.8, 60.0)], True),
        mixnet,
    ]


def test_data_sets_other_than_coco_share_one_axis(drawn, monkeypatch, tmp_path):
    twins = []
    original = Axes.twinx
    monkeypatch.setattr(Axes, 'twinx', lambda self: twins.append(1) or original(self))
    plot_table1(make_rows(mixconv357={BLOOD: [0.5], 'cars/val, 9 images': [0.4]}), tmp_path / 'table1.png')
    assert [right for _, _, right in drawn] == [False, True, True] and len(twins) == 1
