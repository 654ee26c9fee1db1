"""MMEngine's Runner with a short console output."""

import contextlib
import functools
import io
import logging
import sys
from pathlib import Path
from typing import Any, Optional, Union

from mmengine.dist import master_only
from mmengine.hooks import Hook
from mmengine.logging import MMLogger
from mmengine.runner import BaseLoop
from mmengine.runner import Runner as MMEngineRunner
from torch import nn

from mixdet.engine.atomic import atomic_path, writing
from mixdet.engine.batch_norm import (
    SingleImageHook,
    has_single_images,
    leave_out_single_image,
    single_value_explained,
    trains_batch_norm,
)
from mixdet.engine.class_names import ClassNamesHook
from mixdet.engine.config import literal_braces
from mixdet.engine.console import ConsoleHook
from mixdet.engine.failures import failures_saved
from mixdet.errors import first_line
from mixdet.registry import RUNNERS
from mixdet.text import log_any_text, print

# MMEngine's default hooks, which it can switch off itself
BUILT_IN = ('runtime_info', 'timer', 'sampler_seed', 'logger', 'param_scheduler', 'checkpoint')
BEFORE_A_BATCH = ('before_train_epoch', 'after_train_iter', 'after_val')  # the hooks after which a loop takes one


@RUNNERS.register_module()
class Runner(MMEngineRunner):
    """MMEngine's ``Runner`` with a short console, and without batches on which batch-norm cannot train.

    The console shows warnings and the output of ``ConsoleHook``, the log file everything. A last batch of one image is
    left out where the network trains batch-norm, see ``mixdet.engine.batch_norm``.
    """

    _training = False
    between_iterations = False  # whether a training waits for its next batch, and nothing is half done

    def build_logger(self, *args: Any, **kwargs: Any) -> MMLogger:
        """MMEngine's logger, with only warnings on the console; that its file cannot be written is told once."""
        logger = super().build_logger(*args, **kwargs)
        for handler in logger.handlers:
            if isinstance(handler, logging.FileHandler):
                handler.handleError = functools.partial(_tell_once, handler)  # type: ignore[method-assign]
            else:
                handler.setLevel(max(handler.level, logging.WARNING))
        log_any_text(logger)
        return logger

    def register_hooks(self, default_hooks: Optional[dict] = None, custom_hooks: Optional[list] = None) -> None:
        """Register the config's hooks, ``ConsoleHook`` and ``ClassNamesHook``."""
        super().register_hooks(default_hooks, custom_hooks)
        self.register_hook(ConsoleHook())
        self.register_hook(ClassNamesHook())

    def register_default_hooks(self, hooks: Optional[dict[str, Union[Hook, dict, None]]] = None) -> None:
        """Register MMEngine's and the config's default hooks; ``None`` also switches off one that MMEngine lacks."""
        super().register_default_hooks({name: hook for name, hook in (hooks or {}).items() if hook or name in BUILT_IN})

    def build_train_loop(self, loop: Union[BaseLoop, dict]) -> BaseLoop:
        """MMEngine's loop, without a last batch of a single image for batch-norm."""
        if isinstance(loop, BaseLoop):
            return super().build_train_loop(loop)
        built = super().build_train_loop(loop)
        left_out = leave_out_single_image(self, built)
        if left_out:
            self.logger.warning(left_out)
        if has_single_images(built) and trains_batch_norm(self.model):
            self.register_hook(SingleImageHook())
        return built

    @master_only
    def dump_config(self, replace: bool = False) -> None:
        """Write the config into the work dir, unless one of its name is there and not to be replaced.

        MMEngine replaces it whenever a Runner is built. A test with other options, or with test-time augmentation,
        would leave a config that the training in this work dir cannot resume with. The file that the config was read
        from is never replaced.
        """
        read = Path(self.cfg.filename or f'{self.timestamp}.py')
        path = Path(self.work_dir, read.name)
        if path.exists() and (not replace or (read.exists() and path.samefile(read))):
            return
        with writing(path), atomic_path(path) as partial:
            self.cfg.dump(partial)
            if path.suffix == '.py':
                partial.write_text(literal_braces(partial.read_text(encoding='utf-8')), encoding='utf-8')

    def call_hook(self, fn_name: str, **kwargs: Any) -> None:
        """Call the hooks, and note whether an iteration comes next."""
        self.between_iterations = False
        super().call_hook(fn_name, **kwargs)
        self.between_iterations = fn_name in BEFORE_A_BATCH

    def load_or_resume(self) -> None:
        """Load or resume as MMEngine does; then the config replaces the one of an earlier training in the work dir."""
        with contextlib.redirect_stdout(io.StringIO()):  # MMEngine prints the name of the file
            super().load_or_resume()
        if self._training:
            self.dump_config(replace=True)

    def train(self) -> nn.Module:
        """Train; the hooks' ``after_run`` is called also if the training is interrupted or fails."""
        self._training = True
        try:
            with failures_saved(self), single_value_explained():
                return super().train()
        except BaseException:
            self.call_hook('after_run')
            raise


def _tell_once(handler: logging.FileHandler, record: logging.LogRecord) -> None:
    """Say that the file of ``handler`` cannot be written, where logging would print a traceback for each line."""
    handler.handleError = lambda record: None  # type: ignore[method-assign]
    error = sys.exc_info()[1]
    print(f'{handler.baseFilename} cannot be written any more: {error and first_line(error)}', file=sys.stderr)
