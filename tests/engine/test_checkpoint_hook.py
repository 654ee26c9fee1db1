import errno
import os
import shutil
import zipfile
from pathlib import Path

import pytest
import torch
from mmengine.hooks import EMAHook, Hook
from tiny_training import BATCHES, EPOCHS, Killed, TinyMetric, TinyModel, config, difference, outcome, train

from mixdet.compat.checkpoints import weights_only
from mixdet.engine import resume
from mixdet.engine.checkpoint import read_checkpoint
from mixdet.engine.checkpoint_hook import CheckpointHook
from mixdet.errors import UserError


@pytest.fixture(autouse=True)
def short_start(monkeypatch):
    monkeypatch.setattr('mmengine.runner.Runner._log_env', lambda *args: None)


def files(folder):
    return sorted(path.name for path in Path(folder).glob('*.pth'))


def latest(folder):
    return Path(folder, 'last_checkpoint').read_text()


def test_old_files_are_removed_after_the_new_one_is_saved(tmp_path, monkeypatch):
    seen = []
    remove = CheckpointHook._remove

    def watched(self, path):
        assert Path(latest(tmp_path)) != Path(path) and Path(latest(tmp_path)).exists()
        seen.append((files(tmp_path), Path(path).name))
        remove(self, path)

    monkeypatch.setattr(CheckpointHook, '_remove', watched)
    train(config(tmp_path, max_keep_ckpts=1, save_best='tiny/error', rule='less'))
    for present, name in seen:
        assert len([other for other in present if other.startswith(name.split('_')[0])]) == 2
    assert {name.split('_')[0] for _, name in seen} == {'best', 'iter'}
    assert files(tmp_path)[-1] == 'iter_12.pth' and len(files(tmp_path)) == 2
    assert not [name for name in os.listdir(tmp_path) if 'partial' in name or 'writable' in name]


