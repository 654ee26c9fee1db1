"""The kinds of weights that can be converted, each with the network that it fills."""

import json
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple, Optional, Union

import torch
from torch import nn

from mixdet.compat.safetensors import SUFFIX as SAFETENSORS
from mixdet.errors import UserError
from mixdet.layers.mixconv import KernelSizes
from mixdet.registry import MODELS
from mixdet.weights.filling import Entry, fill
from mixdet.weights.pytorch import timm_entries, torchvision_entries
from mixdet.weights.readers import read_weights
from mixdet.weights.tensorflow import COCO_IDS, USED_IDS, backbone_entries, ssdlite_entries


class Conversion(NamedTuple):
    """One kind of weights.

    Attributes:
        network: config of the network that is filled.
        entries: gives the entries of the built network.
        allow: patterns of source names that may be left over.
    """

    network: dict
    entries: Callable[..., Iterator[Entry]]
    allow: tuple[str, ...] = ()


def _ssdlite(backbone: str, out_indices: tuple) -> Conversion:
    network = dict(
        type='mixdet.SSDLite',
        backbone=dict(type=backbone, out_indices=out_indices, padding='same'),
        neck=dict(type='mixdet.SSDLiteNeck', padding='same'),
        bbox_head=dict(type='mixdet.SSDLiteHead', num_classes=len(USED_IDS)),
    )
    return Conversion(network, ssdlite_entries)


def _mixnet(arch: str) -> Conversion:
    return Conversion(dict(type='mixdet.MixNet', arch=arch, out_indices=(3, 'head')), timm_entries, ('classifier.*',))


V2_OUTPUTS = ('expansion', 'head')
CONVERSIONS = {
    'ssdlite_mobilenetv1': _ssdlite('mixdet.MobileNetV1', (2, 3)),
    'ssdlite_mobilenetv2': _ssdlite('mixdet.MobileNetV2', V2_OUTPUTS),
    'mobilenetv1': Conversion(dict(type='mixdet.MobileNetV1'), backbone_entries, ('MobilenetV1/Logits/*',)),
    'mobilenetv2': Conversion(
        dict(type='mixdet.MobileNetV2', out_indices=V2_OUTPUTS), backbone_entries, ('MobilenetV2/Logits/*',)
    ),
    'torchvision_mobilenetv2': Conversion(
        dict(type='mixdet.MobileNetV2', out_indices=V2_OUTPUTS), torchvision_entries, ('classifier.*',)
    ),
    **{f'mixnet_{arch}': _mixnet(arch) for arch in ('s', 'm', 'l', 'xl')},
}


def convert(
    source: Union[str, Path, nn.Module],
    kind: str,
    kernel_sizes: Optional[KernelSizes] = None,
    keep_ids: bool = False,
    allow: Sequence[str] = (),
) -> dict:
    """A checkpoint (``state_dict`` and ``meta``) of our network with the weights of ``source``.

    Args:
        source: file, ``timm:NAME`` or module, see ``read_weights``.
        kind: what the weights are, a key of ``CONVERSIONS``.
        kernel_sizes: grow a MobileNet's 3x3 kernels into these; the network still computes the same.
        keep_ids: keep COCO's 90 ids as the classes of an SSDLite, instead of COCO's 80 classes.
        allow: patterns of source names that may be left over, besides those of the classifier.

    Raises:
        UserError: if the source cannot be read, or tensors are missing, left over or of another shape.
    """
    network, entries, allowed = CONVERSIONS[kind]
    detector = network['type'] == 'mixdet.SSDLite'
    if kernel_sizes is not None:
        if network['type'] == 'mixdet.MixNet':
            raise UserError(f'kernel_sizes={kernel_sizes}: only MobileNets can be grown, whose kernels are all 3x3')
        grown = dict(kernel_sizes=kernel_sizes)
        network = {**network, 'backbone': {**network['backbone'], **grown}} if detector else {**network, **grown}
    if detector:
        ids = tuple(range(1, COCO_IDS + 1)) if keep_ids else USED_IDS
        network = {**network, 'bbox_head': {**network['bbox_head'], 'num_classes': len(ids)}}
        entries = partial(entries, class_ids=ids)
    weights = read_weights(source)
    model = MODELS.build(network)
    skipped = fill(model, entries(model), weights.tensors, (*allowed, *allow))
    meta = dict(source=weights.name, sha256=weights.sha256, kind=kind, skipped=skipped)
    return dict(state_dict={name: tensor.detach().clone() for name, tensor in model.state_dict().items()}, meta=meta)


def save_checkpoint(checkpoint: dict, path: Path) -> None:
    """Write a checkpoint as .pth or .safetensors; the latter stores the values of ``meta`` as strings.

    Raises:
        UserError: if the file is to be of another type, or safetensors is not installed.
    """
    if path.suffix == '.pth':
        torch.save(checkpoint, path)
        return
    if path.suffix != SAFETENSORS:
        raise UserError(f'{path}: the checkpoint must end in .pth or {SAFETENSORS}')
    try:
        from safetensors.torch import save_file
    except ImportError as error:
        raise UserError(f'{path} needs safetensors: pip install safetensors') from error
    meta = {key: value if isinstance(value, str) else json.dumps(value) for key, value in checkpoint['meta'].items()}
    save_file({name: tensor.contiguous() for name, tensor in checkpoint['state_dict'].items()}, path, metadata=meta)
