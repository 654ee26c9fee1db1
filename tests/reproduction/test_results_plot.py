import pytest
from study_examples import result

from mixdet.errors import UserError
from mixdet.reproduction.results_page import PICTURES, Results
from mixdet.reproduction.results_plot import plot_results


def test_a_panel_for_each_data_set(tmp_path):
    rows = ('mobilenetv1-baseline3x3', 'mobilenetv1-mixconv35', 'mobilenetv2-mixconv$35')
    runs = [result(row, seed=seed, ap=0.2 + seed / 10) for row in rows for seed in (0, 1)]
    paths = plot_results(Results(runs, []), tmp_path / 'docs')
    assert [path.name for path in paths] == list(PICTURES)
    one = [path.stat().st_size for path in paths]
    plot_results(Results([*runs, result(rows[0], 'bccd', loss=[[1, 2.0]])], []), tmp_path / 'docs')
    assert all(10_000 < before < path.stat().st_size < 250_000 for before, path in zip(one, paths))


def test_without_results_nothing_is_drawn(tmp_path):
    assert plot_results(Results([], []), tmp_path / 'docs') == [] and not (tmp_path / 'docs').exists()


def test_a_picture_that_cannot_be_written(tmp_path):
    (tmp_path / 'results_ap.png').mkdir()
    with pytest.raises(UserError, match='results_ap.png cannot be written'):
        plot_results(Results([result('mobilenetv1-mixconv35')], []), tmp_path)
