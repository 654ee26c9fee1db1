"""What the page says is what the files say; the page and the READMEs in the repository are up to date."""

import re

import pytest
from helpers import ROOT
from study_examples import result

from mixdet.reproduction.paper import TABLE1
from mixdet.reproduction.results_page import (
    MARK,
    PICTURES,
    Results,
    readme_with_results,
    results_page,
    split_results,
)
from mixdet.reproduction.run_results import read_choices, read_run_results

RESULTS = ROOT / 'docs/results'
FAMILIES = ['ssdlite_mobilenetv1', 'ssdlite_mobilenetv2', 'ssdlite_mixnet']
# AP by kernels and seed
APS = {
    'baseline3x3': (0.20, 0.22, 0.24),
    'depthwise5x5': (0.21, 0.23, 0.25),
    'mixconv35': (0.22, 0.23, 0.27),
    'depthwise7x7': (0.19, 0.20, 0.21),
    'mixconv357': (0.24, 0.25, 0.26),
}


def both_networks(seeds=3, **changes):
    return [
        result(f'{family}-{kernels}', seed=seed, ap=aps[seed], **changes)
        for family in ('mobilenetv1', 'mobilenetv2')
        for kernels, aps in APS.items()
        for seed in range(seeds)
    ]


def rows_of(page, heading):
    """The cells of the table that follows a heading."""
    part = page.partition(f'# {heading}\n')[2].partition('\n#')[0]
    lines = [line for line in part.splitlines() if line.startswith('|')]
    return [[cell.strip() for cell in line.split('|')[1:-1]] for line in lines[2:]]


def page_of(runs, chosen=()):
    return results_page(split_results(runs, list(chosen)), 'python tools/study.py')


def test_ap_by_row_in_the_order_of_the_paper():
    rows = rows_of(page_of(both_networks()[::-1]), 'neu-det')
    assert [row[0] for row in rows] == list(TABLE1)
    assert rows[0] == [
        'mobilenetv1-baseline3x3', '5.00M', '0.600G', '22.0 ± 2.0', '44.0 ± 4.0', '11.0 ± 1.0', '3', '21.7'
    ]  # fmt: skip


def test_pairs_are_of_the_same_seed():
    rows = rows_of(page_of(both_networks()), 'Mixed against vanilla kernels')
    found = {tuple(row[1:3]): row[3:] for row in rows}
    assert found['mixconv35 - baseline3x3', 'mobilenetv1'] == ['+2.0', '-0.5 to +4.5', '3 of 3']
    assert found['mixconv35 - depthwise5x5', 'mobilenetv2'] == ['+1.0', '-1.5 to +3.5', '2.5 of 3']
    assert found['mixconv357 - depthwise7x7', 'both'] == ['+5.0', '+5.0 to +5.0', '6 of 6']
    assert len(rows) == 5 * 3 and {row[0] for row in rows} == {'neu-det'}


def test_a_single_seed_has_neither_deviation_nor_interval():
    page = page_of(both_networks(1))
    assert rows_of(page, 'neu-det')[0][3:6] == ['20.0', '40.0', '10.0']
    assert rows_of(page, 'Mixed against vanilla kernels')[0][3:] == ['+2.0', '-', '1 of 1']


def test_agreement_with_the_paper():
    one, two = rows_of(page_of(both_networks()), 'Is the order that of the paper?')
    assert one[:2] == ['neu-det', 'mobilenetv1'] and one[3] == '8 of 10'
    assert two[:2] == ['neu-det', 'mobilenetv2'] and two[3].endswith('of 9')  # two rows are equal in the paper


def test_choices_and_their_runs_are_no_results():
    tried = [dict(settings=dict(lr=lr, ema=True), ap=[ap]) for lr, ap in ((0.1, 0.2), (0.01, 0.3))]
    chosen = dict(family='f', row='f-3x3', data='neu-det_held-out', chosen=dict(lr=0.01, ema=True), tried=tried)
    page = page_of([*both_networks(1), result('f-3x3', 'neu-det_held-out', ap=0.9)], [chosen])
    assert rows_of(page, 'Settings') == [
        ['f', 'f-3x3', 'lr=0.1, ema=True', '20.0', ''],
        ['f', 'f-3x3', 'lr=0.01, ema=True', '30.0', 'chosen'],
    ]
    assert 'held-out' not in page and '90.0' not in page


