"""Evaluating the fused network."""

from typing import Optional

from mmengine.hooks import Hook
from mmengine.runner import Runner

from mixdet.deploy.fusing import optimize_for_inference
from mixdet.registry import HOOKS


@HOOKS.register_module()
class FuseHook(Hook):
    """Has a test run the network fused and in channels_last, which on a CPU is up to three times as fast.

    The results differ by the rounding of the folded batch-norms. Off the CPU, and for a network that is wrapped for
    several processes, nothing changes. ``tools/test.py`` adds it by default.
    """

    priority = 'LOWEST'  # after the hook that swaps the averaged weights in

    def before_test_epoch(self, runner: Runner) -> None:
        """Replace the model by its fused copy."""
        self._model = runner.model
        runner.model = optimize_for_inference(runner.model)

    def after_test_epoch(self, runner: Runner, metrics: Optional[dict[str, float]] = None) -> None:
        """Put the model back."""
        runner.model = self._model
