"""Newest is what has the most iterations by its own content, whatever the times of the files."""

import os
import random
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mixdet.engine.newest import (
    ATTEMPT,
    LAST,
    Candidate,
    checkpoint_patterns,
    find_newest,
    next_attempt,
    noted_checkpoint,
    survey,
)


def save(path, iteration, attempt=0, weight=1.0, **parts):
    meta = {'epoch': 0, 'iter': iteration, ATTEMPT: attempt}
    content = dict(meta=meta, message_hub={}, optimizer={}, state_dict=dict(weight=torch.tensor([weight])))
    torch.save({**content, **parts}, path)
    return path


@pytest.fixture
def run(tmp_path):
    """Checkpoints of a run, the newest last, and the file that names the latest."""
    paths = [save(tmp_path / f'iter_{number}.pth', number) for number in (3, 9, 12)]

    def find(template='iter_{}.pth'):
        return find_newest(survey(tmp_path, checkpoint_patterns(tmp_path, template)))

    def note(text):
        (tmp_path / LAST).write_bytes(text if isinstance(text, bytes) else str(text).encode())

    note(paths[2])
    return SimpleNamespace(paths=paths, note=note, find=find, folder=tmp_path)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 10**9), min_size=4, max_size=4), st.integers(0, 4))
def test_times_do_not_matter(tmp_path_factory, times, noted):
    folder = tmp_path_factory.mktemp('run')
    paths = [save(folder / f'{name}.pth', i) for i, name in enumerate(('iter_9', 'epoch_1', 'interrupted_iter_2'))]
    if noted < 4:
        (folder / LAST).write_text(f'{[*paths, folder / "gone.pth"][noted]}\n')
    for path, time in zip([*paths, folder / LAST], times):
        if path.exists():
            os.utime(path, (time, time))
    assert find_newest(survey(folder, checkpoint_patterns(folder, 'iter_{}.pth'))) == (paths[2], [])


def test_the_content_decides_not_the_name(run):
    save(run.folder / 'iter_100.pth', 6)
    assert run.find() == (run.paths[2], [])
    newest = save(run.folder / 'epoch_1.pth', 15)  # by_epoch was changed since
    assert run.find() == (newest, [])
    newest = save(run.folder / 'interrupted_iter_1.pth', 16)
    assert run.find() == (newest, [])


@pytest.mark.parametrize('template', ['last.pth', '{}.pth', 'a[1]{:04d}.pth', 'best_{}.pth'])
def test_any_template(tmp_path, template):
    path = save(tmp_path / template.format(7), 7)
    save(tmp_path / 'best_auc_x.pth', 7 if template == 'best_{}.pth' else 8, optimizer=None)
    torch.save(dict(state_dict={}), tmp_path / 'pretrained.pth')
    found, skipped = find_newest(survey(tmp_path, checkpoint_patterns(tmp_path, template)))
    assert found == path and skipped == []


def test_a_copy_goes_on_with_its_own_files(run, tmp_path_factory):
    """Not with those of the original, which its note names; only where it has none at all."""
    copy = tmp_path_factory.mktemp('copy')
    (copy / LAST).write_text(str(run.paths[2]))
    patterns = checkpoint_patterns(copy, 'iter_{}.pth')
    assert noted_checkpoint(copy, copy) == run.paths[2] and find_newest(survey(copy, patterns)) == (run.paths[2], [])
    own = save(copy / 'iter_3.pth', 3)
    assert find_newest(survey(copy, patterns)) == (own, [])
    newest = save(copy / 'iter_12.pth', 12)
    assert noted_checkpoint(copy, copy) == newest and find_newest(survey(copy, patterns)) == (newest, [])


@pytest.mark.parametrize('text', [b'', b' \n', b'\xff\xfe\x00', b'\x00', b'x' * 10**5, b'/', b'iter_3.pth\n'])
def test_whatever_the_note_holds(run, text):
    run.note(text)
    assert run.find() == (run.paths[2], [])
    assert noted_checkpoint(run.folder, run.folder) == (run.paths[0] if text == b'iter_3.pth\n' else None)


def test_nothing_to_find(tmp_path):
    patterns = checkpoint_patterns(tmp_path, 'iter_{}.pth')
    assert find_newest(survey(tmp_path, patterns)) == (None, [])
    (tmp_path / LAST).write_text('/no/such/iter_3.pth')
    found, ((path, reason),) = find_newest(survey(tmp_path, patterns))
    assert found is None and path == Path('/no/such/iter_3.pth') and 'does not exist' in reason


def test_what_cannot_be_resumed_is_skipped_with_the_reason(run):
    """Truncated, altered, not finite, weights only; older files, and files of weights without an iteration, are not
    looked at."""
    names = {number: run.folder / f'iter_{number}.pth' for number in (20, 19, 18, 17, 2)}
    names[20].write_bytes(save(names[20], 20).read_bytes()[:-100])
    content = bytearray(save(names[19], 19, weight=1234.5).read_bytes())
    content[content.index(torch.tensor([1234.5]).numpy().tobytes())] ^= 1
    names[19].write_bytes(content)
    save(names[18], 18, weight=float('nan'))
    save(names[17], 17, optimizer=None)
    save(names[2], 2, weight=float('nan'))
    torch.save(dict(state_dict={}), run.folder / 'iter_x.pth')
    found, skipped = run.find()
    assert found == run.paths[2] and [path for path, _ in skipped] == [names[number] for number in (20, 19, 18, 17)]
    for (_, reason), part in zip(skipped, ('corrupt', 'changed since', 'its state_dict.weight is not', 'no optimizer')):
        assert part in reason
    infinite = save(run.folder / 'iter_30.pth', 30, weight=float('inf'))
    candidates = survey(run.folder, checkpoint_patterns(run.folder, 'iter_{}.pth'))
    assert find_newest(candidates, frozenset({'weight'}))[0] == infinite  # by design


def test_files_of_the_same_iteration(run):
    """The noted one is taken, and a whole one before a file of weights."""
    other = save(run.folder / 'interrupted_iter_12.pth', 12)
    assert run.find()[0] == run.paths[2]
    run.note(other)
    assert run.find()[0] == other
    save(run.folder / 'iter_12-abc.pth', 12, optimizer=None)
    run.note(run.folder / 'iter_12-abc.pth')
    assert run.find() == (other, []) or run.find() == (run.paths[2], [])


def candidates(*rows):
    return [Candidate(attempt, iteration, True, False, path) for attempt, iteration, path in rows]


def test_a_training_that_begins_beside_others_is_newer(tmp_path):
    old, new = (save(tmp_path / f'{name}.pth', 1) for name in ('old', 'new'))
    found = candidates((0, 24, new), (0, 12, old))
    assert next_attempt([], None) == 0 and next_attempt([], old) == 0
    assert next_attempt(found, new) == 0  # goes on
    assert next_attempt(found, old) == 1 and next_attempt(found, None) == 1
    assert next_attempt(candidates((3, 2, new), (2, 9, old)), new) == 3
    damaged = Candidate(2**63, 0, False, False, old, 'damaged')
    assert next_attempt([damaged, *found], new) == 0


def test_the_last_attempt_counts_before_the_iterations(run):
    newest = save(run.folder / 'iter_1.pth', 1, attempt=1)
    assert run.find() == (newest, [])


def test_the_order_of_the_files_does_not_matter(run, monkeypatch):
    glob = Path.glob
    monkeypatch.setattr(Path, 'glob', lambda self, name: random.sample(found := list(glob(self, name)), len(found)))
    assert {run.find()[0] for _ in range(10)} == {run.paths[2]}
