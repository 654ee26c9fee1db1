import csv
import json
import os
import shutil
from pathlib import Path

import pytest

from mixdet.errors import UserError
from mixdet.evaluation.numbers import STATS, CocoNumbers
from mixdet.report.logs import Validation
from mixdet.report.run import REPORT_FOLDER, STATE_FILE, TrainingRun, read_state, read_training_run, write_results_csv


def test_everything_is_read(work_dir):
    run = read_training_run(work_dir)
    assert run.name == 'net' and run.card['seed'] == 7 and run.by_epoch
    assert [record['iter'] for record in run.train] == [5, 10, 15, 20, 25, 30]
    assert [validation.step for validation in run.val] == [1, 2, 3]
    numbers = run.last_validation.numbers
    assert run.best_validation == run.last_validation and numbers.ap == pytest.approx(0.28)
    assert list(numbers.bbox.stats) == list(STATS) and numbers.bbox.per_class == {'red <cell>': 0.25}
    assert not numbers.segm.stats and not numbers.other
    assert run.loss_names == ['loss', 'loss_bbox', 'loss_cls']
    assert run.val_curve('mAP') == ([1, 2, 3], pytest.approx([0.26, 0.27, 0.28]))
    assert run.details['images'] == 3 and run.evaluated == 'Validation after epoch 3'


def test_a_training_without_report_hook(work_dir):
    for path in (work_dir / 'report').iterdir():
        path.rename(path.with_name(f'{path.name}.old'))
    run = read_training_run(work_dir)
    assert run.card == {} and run.details is None and len(run.val) == 3 and run.name == 'net'


def test_details_of_tools_test_are_used_where_there_are_no_others(work_dir):
    results = work_dir / 'results/epoch_3'
    results.parent.mkdir()
    (work_dir / 'report').rename(results)
    run = read_training_run(work_dir)
    assert run.details['images'] == 3 and run.evaluated == 'Evaluation of epoch_3 by tools/test.py'


def test_csv_has_every_number(work_dir, tmp_path):
    write_results_csv(read_training_run(work_dir), tmp_path / 'a.csv')
    with (tmp_path / 'a.csv').open() as file:
        rows = list(csv.DictReader(file))
    assert [row['kind'] for row in rows] == ['train'] * 6 + ['val'] * 3
    assert (rows[0]['iter'], rows[0]['loss_cls'], rows[0]['mAP']) == ('5', '1.5', '')
    assert (rows[-1]['epoch'], rows[-1]['AP red <cell>']) == ('3', '0.25')
    assert float(rows[-1]['AR_l@100']) == pytest.approx(0.28)


def test_masks_are_read_and_written(work_dir, scalars, tmp_path):
    scalars(work_dir, '20260101_000000', 1, 3, 0.25, mask_ap=0.125)
    run = read_training_run(work_dir)
    assert run.last_validation.numbers.segm.per_class == {'red <cell>': 0.125}
    assert run.val_curve('mAP', 'segm') == ([1, 2, 3], pytest.approx([0.135, 0.145, 0.155]))
    write_results_csv(run, tmp_path / 'a.csv')
    with (tmp_path / 'a.csv').open() as file:
        row = list(csv.DictReader(file))[-1]
    assert float(row['segm_mAP']) == pytest.approx(0.155) and float(row['mAP']) == pytest.approx(0.28)
    assert (row['segm_AP red <cell>'], row['AP red <cell>']) == ('0.125', '0.25')


def test_a_folder_without_a_training_is_an_error(tmp_path):
    with pytest.raises(UserError, match='gone does not exist'):
        read_training_run(tmp_path / 'gone')
    with pytest.raises(UserError, match='holds no training'):
        read_training_run(tmp_path)


def log(work_dir, name, *records):
    path = work_dir / name / 'vis_data/scalars.json'
    path.parent.mkdir(parents=True)
    path.write_text(''.join(f'{json.dumps(record)}\n' for record in records))


def test_a_training_counted_in_iterations(tmp_path):
    train = [{'iter': i, 'step': i, 'lr': 0.1, 'loss': 1 / i} for i in (10, 20, 30)]
    log(tmp_path, '1', train[0], {'step': 10, 'coco/bbox_mAP': 0.1}, *train[1:], {'step': 30, 'coco/bbox_mAP': 0.3})
    log(tmp_path, '2', {**train[1], 'loss': 5.0}, {'step': 20, 'coco/bbox_mAP': 0.2, 'time': 1, 'data_time': 2})
    (tmp_path / REPORT_FOLDER).mkdir()
    (tmp_path / REPORT_FOLDER / STATE_FILE).write_text('{"by_epoch": false}')
    run = read_training_run(tmp_path)
    assert run.unit == 'iteration' and run.train_curve('loss') == ([10, 20], [0.1, 5.0])
    assert run.val == [Validation(step, CocoNumbers.from_metrics({'bbox_mAP': step / 100})) for step in (10, 20)]
    write_results_csv(run, tmp_path / 'a.csv')
    assert (tmp_path / 'a.csv').read_bytes().decode().split('\n') == [
        'kind,epoch,iter,lr,loss,mAP', 'train,,10,0.1,0.1,', 'train,,20,0.1,5.0,', 'val,,10,,,0.1', 'val,,20,,,0.2', '',
    ]  # fmt: skip


