"""MMEngine's Runner with a quiet console."""

import logging
from typing import Optional

from mmengine.logging import MMLogger
from mmengine.runner import Runner as MMEngineRunner
from torch import nn

from mixdet.engine.console import ConsoleHook
from mixdet.registry import RUNNERS

# MMEngine's default hooks, which it switches off itself
BUILT_IN = ('runtime_info', 'timer', 'sampler_seed', 'logger', 'param_scheduler', 'checkpoint')


@RUNNERS.register_module()
class Runner(MMEngineRunner):
    """MMEngine's ``Runner``; its log goes to the log file, ``ConsoleHook`` and warnings to the console."""

    def build_logger(self, *args, **kwargs) -> MMLogger:
        """MMEngine's logger with the console showing warnings only."""
        logger = super().build_logger(*args, **kwargs)
        for handler in logger.handlers:
            if not isinstance(handler, logging.FileHandler):
                handler.setLevel(max(handler.level, logging.WARNING))
        return logger

    def register_hooks(self, default_hooks: Optional[dict] = None, custom_hooks: Optional[list] = None) -> None:
        """Register the config's hooks, and ``ConsoleHook``."""
        super().register_hooks(default_hooks, custom_hooks)
        self.register_hook(ConsoleHook())

    def register_default_hooks(self, hooks=None) -> None:
        """MMEngine's; ``None`` switches off those too that MMEngine does not know."""
        super().register_default_hooks({name: hook for name, hook in (hooks or {}).items() if hook or name in BUILT_IN})

    def train(self) -> nn.Module:
        """MMEngine's training; the hooks' ``after_run`` is called when it breaks off, too."""
        try:
            return super().train()
        except BaseException:
            self.call_hook('after_run')
            raise