def test_a_run_killed_before_the_old_file_is_removed_removes_it_when_it_resumes(tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(CheckpointHook, '_remove', lambda self, path: (_ for _ in ()).throw(Killed))
        patch.setattr('tiny_training.Killed', KeyError)  # so that train does not catch it
        train(config(tmp_path, max_keep_ckpts=1))
    assert files(tmp_path) == ['iter_3.pth', 'iter_6.pth']
    train(config(tmp_path, max_keep_ckpts=1), resume=True)
    assert files(tmp_path) == ['iter_12.pth']


@pytest.mark.parametrize('damage', ['truncated', 'empty', 'one byte', 'gone'])
def test_the_newest_intact_checkpoint_is_taken(tmp_path, damage):
    expected = outcome(train(config(tmp_path / 'whole')))
    train(config(tmp_path / 'a'), kill_at=8)
    newest = tmp_path / 'a/iter_6.pth'
    assert latest(tmp_path / 'a') == str(newest)
    content = newest.read_bytes()
    if damage == 'gone':
        newest.unlink()
    else:
        with zipfile.ZipFile(newest) as archive:  # a byte of a tensor: some others, as between records, do no harm
            place = content.index(archive.read(max(archive.infolist(), key=lambda record: record.file_size)))
        flipped = content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]
        newest.write_bytes({'truncated': content[: len(content) // 2], 'empty': b'', 'one byte': flipped}[damage])
    runner = train(config(tmp_path / 'a'), resume=True)
    log = next(Path(runner.log_dir).glob('*.log')).read_text()
    told = f'names {newest}, which is not there: resuming from' if damage == 'gone' else f'{newest} is skipped'
    assert told in log and ('iter_3.pth, the newest intact checkpoint' in log) == (damage != 'gone')
    assert difference(outcome(runner), expected) == 0.0


def test_a_checkpoint_not_yet_noted_as_the_latest_is_found(tmp_path):
    train(config(tmp_path), kill_at=8)
    last = tmp_path / 'last_checkpoint'
    last.unlink()
    started = []
    train(config(tmp_path), resume=True, hooks=[spy(started)])
    assert started == [6]
    # and noted, even if the training is complete
    train(config(tmp_path))
    whole, noted = latest(tmp_path), str(tmp_path / 'iter_3.pth')
    assert whole != noted
    last.write_text(noted)
    os.utime(last, ns=(0, 0))
    train(config(tmp_path), resume=True)
    assert latest(tmp_path) == whole


def test_a_note_of_an_earlier_checkpoint_is_told(tmp_path, monkeypatch):
    train(config(tmp_path), kill_at=8)
    older = tmp_path / 'iter_3.pth'
    (tmp_path / 'last_checkpoint').write_text(str(older))
    started = []
    log = log_of(train(config(tmp_path), resume=True, kill_at=7, hooks=[spy(started)]))
    assert started == [6] and latest(tmp_path) == str(tmp_path / 'iter_6.pth')
    assert f'names {older}, which is older: resuming from {tmp_path}/iter_6.pth; for another --resume FILE' in log
    (tmp_path / 'last_checkpoint').write_bytes(b'\xff\x00')
    log += log_of(train(config(tmp_path), resume=True, kill_at=7))
    assert f'last_checkpoint holds no path: resuming from {tmp_path}/iter_6.pth' in log
    last = log_of(train(config(tmp_path), resume=True, kill_at=7))  # begins with the others', within a second
    assert not [line for line in last.splitlines() if 'last_checkpoint' in line and line not in log]


def test_a_training_begun_again_in_a_work_dir_is_the_one_that_is_resumed(tmp_path):
    """Not the earlier, longer one; so it is with one that went back to an earlier checkpoint."""
    train(config(tmp_path, max_keep_ckpts=-1), kill_at=11)
    log = log_of(train(config(tmp_path, max_keep_ckpts=-1), kill_at=5))
    assert f'{tmp_path}/iter_9.pth and 2 more are of an earlier training: this one replaces' in log
    started = []
    train(config(tmp_path, max_keep_ckpts=-1), resume=True, kill_at=8, hooks=[spy(started)])
    train(config(tmp_path, max_keep_ckpts=-1), resume=True, kill_at=11, hooks=[spy(started)])
    cfg = config(tmp_path, max_keep_ckpts=-1)
    cfg.load_from = str(tmp_path / 'iter_3.pth')
    train(cfg, resume=True, kill_at=8)
    train(config(tmp_path, max_keep_ckpts=-1), resume=True, kill_at=7, hooks=[spy(started)])
    assert started == [3, 6, 6]


def test_a_copy_leaves_the_original_alone(tmp_path, scores):
    """Its note and the best checkpoint so far name files of the original, which are neither resumed nor removed."""
    original, copied = tmp_path / 'original', tmp_path / 'copy'
    scores(error=[0.3, 0.2, 0.1])
    train(config(original, save_best='tiny/error', rule='less'), kill_at=7)
    assert files(original) == ['best_tiny_error_iter_4.pth', 'iter_4.pth', 'iter_6.pth']
    interrupted = original / 'interrupted_iter_7.pth'
    content = read_checkpoint(original / 'iter_6.pth')
    content['meta']['iter'] = 7
    torch.save(content, interrupted)
    Path(original, 'last_checkpoint').write_text(str(interrupted))
    shutil.copytree(original, copied)
    before = files(original)
    runner = train(config(copied, save_best='tiny/error', rule='less'), resume=True)
    assert str(runner._load_from) == str(copied / 'interrupted_iter_7.pth')
    assert files(original) == before
    assert files(copied) == ['best_tiny_error_iter_12.pth', 'iter_12.pth', 'iter_9.pth']


class Spoil(Hook):
    """Makes a value NaN after iteration ``at``, as a step of a training without ``NonFiniteHook`` can."""

    def __init__(self, at, choose):
        self.at, self.choose = at, choose

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if runner.iter + 1 == self.at:
            with torch.no_grad():
                self.choose(runner).view(-1)[0] = float('nan')


def averaged(runner):
    return next(hook for hook in runner.hooks if isinstance(hook, EMAHook)).ema_model.module.head.weight


@pytest.mark.parametrize(
    ('place', 'ema', 'choose'),
    [
        ('state_dict.head.weight', False, lambda runner: runner.model.head.weight),
        ('state_dict.body.1.running_var', False, lambda runner: runner.model.body[1].running_var),
        ('optimizer.state.4.exp_avg', False,
         lambda runner: runner.optim_wrapper.optimizer.state[runner.model.head.weight]['exp_avg']),
        ('ema_state_dict.module.head.weight', True, lambda runner: runner.model.head.weight),
        ('state_dict.head.weight', True, averaged),
    ],
)  # fmt: skip
def test_what_is_not_finite_is_not_saved(tmp_path, place, ema, choose):
    with pytest.raises(
        UserError, match=f'of iteration 6 is not written: its {place} is not finite; the earlier'
    ) as error:
        train(config(tmp_path, ema=ema, max_keep_ckpts=1), hooks=[Spoil(6, choose)])
    assert len(str(error.value).splitlines()) == 1
    assert files(tmp_path) == ['iter_3.pth'] and latest(tmp_path) == str(tmp_path / 'iter_3.pth')
    assert not list(tmp_path.glob('.*partial'))
    assert train(config(tmp_path, ema=ema, max_keep_ckpts=1), resume=True).iter == EPOCHS * BATCHES


def test_a_file_that_is_not_finite_is_not_resumed(tmp_path):
    """Of an earlier version of mixdet, or of MMEngine."""
    train(config(tmp_path), kill_at=8)
    newest = tmp_path / 'iter_6.pth'
    content = read_checkpoint(newest)
    content['state_dict']['head.bias'][0] = float('nan')
    torch.save(content, newest)
    started = []
    log = log_of(train(config(tmp_path), resume=True, kill_at=5, hooks=[spy(started)]))
    assert started == [3] and f'{newest} is skipped: its state_dict.head.bias is not finite' in log
    cfg = config(tmp_path)
    cfg.load_from = str(newest)
    with pytest.raises(
        UserError, match='iter_6.pth cannot be resumed: its state_dict.head.bias is not finite; give an'
    ):
        train(cfg, resume=True)


def test_buffers_that_are_infinite_by_design_are_saved(tmp_path, monkeypatch):
    init = TinyModel.__init__

    def with_mask(self):
        init(self)
        self.register_buffer('mask', torch.tensor([0.0, -float('inf')]))

    monkeypatch.setattr(TinyModel, '__init__', with_mask)
    train(config(tmp_path), kill_at=8)
    assert train(config(tmp_path), resume=True).iter == EPOCHS * BATCHES


def log_of(runner):
    return next(Path(runner.log_dir).glob('*.log')).read_text()


def spy(started):
    class Spy(Hook):
        def before_train(self, runner):
            started.append(runner.iter)

    return Spy()


def test_no_intact_checkpoint_is_an_error(tmp_path):
    train(config(tmp_path), kill_at=4)
    (tmp_path / 'iter_3.pth').write_bytes(b'')
    with pytest.raises(UserError, match='no checkpoint in .* is intact'):
        train(config(tmp_path), resume=True)


def test_with_nothing_to_resume_the_training_starts_from_the_beginning(tmp_path):
    runner = train(config(tmp_path), resume=True)
    assert runner.iter == EPOCHS * BATCHES
    assert 'nothing to resume' in next(Path(runner.log_dir).glob('*.log')).read_text()


def test_a_full_disk_leaves_the_earlier_checkpoints(tmp_path):
    resource = pytest.importorskip('resource')

    def fill(runner, out_dir, filename, **kwargs):
        if runner.iter < 5:
            return save(runner, out_dir, filename, **kwargs)
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (5000, limits[1]))  # bytes: the space that is left
        try:
            return save(runner, out_dir, filename, **kwargs)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    cfg = config(tmp_path)
    from mmengine.runner import Runner

    save = Runner.save_checkpoint
    Runner.save_checkpoint = fill
    try:
        with pytest.raises(UserError, match=r'iter_6\.pth cannot be written: File too large'):
            train(cfg)
    finally:
        Runner.save_checkpoint = save
    assert files(tmp_path) == ['iter_3.pth'] and latest(tmp_path) == str(tmp_path / 'iter_3.pth')
    assert read_checkpoint(tmp_path / 'iter_3.pth')['meta']['iter'] == 3
    assert not list(tmp_path.glob('.*partial'))


def test_a_folder_that_cannot_be_written_is_named_before_the_training(tmp_path, monkeypatch):
    replace = os.replace

    def read_only(source, target):
        if Path(target).parent == tmp_path:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), target)
        replace(source, target)

    monkeypatch.setattr('os.replace', read_only)
    started = []
    with pytest.raises(UserError, match='checkpoints cannot be written to .*: Read-only file system; set work_dir'):
        train(config(tmp_path), hooks=[spy(started)])