def test_the_best_validation_is_the_first_of_the_highest_ap():
    def run_of(*metrics):
        return TrainingRun(
            Path('a'), 'a', val=[Validation(i, CocoNumbers.from_metrics(m)) for i, m in enumerate(metrics)]
        )

    assert TrainingRun(Path('a'), 'a').best_validation is TrainingRun(Path('a'), 'a').last_validation is None
    run = run_of({'bbox_mAP': 0.1}, {'bbox_mAP': 0.3}, {'bbox_mAP': 0.3}, {'bbox_mAP': 0.2})
    assert (run.best_validation.step, run.last_validation.step) == (1, 3)
    assert run_of({'voc/mAP': 0.5}, {'bbox_mAP': float('nan')}, {'bbox_mAP': 0.0}).best_validation.step == 2
    assert run_of({'bbox_mAP': 0.1, 'bbox_mAP_50': 0.3}, {'bbox_mAP': 0.2}).val_curve('mAP_50') == ([0], [0.3])
    assert run_of({'bbox_mAP': 0.1, 'segm_mAP': 0.9}, {'bbox_mAP': 0.2, 'segm_mAP': 0}).best_validation.step == 1


def test_losses_of_detectors_with_several_stages(tmp_path):
    log(
        tmp_path,
        '1',
        {'iter': 1, 'loss': 3, 's0.loss_cls': 1, 'loss_rpn': 2, 's0.acc': 50},
        {'step': 1, 'voc/mAP': 0.5},
    )
    run = read_training_run(tmp_path)
    assert run.loss_names == ['loss', 'loss_rpn', 's0.loss_cls'] and run.name == tmp_path.name
    write_results_csv(run, tmp_path / 'a.csv')
    header, _, val = (tmp_path / 'a.csv').read_text().splitlines()
    assert header == 'kind,epoch,iter,lr,loss,loss_rpn,s0.loss_cls,voc/mAP' and val == 'val,,1,,,,,0.5'


@pytest.mark.parametrize('name', ['run.json', 'details.json'])
@pytest.mark.parametrize(
    ('content', 'note'),
    [
        ('{"a": 1', 'cut off or not JSON'),
        ('[1]', 'holds no JSON object'),
        ('', 'cut off'),
        ('\0' * 9, 'cut off'),
        ('[' * 10**5, 'cut off'),
    ],
)
def test_files_of_the_report_that_cannot_be_read_are_left_out(work_dir, name, content, note):
    (work_dir / 'report' / name).write_text(content)
    run = read_training_run(work_dir)
    assert len(run.notes) == 1 and name in run.notes[0] and note in run.notes[0]
    assert len(run.train) == 6 and len(run.val) == 3
    if name == 'details.json':
        assert run.details is None and run.card['seed'] == 7
    else:
        assert run.details['images'] == 3 and run.card == {} and read_state(work_dir)['logs'] == ['20260101_000000']
        assert read_state(work_dir)['seconds'] == pytest.approx(3)


def test_a_state_that_is_lost_is_made_of_the_log(work_dir):
    (work_dir / 'report/run.json').unlink()
    run = read_training_run(work_dir)
    assert run.state == dict(by_epoch=True, iter=30, epoch=3, seconds=pytest.approx(3)) and not run.notes


def test_iterations_are_recognised_without_a_state(tmp_path):
    log(tmp_path, '1', {'iter': 10, 'lr': 0.1, 'loss': 1, 'time': 0.5}, {'step': 10, 'coco/bbox_mAP': 0.1})
    run = read_training_run(tmp_path)
    assert run.unit == 'iteration' and run.state['seconds'] == 5


def test_the_newest_of_several_evaluations_is_taken(work_dir):
    for i, name in enumerate(['epoch_1', 'epoch_2', 'epoch_3']):
        shutil.copytree(work_dir / 'report', work_dir / 'results' / name)
        os.utime(work_dir / 'results' / name / 'details.json', (i % 2, i % 2))
    shutil.rmtree(work_dir / 'report')
    run = read_training_run(work_dir)
    assert run.evaluated == 'Evaluation of epoch_2 by tools/test.py' and run.pictures.name == 'epoch_2'


def test_a_table_of_the_users_stays(work_dir, tmp_path):
    run = read_training_run(work_dir)
    (tmp_path / 'a.csv').write_text('kind,mine\n')
    with pytest.raises(UserError, match='a.csv is there already and not a file that mixdet wrote'):
        write_results_csv(run, tmp_path / 'a.csv')
    assert (tmp_path / 'a.csv').read_text() == 'kind,mine\n'
    for _ in range(2):  # its own is brought up to date
        write_results_csv(run, tmp_path / 'b.csv')
