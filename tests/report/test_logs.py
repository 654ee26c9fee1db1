import json
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixdet.errors import UserError
from mixdet.report.logs import history, read_logs
from mixdet.report.run import read_training_run

RESUMED = 'a = 1\nresume = True\n'


def write_log(work_dir, name, iters, resumed=None, loss=1.0):
    """A log with a record at each of ``iters``, and beside it the config that says whether it was resumed."""
    folder = work_dir / name / 'vis_data'
    folder.mkdir(parents=True)
    lines = [json.dumps({'iter': i, 'lr': 0.1, 'loss': loss, 'step': i}) for i in iters]
    (folder / 'scalars.json').write_text(''.join(f'{line}\n' for line in lines))
    if resumed is not None:
        (folder / 'config.py').write_text(RESUMED if resumed else 'resume = False\n')


def read_history(work_dir, parts=()):
    return history(read_logs(work_dir, parts))


def losses(work_dir, parts=()):
    """Loss by iteration."""
    train, _ = read_history(work_dir, parts)
    assert [record['iter'] for record in train] == sorted({record['iter'] for record in train})
    return {record['iter']: record['loss'] for record in train}


def forget_state(work_dir):
    (work_dir / 'report/run.json').unlink()


def test_a_resumed_part_replaces_what_it_repeats(work_dir, scalars):
    scalars(work_dir, '20260101_000001', 3, 2, 0.5)
    forget_state(work_dir)
    run = read_training_run(work_dir)
    assert [record['iter'] for record in run.train] == [5, 10, 15, 20, 25, 30, 35, 40]
    assert run.val_curve('mAP')[1] == pytest.approx([0.26, 0.27, 0.53, 0.54])
    scalars(work_dir, '20260101_000002', 1, 1, 0.1)  # begun anew
    run = read_training_run(work_dir)
    assert [record['iter'] for record in run.train] == [5, 10] and len(run.val) == 1


def test_a_log_that_was_cut_off_is_read_up_to_the_cut(work_dir):
    path = next(work_dir.glob('*/vis_data/scalars.json'))
    path.write_text(path.read_text()[:-20])
    assert len(read_training_run(work_dir).val) == 2
    path.write_text('no log at all}\n')
    with pytest.raises(UserError, match='scalars.json is not a log of MMEngine'):
        read_training_run(work_dir)


@pytest.mark.parametrize('known', [True, False])  # whether the configs beside the logs say which were resumed
def test_history_survives_a_clock_that_went_back(tmp_path, known):
    """Or a change of the time zone: the resumed parts have earlier names than the first."""
    write_log(tmp_path, '20260101_200000', range(10, 101, 10), False if known else None, 1.0)
    write_log(tmp_path, '20260101_150000', range(90, 201, 10), True if known else None, 2.0)
    write_log(tmp_path, '20260101_110000', range(190, 301, 10), True if known else None, 3.0)
    expected = {i: 1.0 if i < 90 else 2.0 if i < 190 else 3.0 for i in range(10, 301, 10)}
    assert losses(tmp_path) == expected
    assert losses(tmp_path, ['20260101_200000', '20260101_150000', '20260101_110000']) == expected


def test_a_training_begun_anew_is_not_mixed_with_the_one_before(tmp_path):
    write_log(tmp_path, '20260101_200000', range(10, 101, 10), False, 1.0)
    write_log(tmp_path, '20260101_210000', range(90, 201, 10), True, 2.0)
    write_log(tmp_path, '20260102_000000', range(20, 61, 20), False, 3.0)  # with another interval
    assert losses(tmp_path) == {20: 3.0, 40: 3.0, 60: 3.0}
    write_log(tmp_path, '20260102_010000', range(60, 101, 20), True, 4.0)
    assert losses(tmp_path) == {20: 3.0, 40: 3.0, 60: 4.0, 80: 4.0, 100: 4.0}


def test_the_noted_logs_decide_where_names_mislead(tmp_path):
    """A training begun anew after the clock was put back."""
    write_log(tmp_path, '20260101_200000', [10, 20, 30], False, 1.0)
    write_log(tmp_path, '20260101_150000', [10, 20], False, 2.0)
    write_log(tmp_path, '20260101_160000', [20, 30], True, 3.0)
    assert losses(tmp_path, ['20260101_150000', '20260101_160000']) == {10: 2.0, 20: 3.0, 30: 3.0}
    write_log(tmp_path, '20260102_000000', [30, 40], True, 4.0)  # resumed without the hook
    assert losses(tmp_path, ['20260101_150000', '20260101_160000'])[40] == 4.0
    assert losses(tmp_path, ['no longer there']) == losses(tmp_path)


