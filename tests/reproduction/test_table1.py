import csv
import io
from types import SimpleNamespace

import pytest
from helpers import ROOT

from mixdet.benchmark.complexity import Complexity
from mixdet.errors import UserError
from mixdet.evaluation.numbers import CocoNumbers
from mixdet.evaluation.results import EvaluationResult
from mixdet.reproduction import table1
from mixdet.reproduction.paper import TABLE1
from mixdet.reproduction.table1 import (
    ROW_NAMES,
    Table1Row,
    add_latency,
    count_row,
    find_config,
    markdown_table,
    merge_results,
    row_name,
    table1_csv,
    table_cells,
)

CONFIGS = ROOT / 'configs'


def make_rows():
    rows = []
    for name in ('mobilenetv2-baseline3x3', 'mobilenetv2-mixconv357', 'mixnet-s'):
        real, paper = Complexity(5_000_000, 800_000_000, ()), Complexity(4_000_000, 700_000_000, ())
        rows.append(Table1Row(name, find_config(CONFIGS, name), real, paper, TABLE1.get(name), {'cpu': 12.5}))
    return rows


def test_a_row_is_counted_both_ways():
    row = count_row(find_config(CONFIGS, 'mobilenetv2-baseline3x3'))
    assert (row.name, row.paper, row.latency, row.trained) == ('mobilenetv2-baseline3x3', (4.35, 0.79, 21.5), {}, {})
    assert (round(row.as_trained.params / 1e6, 4), round(row.as_in_paper.params / 1e6, 4)) == (4.3370, 4.3543)
    assert count_row(find_config(CONFIGS, 'mixnet-s')).paper is None


@pytest.mark.parametrize(('gpu', 'devices'), [(False, ['cpu']), (True, ['cpu', 'cuda'])])
def test_latency_is_that_of_the_detector_as_trained(monkeypatch, gpu, devices):
    def measure_latency(models, device, rounds):
        assert [model.bbox_head.num_classes for model in models.values()] == [80, 80] and rounds == 3
        return {name: 10.0 * len(device) + number for number, name in enumerate(models)}

    monkeypatch.setattr(table1, 'torch', SimpleNamespace(cuda=SimpleNamespace(is_available=lambda: gpu)))
    monkeypatch.setattr(table1, 'measure_latency', measure_latency)
    rows = [count_row(find_config(CONFIGS, name)) for name in ('mobilenetv2-baseline3x3', 'mixnet-s')]
    add_latency(rows, rounds=3)
    assert [row.latency for row in rows] == [
        {device: 10.0 * len(device) + number for device in devices} for number in range(2)
    ]


def result(row, ap, annotations='data/coco/annotations/instances_val2017.json', images=5000):
    return EvaluationResult(
        row.config.stem, 'epoch_1.pth', annotations, images, CocoNumbers.from_metrics({'bbox_mAP': ap})
    )


def test_every_row_has_its_config():
    for name in ROW_NAMES:
        assert row_name(find_config(CONFIGS, name)) == name
    in1k = find_config(CONFIGS, 'mobilenetv2-baseline3x3-in1k')
    assert find_config(CONFIGS, str(in1k)) == in1k
    with pytest.raises(UserError, match='--rows mobilenetv3: must be a config file, or one of mobilenetv1-baseline3x3'):
        find_config(CONFIGS, 'mobilenetv3')


def test_our_column_has_no_result_of_the_paper():
    heads, cells = table_cells(make_rows())
    assert [line[-1] for line in cells] == ['not trained'] * 3
    column = heads.index('mAP (paper)')
    assert [line[column] for line in cells] == ['21.5', '22.3', '-']
    line = markdown_table(heads, cells).splitlines()[2]
    assert line.startswith(
        '| mobilenetv2-baseline3x3 | 4.35M | 4.00M | 0.79G | 0.70G | 5.000M | 0.800G | 12.5 | 21.5 |'
    )


def test_results_are_merged_by_config_and_data():
    rows = make_rows()
    cells = 'blood/annotations/val.json'
    evaluations = [
        result(rows[0], 0.2),
        result(rows[0], 0.5, cells, 87),
        result(rows[1], 0.5, cells, 87),
        result(rows[1], 0.6, cells, 87),
        EvaluationResult('somebody_elses', 'x.pth', cells, 87, CocoNumbers.from_metrics({'bbox_mAP': 0.9})),
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
    assert records[0]['latency_ms_cpu'] == '12.5' and records[0]['macs_paper_convention'] == '700000000'
    assert (records[0]['params'], records[0]['macs']) == ('5000000', '800000000')
    assert [record['data'] for record in records[:2]] == ['coco/instances_val2017, 5000 images', 'blood/val, 87 images']


def test_names_of_any_kind_in_the_files():
    rows = make_rows()[:1]
    rows[0].name, rows[0].trained = '=1|1', {'@a/b, 2 images': [0.5]}
    record = next(csv.DictReader(io.StringIO(table1_csv(rows))))
    assert (record['config'], record['data']) == ("'=1|1", "'@a/b, 2 images")
    assert markdown_table(*table_cells(rows)).splitlines()[2].startswith(r'| =1\|1 | ')


def test_the_name_of_a_data_set_is_that_of_its_folder():
    row = make_rows()[0]
    merge_results([row], [result(row, 0.1, path) for path in ('a/b/c/val.json', 'annotations/val.json', 'val.json')])
    assert list(row.trained) == ['b/val, 5000 images', 'val, 5000 images']
    assert row.trained['val, 5000 images'] == [0.1, 0.1]