def test_data_and_time():
    runs = [*both_networks(), *both_networks(2, data='bccd', jobs=4)]
    page = page_of([*runs[:-1]])
    assert rows_of(page, 'Data')[0] == [
        'neu-det', '1237', '354', '2', '224x224', '10 (520 iterations of 24)', '10', '3'
    ]  # fmt: skip
    assert rows_of(page, 'Data')[1][-1] == '1 to 2'
    assert [row[:7] for row in rows_of(page, 'Time')] == [
        ['bccd', 'NVIDIA H100', '4', '19', '100', '192', '8'],
        ['neu-det', 'NVIDIA H100', '16', '30', '100', '192', '8'],
    ]


@pytest.mark.parametrize('kernels', ['baseline3x3', 'mixconv35'])
def test_a_page_of_little_reads_well(kernels):
    page = page_of([result(f'mobilenetv1-{kernels}')])
    assert 'Mixed against' not in page and 'order that of the paper' not in page and '## Settings' not in page
    empty = page_of([])
    assert 'No run has been finished yet.' in empty and '.png' not in empty
    for text in (page, empty):
        assert text.startswith(MARK) and '## Commands' in text and 'nan' not in text and '\n\n\n' not in text


README = """# Family

| config | params | MACs | mAP (paper) | mAP (ours) | AP, old (ours) |
|---|---|---|---|---|---|
| [mobilenetv1-mixconv35](a.py) | 1M | 2G | 22.2 | not trained | 9 |
| [mobilenetv1-other](b.py) | 1M | 2G | - | not trained | 9 |

| config | other |
|---|---|
| [mobilenetv1-mixconv35](a.py) | left alone |
"""


def test_readmes_get_a_column_for_each_data_set_and_lose_old_ones():
    results = split_results([*both_networks(), result('mixnet-s', 'deeppcb')], [])
    text = readme_with_results(README, results)
    assert text.splitlines()[2:6] == [
        '| config | params | MACs | mAP (paper) | mAP (ours) | AP, neu-det (ours) |',
        '|---|---|---|---|---|---|',
        '| [mobilenetv1-mixconv35](a.py) | 1M | 2G | 22.2 | not trained | 24.0 ± 2.6 |',
        '| [mobilenetv1-other](b.py) | 1M | 2G | - | not trained | not trained |',
    ]
    assert text.splitlines()[6:] == README.splitlines()[6:]
    assert readme_with_results(text, results) == text
    assert readme_with_results('no table\n', results) == 'no table\n'


def stored() -> Results:
    return split_results(read_run_results(RESULTS), read_choices(RESULTS))


def test_the_page_is_that_of_the_result_files():
    text = (ROOT / 'docs/results.md').read_text(encoding='utf-8')
    command = re.search(r'^python tools/study.py .*', text, re.MULTILINE)[0]
    assert text == results_page(stored(), command)
    for name in PICTURES:
        assert (ROOT / 'docs' / name).is_file() is bool(stored().runs)


@pytest.mark.parametrize('family', FAMILIES)
def test_the_readmes_are_those_of_the_result_files(family):
    text = (ROOT / f'configs/{family}/README.md').read_text(encoding='utf-8')
    assert readme_with_results(text, stored()) == text


def test_results_are_of_rows_that_can_be_trained_again():
    configs = {path.stem for path in (ROOT / 'configs').glob('*/*.py')}
    for run in stored().runs:
        assert run.config in configs and run.command.startswith('python tools/study.py configs/_base_/studies/')
        assert run.command.endswith(f'--data {run.data} --rows {run.row} --seeds {run.seed}')
        assert re.fullmatch(r'[\w.-]+', run.data) and 0 <= run.ap <= 1
