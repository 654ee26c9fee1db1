"""Training from weights with folded batch-norms."""

from collections.abc import Iterator
from itertools import islice
from typing import Any

import torch
from mmengine.dist import broadcast
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.data import DataLoader

from mixdet.engine.randomness import rng_state, seed, set_rng_state
from mixdet.registry import HOOKS
from mixdet.weights.folded import PARTS, folded_norms, restore_statistics


@HOOKS.register_module()
class FoldedBatchNormHook(Hook):
    """Before a training begins, gives folded batch-norms the statistics of its images.

    Weights of others often come with batch-norms that were folded into the convolutions: mean 0, variance 1. They
    compute the right function in evaluation and another one in training, see :mod:`mixdet.weights.folded`. This hook
    passes a few training images through the network in evaluation mode, and rewrites such layers so that the network
    computes the same as before, with statistics that training can use. Without folded batch-norms, and when a training
    is resumed, it does nothing.

    In any config: ``default_hooks = dict(folded_batch_norm=dict(type='mixdet.FoldedBatchNormHook'))``. Of several
    processes each passes the same images, and all get the statistics of the first.

    Args:
        num_images: how many training images, drawn from the run's seed, with the augmentation of training; a smaller
            data set is passed several times. 0 restores nothing and only says what is folded.
    """

    priority = 'HIGH'  # before hooks that save or copy the weights

    def __init__(self, num_images: int = 64) -> None:
        if num_images < 0:
            raise ValueError(f'num_images={num_images}: must be at least 0')
        self.num_images = num_images

    def before_train(self, runner: Runner) -> None:
        """Restore the statistics, and say so."""
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        if runner._resume or runner.iter:
            return
        norms = _with_batch_statistics(model, folded_norms(model))
        if not norms:
            return
        state = rng_state()
        seed(runner.seed or 0)
        try:
            restored = restore_statistics(model, lambda: self._pass_images(model, runner.train_dataloader))
        except Exception as error:  # any network and data set can be passed; a training that worked must not fail here
            restored = []
            runner.logger.warning(f'{type(self).__name__}: {type(error).__name__}: {str(error).strip()[:200]}')
        finally:
            set_rng_state(state)
        for norm in norms.values():
            for part in PARTS:
                broadcast(getattr(norm, part).data)
        left = [name for name in norms if name not in restored]
        if restored:
            runner.logger.warning(
                f'{len(restored)} batch-norms of the pretrained weights were folded (mean 0, variance 1): they now '
                f'have the statistics of {self.num_images} training images, and the network computes the same as before'
            )
        if left:
            runner.logger.warning(
                f'{len(left)} batch-norms are folded (mean 0, variance 1) and stay so, such as {left[0]}: the first '
                'training step will change what the network computes; restore their statistics with default_hooks='
                "dict(folded_batch_norm=dict(type='mixdet.FoldedBatchNormHook')), or freeze them with norm_eval=True"
            )

    def _pass_images(self, model: Any, loader: DataLoader) -> None:
        samples = _samples(loader.dataset, self.num_images)
        while batch := list(islice(samples, loader.batch_size or 8)):
            data = model.data_preprocessor(loader.collate_fn(batch), True)
            model._run_forward(data, mode='loss')


def _samples(dataset: Any, number: int) -> Iterator[Any]:
    """``number`` random samples of ``dataset``, no one twice before each has come once."""
    if not hasattr(dataset, '__getitem__'):  # an iterable data set
        yield from islice(dataset, number)
        return
    while number > 0 and len(dataset):
        indices = torch.randperm(len(dataset))[:number].tolist()
        for index in indices:
            yield dataset[index]
        number -= len(indices)


def _with_batch_statistics(model: nn.Module, norms: dict[str, _BatchNorm]) -> dict[str, _BatchNorm]:
    """Those of ``norms`` that use the batch's statistics in training: not the frozen ones."""
    if not norms:
        return {}
    modes = [(module, module.training) for module in model.modules()]
    model.train()
    trained = {name: norm for name, norm in norms.items() if norm.training}
    for module, training in modes:
        module.training = training
    return trained