def test_of_parts_resumed_from_the_same_checkpoint_the_later_counts(tmp_path):
    write_log(tmp_path, '1', range(10, 101, 10), False, 1.0)
    write_log(tmp_path, '2', range(60, 121, 10), True, 2.0)
    write_log(tmp_path, '3', range(30, 51, 10), True, 3.0)  # from an earlier checkpoint, by choice
    assert losses(tmp_path) == {10: 1.0, 20: 1.0, 30: 3.0, 40: 3.0, 50: 3.0}


def test_a_log_of_a_start_that_trained_nothing_changes_nothing(tmp_path):
    write_log(tmp_path, '1', [10, 20], False)
    write_log(tmp_path, '2', [], True)
    (tmp_path / '2/vis_data/scalars.json').write_text('{"coco/bbox_mAP": 0.5, "step": 2}\n')  # a validation was due
    train, val = read_history(tmp_path)
    assert len(train) == 2 and [(validation.step, validation.numbers.ap) for validation in val] == [(2, 0.5)]
    write_log(tmp_path, '3', [], True)
    assert read_history(tmp_path) == (train, val) and read_history(tmp_path / 'empty') == ([], [])


def test_bytes_that_are_no_text_end_a_log(tmp_path):
    """As a file system leaves them after a loss of power."""
    write_log(tmp_path, '1', [10, 20], False)
    with (tmp_path / '1/vis_data/scalars.json').open('ab') as file:
        file.write(b'\0' * 100 + b'\xff\xfe')
    assert list(losses(tmp_path)) == [10, 20]


def test_a_line_nested_without_end_is_left_out(tmp_path):
    write_log(tmp_path, '1', [10, 20], False)
    with (tmp_path / '1/vis_data/scalars.json').open('a') as file:
        file.write('[' * 10**5)
    assert list(losses(tmp_path)) == [10, 20]


@pytest.mark.parametrize('record', ['{"loss": 1}', '{"loss": 1, "iter": "a"}', '{"mAP": 1}', '{"step": {}}', '{} {}'])
def test_logs_of_others_are_an_error(tmp_path, record):
    (tmp_path / '1/vis_data').mkdir(parents=True)
    (tmp_path / '1/vis_data/scalars.json').write_text(f'{record}\n')
    with pytest.raises(UserError, match='scalars.json is not a log of MMEngine'):
        read_history(tmp_path)


def write_validation(work_dir, name, step, ap):
    with (work_dir / name / 'vis_data/scalars.json').open('a') as file:
        file.write(json.dumps({'coco/bbox_mAP': ap, 'step': step}) + '\n')


def test_a_validation_that_is_done_again_counts_once(tmp_path):
    """A run that was killed after a validation, before its checkpoint noted it, does it first when it is resumed."""
    write_log(tmp_path, '1', [10, 20], False)
    write_validation(tmp_path, '1', 20, 0.1)
    write_log(tmp_path, '2', [], True)
    write_validation(tmp_path, '2', 20, 0.2)
    write_log(tmp_path, '3', [], True)
    write_validation(tmp_path, '3', 20, 0.3)
    assert [(step, numbers.ap) for step, numbers in read_history(tmp_path)[1]] == [(20, 0.3)]


def test_parts_in_one_folder(tmp_path):
    """Two starts in the same second by the clock, which was put back an hour between them."""
    write_log(tmp_path, '1', [10, 20, 30, 20, 30, 40], False)
    write_validation(tmp_path, '1', 40, 0.1)
    assert list(losses(tmp_path)) == [10, 20, 30, 40]


def test_a_part_that_repeats_the_whole_comes_after_it(tmp_path):
    """Resumed before the first record, after the clock was put back: only the config says which was first."""
    write_log(tmp_path, '20260101_200000', [10, 20, 30], False, 1.0)
    write_log(tmp_path, '20260101_150000', [10, 20], True, 2.0)
    assert losses(tmp_path) == {10: 2.0, 20: 2.0}


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_any_clock_gives_the_same_history(data):
    """A training of up to four parts, each named after a clock of its own.

    Where the order of the parts was noted each may begin anywhere in the one before, else within its last records.
    """
    names = data.draw(st.permutations(['20260101_010000', '20260101_020000', '20260102_000000', '20261231_000000']))
    noted, parts = data.draw(st.booleans()), names[: data.draw(st.integers(1, 4))]
    expected, reached = {}, 0
    with TemporaryDirectory() as folder:
        for number, name in enumerate(parts):
            begin = data.draw(st.integers(1 if noted else reached - 2, reached)) if number else 0
            reached = begin + data.draw(st.integers(5, 9))
            iters = range(10 * begin + 10, 10 * reached + 1, 10)
            expected = {i: loss for i, loss in expected.items() if i < iters[0]} | dict.fromkeys(iters, float(number))
            write_log(Path(folder), name, iters, bool(number), float(number))
        assert losses(Path(folder), parts if noted else ()) == expected
