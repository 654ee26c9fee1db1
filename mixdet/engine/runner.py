"""MMEngine's Runner with a quiet console."""

import logging

from mmengine.logging import MMLogger
from mmengine.runner import Runner as MMEngineRunner

from mixdet.engine.console import ConsoleHook
from mixdet.registry import RUNNERS


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

    def register_custom_hooks(self, hooks) -> None:
        """Those of the config, and ``ConsoleHook``."""
        super().register_custom_hooks(hooks)
        self.register_hook(ConsoleHook())
