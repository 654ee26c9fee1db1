"""The hook that writes checkpoints which survive a kill, and chooses the one to resume from."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Optional

from mmengine.dist import is_main_process
from mmengine.fileio import LocalBackend
from mmengine.hooks import CheckpointHook as MMEngineCheckpointHook
from mmengine.runner import BaseLoop, Runner

from mixdet.engine.atomic import atomic_path, remove_leftovers, write_text
from mixdet.engine.checkpoint import read_checkpoint
from mixdet.engine.finite import nonfinite_buffers, nonfinite_part
from mixdet.engine.lock import FolderLock, lock_folders
from mixdet.engine.newest import (
    ATTEMPT,
    BEST,
    INTERRUPTED,
    LAST,
    checkpoint_patterns,
    find_newest,
    next_attempt,
    noted_checkpoint,
    survey,
)
from mixdet.engine.resumable import check_resumable
from mixdet.engine.resume import ExactResumeHook
from mixdet.engine.wrappers import unwrap_model
from mixdet.errors import UserError
from mixdet.registry import HOOKS


@HOOKS.register_module()
class CheckpointHook(MMEngineCheckpointHook):
    """MMEngine's ``CheckpointHook`` with atomic writes and exact resume.

    In any config: ``default_hooks = dict(checkpoint=dict(type='mixdet.CheckpointHook', ...))``.

    - A checkpoint, and ``last_checkpoint``, is written to a temporary file, synced to disk and renamed; only then are
      older checkpoints removed.
    - Weights that are not finite are not saved: the training ends, and the checkpoints before stay.
    - ``resume=True`` without a file takes the newest checkpoint that is whole and finite, by what the files say and not
      by their times (``mixdet.engine.newest``), and warns of those it skipped.
    - While a training runs, no other one can begin in its work dir, see ``FolderLock``.
    - A resumed run continues exactly as if it had never stopped, see ``ExactResumeHook``, which this hook adds to the
      runner. A checkpoint of another network or of other classes is refused.

    On remote storage checkpoints are written as MMEngine does.

    Args:
        args: those of MMEngine's hook, in their order.
        new_schedule: when resuming, take the settings of optimizer and schedule from the config. By default those of
            the checkpoint go on, and a warning names the differences.
        kwargs: those of MMEngine's hook.
    """

    def __init__(self, *args: Any, new_schedule: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.new_schedule = new_schedule
        self._attempt = 0  # see mixdet.engine.newest
        self._by_design: frozenset[str] = frozenset()  # buffers that need not be finite
        self._unnoted: Optional[Path] = None  # resumed from, which LAST may not name yet
        self._locks: list[FolderLock] = []

    def before_run(self, runner: Runner) -> None:
        """Lock the folders of a training, add the hook of exact resume, choose the checkpoint to resume from."""
        if isinstance(runner._train_loop, BaseLoop):  # not an evaluation, which replaces nothing
            self._locks = lock_folders(self._folders(runner), runner.logger.warning)
        self._exact_resume = self._hook_of_exact_resume(runner)
        self._unnoted = None
        self._by_design = nonfinite_buffers(unwrap_model(runner.model))
        if runner._resume and runner._load_from is None:
            found = self._newest(runner)
            runner._load_from, runner._resume = found and str(found), found is not None
        chosen = str(runner._load_from)
        if runner._resume and runner._load_from is not None and '://' not in chosen:
            check_resumable(runner, read_checkpoint(chosen), chosen, self._by_design)

    def _newest(self, runner: Runner) -> Optional[Path]:
        """The checkpoint to resume from, if there is one; says what was skipped, and if ``LAST`` names another."""
        warn, patterns = runner.logger.warning, self._patterns(runner)
        work_dir, folder = Path(runner.work_dir), patterns[0].parent
        found, skipped = find_newest(survey(work_dir, patterns), self._by_design)
        for path, reason in skipped:
            warn(f'{path} is skipped: {reason}')
        if found is None and skipped:
            raise UserError(f'no checkpoint in {folder} is intact; train without --resume, or give an older checkpoint')
        if found is None:
            warn(f'nothing to resume in {folder}: training from the start')
        elif skipped:
            warn(f'resuming from {found}, the newest intact checkpoint')
        else:
            self._unnoted = found
        noted = noted_checkpoint(work_dir, folder)
        if found is not None and noted is None and (work_dir / LAST).exists():
            warn(f'{work_dir / LAST} holds no path: resuming from {found}, the newest checkpoint')
        elif found is not None and noted is not None and noted != found and noted not in dict(skipped):
            what = 'is older' if noted.exists() else 'is not there'
            warn(f'{work_dir / LAST} names {noted}, which {what}: resuming from {found}; for another --resume FILE')
        return found

    def _hook_of_exact_resume(self, runner: Runner) -> ExactResumeHook:
        """The runner's, added now if there is none.

        It gets the priority of this hook, so that it comes after it in the runner's list of hooks: the runner is
        iterating over that list.
        """
        hook = next((hook for hook in runner.hooks if isinstance(hook, ExactResumeHook)), None)
        if hook is None:
            hook = ExactResumeHook(self.new_schedule)
            runner.register_hook(hook, self.priority)
        return hook

    def after_run(self, runner: Runner) -> None:
        """Let others train in the folders."""
        while self._locks:
            self._locks.pop().release()

    def _folders(self, runner: Runner) -> list[Path]:
        """The local folders that a training writes to."""
        remote = self.file_client_args or self.backend_args or '://' in str(self.out_dir)
        elsewhere = [] if self.out_dir is None or remote else [Path(self.out_dir, Path(runner.work_dir).name)]
        return list(dict.fromkeys(folder.resolve() for folder in (Path(runner.work_dir), *elsewhere)))

    def _patterns(self, runner: Runner) -> list[Path]:
        folder = Path(self.out_dir, Path(runner.work_dir).name) if self.out_dir else Path(runner.work_dir)
        return checkpoint_patterns(folder, self.filename_tmpl)

    def before_train(self, runner: Runner) -> None:
        """Prepare the folder, and find out how the checkpoints of this training differ from others in it."""
        super().before_train(runner)
        if isinstance(self.file_backend, LocalBackend) and is_main_process():
            self._prepare_folder()
            patterns = checkpoint_patterns(Path(self.out_dir), self.filename_tmpl)
            found = [candidate for candidate in survey(Path(runner.work_dir), patterns) if candidate.whole]
            resumed = Path(runner._load_from) if runner._resume and Path(str(runner._load_from)).is_file() else None
            self._attempt = next_attempt(found, resumed)
            if found and not runner._resume:
                runner.logger.warning(
                    f'{found[0].path} and {len(found) - 1} more are of an earlier training: this one replaces those of '
                    'its names, and --resume takes its own once there are any'
                )
            if self._unnoted is not None:  # the run may have been killed before it noted this as the latest
                self._make_latest(runner, str(self._unnoted))

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Raise UserError if the weights, or what a training needs beside them, are not finite."""
        place = nonfinite_part(checkpoint, self._by_design)
        if place:
            raise UserError(
                f'the checkpoint of iteration {checkpoint["meta"]["iter"]} is not written: its {place} is not finite; '
                'the earlier ones are kept: resume with a lower learning rate, clip_grad, or mixdet.NonFiniteHook'
            )

    def _prepare_folder(self) -> None:
        """Raise UserError unless ``out_dir`` is writable; remove temporary files that a killed run left."""
        folder = Path(self.out_dir)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            remove_leftovers(folder)
            write_text(folder / '.writable', '')
            (folder / '.writable').unlink()
        except OSError as error:
            raise UserError(f'checkpoints cannot be written to {folder}: {error.strerror}; set work_dir') from error

    def save_now(self, runner: Runner, done: int, alone: bool = False) -> str:
        """Save between two regular checkpoints, after ``done`` iterations; returns the file's path.

        The file is removed when the next regular checkpoint is written. With ``alone`` other processes take no part.
        """
        meta = dict(epoch=runner.epoch, iter=done)
        self.last_ckpt = self._write_to_resume(runner, f'{INTERRUPTED}iter_{done}.pth', meta, alone=alone)
        return self.last_ckpt

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict, validated: bool = False) -> None:
        """Save, then remove old checkpoints; MMEngine's order is the reverse."""
        if self.max_keep_ckpts > 0:
            # the checkpoint still lists the file to be removed: if the run is killed before, the resumed one removes it
            kept = [old for old in self.keep_ckpt_ids if old != step] + [step]
            runner.message_hub.update_info('keep_ckpt_ids', kept)
        name = self.filename_tmpl.format(step)
        self.last_ckpt = self.file_backend.join_path(self.out_dir, name)
        runner.message_hub.update_info('last_ckpt', self.last_ckpt)
        self._write_to_resume(runner, name, meta, validated)
        if self.max_keep_ckpts > 0:
            for old in kept[: -self.max_keep_ckpts]:
                if self.filename_tmpl.format(old) != name:  # a template need not have the step
                    self._remove(self.file_backend.join_path(self.out_dir, self.filename_tmpl.format(old)))
            self.keep_ckpt_ids.clear()
            self.keep_ckpt_ids.extend(kept[-self.max_keep_ckpts :])
            runner.message_hub.update_info('keep_ckpt_ids', list(self.keep_ckpt_ids))

    def _remove(self, path: str) -> None:
        if is_main_process() and self.file_backend.isfile(path):
            self.file_backend.remove(path)

    def _save_best_checkpoint(self, runner: Runner, metrics: dict) -> None:
        """Save the better checkpoint, then remove the best so far; MMEngine's order is the reverse."""
        if not self.save_best:
            return
        if 'auto' in self.key_indicators:
            self._init_rule(self.rules, [next(iter(metrics))])
        step = runner.epoch if self.by_epoch else runner.iter
        meta = dict(epoch=runner.epoch, iter=runner.iter)
        improved = [
            self._save_if_best(runner, metrics, indicator, rule, step, dict(meta))
            for indicator, rule in zip(self.key_indicators, self.rules)
        ]
        if any(improved) and self.last_ckpt is not None:
            self._save_checkpoint_with_step(runner, step, meta, validated=True)

    def _save_if_best(self, runner: Runner, metrics: dict, indicator: str, rule: str, step: int, meta: dict) -> bool:
        if indicator not in metrics:
            raise UserError(f'save_best={indicator!r} is not among the metrics: {", ".join(list(metrics)[:12])}')
        known = runner.message_hub.runtime_info
        suffix = '' if len(self.key_indicators) == 1 else f'_{indicator}'
        score, best = metrics[indicator], known.get(f'best_score{suffix}', self.init_value_map[rule])
        if score is None or not self.is_better_than[indicator](score, best):
            return False
        before = known.get(f'best_ckpt{suffix}')
        name = f'{BEST}{indicator}_{self.filename_tmpl.format(step)}'.replace('/', '_')
        path = self.file_backend.join_path(self.out_dir, name)
        runner.message_hub.update_info(f'best_score{suffix}', score)
        runner.message_hub.update_info(f'best_ckpt{suffix}', path)
        if suffix:
            self.best_ckpt_path_dict[indicator] = path
        else:
            self.best_ckpt_path = path
        self._write(runner, name, meta, save_optimizer=False, save_param_scheduler=False)
        if before and before != path:  # its folder may have been copied: the original's is not to be removed
            self._remove(self.file_backend.join_path(self.out_dir, Path(before).name))
        runner.logger.info(f'The best checkpoint, {indicator} {score:0.4f}, is saved to {name}.')
        return True

    def _write_to_resume(
        self, runner: Runner, name: str, meta: dict, validated: bool = False, alone: bool = False
    ) -> str:
        """Save as ``name`` a checkpoint to resume from, note it as the latest one, and return its path."""
        with self._exact_resume.saving(runner, validated, alone):
            path = self._write(
                runner,
                name,
                meta,
                save_optimizer=self.save_optimizer,
                save_param_scheduler=self.save_param_scheduler,
            )
        if is_main_process():
            with _user_error(path):
                self._make_latest(runner, path)
        return path

    def _write(self, runner: Runner, name: str, meta: dict, **options: Any) -> str:
        """Save as ``name`` and return the path; ``options`` are arguments of ``Runner.save_checkpoint``."""
        path = self.file_backend.join_path(self.out_dir, name)
        if not is_main_process():
            return path
        options = {
            **self.args,
            'meta': {**meta, ATTEMPT: self._attempt},
            'file_client_args': self.file_client_args,
            'backend_args': self.backend_args,
            **options,
        }
        with _user_error(path):
            for lock in self._locks:
                lock.check()
            if isinstance(self.file_backend, LocalBackend):
                with atomic_path(Path(path)) as partial:
                    runner.save_checkpoint(str(partial.parent), partial.name, **options)
            else:
                runner.save_checkpoint(self.out_dir, name, **options)
        return path

    def _make_latest(self, runner: Runner, path: str) -> None:
        before = noted_checkpoint(Path(runner.work_dir), Path(self.out_dir))
        write_text(Path(runner.work_dir, LAST), path)
        if before is None or before.parent != Path(self.out_dir):
            return  # of the folder that this one is a copy of
        if before.name.startswith(INTERRUPTED) and before != Path(path):
            self._remove(str(before))


@contextlib.contextmanager
def _user_error(path: str) -> Iterator[None]:
    """Raise a UserError in place of an OSError inside."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f'checkpoint {path} cannot be written: {error.strerror or error}; free some space and continue with '
            '--resume'
        ) from error
