"""A loss or gradient that is not finite: stop before it reaches the weights, say where it came from, save the step."""

import functools
import io
import math
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Callable, NoReturn, Optional, Union

import torch
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from torch import Tensor, nn

from mixdet.compat.checkpoints import allow
from mixdet.engine.atomic import atomic_path
from mixdet.engine.checkpoint import read_checkpoint
from mixdet.engine.finite import all_finite
from mixdet.engine.randomness import rng_state, set_rng_state
from mixdet.engine.wrappers import optim_wrappers, unwrap_model
from mixdet.errors import UserError
from mixdet.registry import HOOKS

MAX_IMAGES = 16  # named in the message
MAX_BOXES = 3

Losses = dict[str, Union[Tensor, list[Tensor]]]  # a list has one item per level of the feature pyramid


class _Check:
    """Whether a loss is finite, computed on its device without waiting for it."""

    def __init__(self, loss: Tensor) -> None:
        self._finite, self._ready = torch.isfinite(loss), None
        if loss.is_cuda:
            host = torch.empty((), dtype=torch.bool, pin_memory=True)
            self._finite = host.copy_(self._finite, non_blocking=True)
            self._ready = torch.cuda.Event()
            self._ready.record()

    def __bool__(self) -> bool:
        if self._ready is not None:
            self._ready.synchronize()
        return bool(self._finite)


@HOOKS.register_module()
class NonFiniteHook(Hook):
    """Ends a training at the first loss or gradient that is not finite, before the optimizer's step.

    The error names the images, the first layer whose output is not finite, and boxes that are not finite or empty. The
    step is saved to ``work_dir/nonfinite_iter_N_rankR.pth``, which ``tools/replay.py CONFIG FILE`` runs again. In any
    config: ``custom_hooks = [dict(type='mixdet.NonFiniteHook')]``.

    The sum of the losses is checked after the backward pass has been launched, so a GPU does not wait for it. Where
    gradients are clipped by their norm, that tells whether they are finite, at no cost; else they are read once, before
    the step and in each iteration that only accumulates them.

    Args:
        gradients: check the gradients as well; a GPU waits for the backward pass, which MMEngine's log has it do after
            the step anyway. Not done with a loss scaler, which leaves out such steps itself.
    """

    priority = 'VERY_HIGH'

    def __init__(self, gradients: bool = True) -> None:
        self.gradients = gradients
        self._handles: list = []
        self._batch: Any = None  # of the iteration that is running
        self._losses: Losses = {}
        self._finite: Optional[_Check] = None  # of a forward pass that has not been checked yet
        self._stepped = False  # whether an optimizer has taken a step in this iteration

    def before_train(self, runner: Runner) -> None:
        """Register hooks on the model's losses and the optimizers' steps."""
        self._runner, self._model = runner, unwrap_model(runner.model)
        wrappers = optim_wrappers(runner.optim_wrapper)
        self._scaled = any(hasattr(wrapper, 'loss_scaler') for wrapper in wrappers)
        self._handles = [self._model.register_forward_hook(self._take_losses)]
        for wrapper in wrappers:
            hook = functools.partial(self._before_step, wrapper)
            self._handles.append(wrapper.optimizer.register_step_pre_hook(hook))

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Keep what is needed to run the step again."""
        self._batch, self._rng, self._stepped = data_batch, rng_state(), False

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Check an iteration without an optimizer's step: accumulated, or skipped by a loss scaler."""
        self._check_loss()
        if not self._stepped:
            self._check_gradients(self._model.parameters())
        self._batch = None

    def after_train(self, runner: Runner) -> None:
        """Remove the hooks."""
        for handle in self._handles:
            handle.remove()

    def _take_losses(self, model: nn.Module, inputs: tuple, losses: Any) -> None:
        if self._batch is not None and isinstance(losses, dict):  # a training step
            self._losses, self._finite = losses, _Check(total_loss(losses).detach())

    def _before_step(self, wrapper: OptimWrapper, *_: Any) -> None:
        """Check what an optimizer is about to use."""
        if self._batch is None:
            return  # not in a training step
        self._check_loss()
        self._stepped = True
        if not _norm_is_finite(wrapper):
            self._check_gradients(
                parameter for group in wrapper.optimizer.param_groups for parameter in group['params']
            )

    def _check_loss(self) -> None:
        if self._finite is not None:
            finite, self._finite = bool(self._finite), None
            if not finite:
                self._stop('loss')

    def _check_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        if not self.gradients or self._scaled:
            return
        if not all_finite([parameter.grad for parameter in parameters if parameter.grad is not None]):
            self._stop('gradient')

    def _stop(self, what: str) -> NoReturn:
        runner = self._runner
        self.after_train(runner)
        path = Path(runner.work_dir, f'nonfinite_iter_{runner.iter + 1}_rank{runner.rank}.pth')
        step = dict(
            state_dict={name: value.cpu() for name, value in self._model.state_dict().items()},
            batch=self._batch,
            rng=self._rng,
            iteration=runner.iter + 1,
            epoch=runner.epoch,
        )
        replay = f'to run the step again: python tools/replay.py CONFIG {path}'
        try:
            buffer = io.BytesIO()  # torch's own writer does not say that a disk is full
            torch.save(step, buffer)
            with atomic_path(path) as partial:
                partial.write_bytes(buffer.getbuffer())
        except OSError as error:
            replay = f'the step cannot be saved to {path}: {error.strerror or error}'
        losses = ', '.join(f'{name} {value.item():.4g}' for name, value in flat_losses(self._losses))
        set_rng_state(self._rng)
        report = examine_step(self._model, runner.optim_wrapper, self._batch)
        raise UserError(
            f'the {what} of iteration {runner.iter + 1} is not finite ({losses}); {report}; the weights were not '
            f'changed; {replay}'
        )