def test_by_epoch_too(tmp_path):
    hook = dict(interval=1, max_keep_ckpts=2, save_best='tiny/error', rule='less')

    def cfg(folder):
        made = config(folder, **hook)
        made.default_hooks.checkpoint.by_epoch = True
        return made

    expected = outcome(train(cfg(tmp_path / 'whole')))
    train(cfg(tmp_path / 'a'), kill_at=2 * BATCHES + 2)
    assert files(tmp_path / 'a')[-2:] == ['epoch_1.pth', 'epoch_2.pth']
    resumed = train(cfg(tmp_path / 'a'), resume=True)
    assert difference(outcome(resumed), expected) == 0.0
    assert files(tmp_path / 'a') == files(tmp_path / 'whole')


def test_checkpoints_of_mmengine_resume_with_a_warning(tmp_path):
    cfg = config(tmp_path)
    cfg.default_hooks.checkpoint.type = 'CheckpointHook'
    train(cfg, kill_at=8)
    runner = train(config(tmp_path), resume=True)
    assert runner.iter == EPOCHS * BATCHES
    assert 'not saved by mixdet.CheckpointHook' in next(Path(runner.log_dir).glob('*.log')).read_text()


def test_a_missing_metric_is_named(tmp_path):
    with pytest.raises(UserError, match="save_best='coco/bbox_mAP' is not among the metrics: tiny/error"):
        train(config(tmp_path, save_best='coco/bbox_mAP', rule='greater'))
    assert torch.load(latest(tmp_path), weights_only=weights_only())['meta']['iter'] == 3


def test_a_given_checkpoint_is_resumed(tmp_path):
    train(config(tmp_path, max_keep_ckpts=-1), kill_at=11)
    assert files(tmp_path) == ['iter_3.pth', 'iter_6.pth', 'iter_9.pth']
    cfg, started = config(tmp_path), []
    cfg.load_from = str(tmp_path / 'iter_6.pth')
    train(cfg, resume=True, hooks=[spy(started)])
    assert started == [6]


def test_checkpoints_in_another_folder_are_resumed(tmp_path):
    options = dict(out_dir=str(tmp_path / 'elsewhere'))
    train(config(tmp_path / 'a', **options), kill_at=8)
    (tmp_path / 'a/last_checkpoint').unlink()
    assert files(tmp_path / 'elsewhere/a') == ['iter_3.pth', 'iter_6.pth'] and files(tmp_path / 'a') == []
    started = []
    train(config(tmp_path / 'a', **options), resume=True, hooks=[spy(started)])
    assert started == [6]


def test_what_a_kill_left_half_written_is_removed(tmp_path):
    for name in ('.iter_5.pth.partial', '.best_iter_5.pth.partial', 'notes.partial'):
        (tmp_path / name).write_text('x')
    train(config(tmp_path))
    assert [name for name in os.listdir(tmp_path) if 'partial' in name or 'writable' in name] == ['notes.partial']


def test_best_checkpoints_hold_what_a_test_needs(tmp_path):
    train(config(tmp_path, save_best='auto', rule='less'))
    (best,) = tmp_path.glob('best_tiny_error_iter_*.pth')
    assert set(read_checkpoint(best)) == {'meta', 'state_dict', 'message_hub'}
    assert set(read_checkpoint(latest(tmp_path))) >= {'optimizer', 'param_schedulers', 'mixdet_state'}