def _norm_is_finite(wrapper: OptimWrapper) -> bool:
    """Whether the gradients were just clipped by a norm that was finite, as all of them are then."""
    if not wrapper.clip_grad_kwargs or wrapper.grad_name != 'grad_norm':
        return False
    norm = wrapper.message_hub.log_scalars.get('train/grad_norm')
    return norm is not None and math.isfinite(norm.current())


def read_step(path: str) -> dict[str, Any]:
    """The step that ``NonFiniteHook`` saved, loaded without executing anything.

    Raises:
        UserError: if the file is another one.
    """
    from mmdet.structures import DetDataSample
    from mmdet.structures.bbox import HorizontalBoxes
    from mmdet.structures.mask import BitmapMasks, PolygonMasks
    from mmengine.structures import InstanceData, PixelData

    allow(DetDataSample, InstanceData, PixelData, HorizontalBoxes, BitmapMasks, PolygonMasks)
    step = read_checkpoint(path)
    if not {'state_dict', 'batch', 'rng', 'iteration'} <= set(step):
        raise UserError(f'{path} was not saved by mixdet.NonFiniteHook; give the nonfinite_iter_N file of a work dir')
    return step


def total_loss(losses: Losses) -> Tensor:
    """The sum of all losses of ``losses``, as MMEngine's ``parse_losses`` adds them."""
    values = [value for name, value in flat_losses(losses) if 'loss' in name]
    return torch.stack(values).sum() if values else torch.zeros(())


def flat_losses(losses: Losses) -> Iterator[tuple[str, Tensor]]:
    """Each loss by name, a mean over its elements; lists are summed."""
    for name, value in losses.items():
        if isinstance(value, Tensor):
            yield name, value.float().mean()
        elif isinstance(value, (list, tuple)) and value:
            yield name, torch.stack([item.float().mean() for item in value]).sum()


def examine_step(model: BaseModel, optim_wrapper: OptimWrapper, batch: Any) -> str:
    """Run a training step, watching every layer; says where the first value that is not finite comes from.

    The generators must be in the state of before the step. The gradients are left in the model; no weight is changed.
    """
    model.zero_grad()
    with _watched(model) as found, ExitStack() as contexts:
        for wrapper in optim_wrappers(optim_wrapper):
            contexts.enter_context(wrapper.optim_context(model))
        losses = model(**model.data_preprocessor(batch, True), mode='loss')
        total = total_loss(losses)
    samples = list(batch.get('data_samples', [])) if isinstance(batch, dict) else []
    parts = [f'images {_names(samples, range(len(samples)))}'] if samples else []
    parts += _bad_boxes(samples)
    broken = [name for name, value in model.named_parameters() if not torch.isfinite(value).all()]
    if broken:
        parts.append(f'{len(broken)} weights were not finite before the step, such as {broken[0]}')
    if found:
        name, kind, rows = found[0]
        where = f' for images {_names(samples, rows)}' if rows and len(rows) < len(samples) else ''
        parts.append(f'the first layer whose output is not finite is {name} ({kind}){where}')
    elif not torch.isfinite(total):
        wrong = [name for name, value in flat_losses(losses) if not torch.isfinite(value)]
        parts.append(f'the output of every layer is finite, the loss is not: {", ".join(wrong)}')
    else:
        total.backward()
        wrong = [
            name for name, p in model.named_parameters() if p.grad is not None and not torch.isfinite(p.grad).all()
        ]
        parts.append(f'the gradient is not finite for {wrong[-1]}' if wrong else 'everything is finite this time')
    return '; '.join(parts)


@contextmanager
def _watched(model: nn.Module) -> Iterator[list[tuple[str, str, list[int]]]]:
    """Yields a list of the layers with an output that is not finite, as they run: name, class, rows of the batch."""
    found: list = []

    def watch(name: str) -> Callable[[nn.Module, tuple, Any], None]:
        def check(module: nn.Module, inputs: tuple, output: Any) -> None:
            if isinstance(output, Tensor) and output.is_floating_point() and not torch.isfinite(output).all():
                rows = (~torch.isfinite(output.flatten(1))).any(1) if output.dim() > 1 else output.new_zeros(0)
                found.append((name, type(module).__name__, rows.nonzero().flatten().tolist()))

        return check

    layers = [(name, module) for name, module in model.named_modules() if not list(module.children())]
    handles = [module.register_forward_hook(watch(name)) for name, module in layers]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _names(samples: list, rows: Iterable[int]) -> str:
    """The ids of the images in ``rows`` of the batch."""
    names = [f'{samples[row].metainfo.get("img_id", row)}' for row in rows if row < len(samples)]
    more = f' and {len(names) - MAX_IMAGES} more' if len(names) > MAX_IMAGES else ''
    return ', '.join(names[:MAX_IMAGES]) + more


def _bad_boxes(samples: list) -> list[str]:
    """A message for each of the first boxes that are not finite or empty."""
    messages = []
    for row, sample in enumerate(samples):
        boxes: Optional[Any] = getattr(getattr(sample, 'gt_instances', None), 'bboxes', None)
        boxes = getattr(boxes, 'tensor', boxes)
        if boxes is None or not len(boxes) or boxes.size(1) != 4:
            continue
        bad = ~torch.isfinite(boxes).all(1) | (boxes[:, 2:] <= boxes[:, :2]).any(1)
        messages += [f'image {_names(samples, [row])} has the box {box}' for box in boxes[bad].tolist()]
    return messages[:MAX_BOXES]