@pytest.fixture
def scores(monkeypatch):
    """Results of the three validations of a training."""

    def patch(**series):
        rows = [dict(zip(series, row)) for row in zip(*series.values())]
        monkeypatch.setattr(TinyMetric, 'compute_metrics', lambda self, results: rows.pop(0))

    return patch


def test_the_best_of_each_metric_is_kept(tmp_path, scores):
    scores(error=[0.3, 0.2, 0.2], recall=[0.5, 0.4, None])
    cfg = config(tmp_path, save_best=['tiny/error', 'tiny/recall'], rule=['less', 'greater'])
    hub = train(cfg).message_hub
    assert files(tmp_path)[:2] == ['best_tiny_error_iter_8.pth', 'best_tiny_recall_iter_4.pth']
    known = {f'best_{kind}_tiny/{name}': hub.get_info(f'best_{kind}_tiny/{name}')
             for kind in ('score', 'ckpt') for name in ('error', 'recall')}  # fmt: skip
    assert known == {
        'best_score_tiny/error': 0.2,
        'best_score_tiny/recall': 0.5,
        'best_ckpt_tiny/error': str(tmp_path / 'best_tiny_error_iter_8.pth'),
        'best_ckpt_tiny/recall': str(tmp_path / 'best_tiny_recall_iter_4.pth'),
    }


def test_a_resumed_run_knows_the_best_so_far(tmp_path, scores):
    scores(error=[0.3, 0.2, 0.25])
    options = dict(save_best='tiny/error', rule='less')
    train(config(tmp_path, **options), kill_at=10)
    assert files(tmp_path)[0] == 'best_tiny_error_iter_8.pth'
    runner = train(config(tmp_path, **options), resume=True)
    assert files(tmp_path)[0] == 'best_tiny_error_iter_8.pth' and runner.message_hub.get_info('best_score') == 0.2


def test_only_the_main_process_writes(tmp_path, monkeypatch):
    captured = []
    capture = resume.capture
    monkeypatch.setattr(resume, 'capture', lambda *args: captured.append(args) or capture(*args))
    for module in ('mixdet.engine.checkpoint_hook', 'mmengine.hooks.checkpoint_hook'):
        monkeypatch.setattr(f'{module}.is_main_process', lambda: False)
    train(config(tmp_path, save_best='tiny/error', rule='less', interval=100), hooks=[])
    assert files(tmp_path) == [] and not (tmp_path / 'last_checkpoint').exists()
    assert len(captured) >= 1  # by every process: the state is gathered


def test_remote_storage_is_written_as_mmengine_does(tmp_path, monkeypatch):
    monkeypatch.setattr('mixdet.engine.checkpoint_hook.LocalBackend', type('Other', (), {}))
    monkeypatch.setattr('mixdet.engine.checkpoint_hook.atomic_path', None)
    runner = train(config(tmp_path))
    assert runner.iter == EPOCHS * BATCHES and files(tmp_path) == ['iter_12.pth', 'iter_9.pth']


def test_a_full_disk_is_reported_for_the_note_too(tmp_path, monkeypatch):
    def full(path, text):
        if path.name == 'last_checkpoint':
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr('mixdet.engine.checkpoint_hook.write_text', full)
    monkeypatch.setattr('mixdet.engine.checkpoint_hook.CheckpointHook._prepare_folder', lambda self: None)
    with pytest.raises(UserError, match=r'iter_3\.pth cannot be written: No space left on device; free some space'):
        train(config(tmp_path))


def test_a_file_that_is_written_again_is_not_removed(tmp_path, scores):
    options = dict(filename_tmpl='last.pth', max_keep_ckpts=1)
    train(config(tmp_path / 'a', **options))
    assert files(tmp_path / 'a') == ['last.pth']
    scores(error=[0.3, 0.2, 0.1])
    train(config(tmp_path / 'b', save_best='tiny/error', rule='less', **options))
    assert files(tmp_path / 'b') == ['best_tiny_error_last.pth', 'last.pth']
    for path in tmp_path.glob('*/*.pth'):
        assert read_checkpoint(path)['meta']['iter'] == 12
