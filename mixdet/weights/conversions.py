"""The kinds of weights that can be converted, each with the network that it fills."""

import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple, Optional, Union

import cv2
import numpy as np
import torch
from torch import nn

from mixdet.compat.safetensors import SUFFIX as SAFETENSORS
from mixdet.engine.atomic import new_file
from mixdet.errors import UserError
from mixdet.layers.mixconv import KernelSizes
from mixdet.registry import MODELS
from mixdet.weights.filling import Entry, fill
from mixdet.weights.folded import folded_norms, restore_statistics
from mixdet.weights.pytorch import timm_entries, torchvision_entries
from mixdet.weights.readers import read_weights
from mixdet.weights.tensorflow import COCO_IDS, USED_IDS, backbone_entries, count_class_ids, ssdlite_entries

# what weights expect of the network that loads them, see engine.expectations
TENSORFLOW = dict(padding='same', eps=1e-3, mean=[127.5] * 3, std=[127.5] * 3, bgr_to_rgb=True)
IMAGENET = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True)
TORCH = dict(IMAGENET, padding='symmetric', eps=1e-5)
TIMM_TF = dict(IMAGENET, padding='same', eps=1e-3)


class Conversion(NamedTuple):
    """One kind of weights.

    Attributes:
        network: config of the network that is filled.
        entries: gives the entries of the built network.
        allow: patterns of source names that may be left over.
        expects: what the weights expect of the network.
        size: side of the images that they were trained on, px.
    """

    network: dict
    entries: Callable[..., Iterator[Entry]]
    allow: tuple[str, ...] = ()
    expects: dict = TENSORFLOW
    size: int = 224


# variables and constants of a detection graph beside the network: preprocessing, anchors, NMS
OF_THE_GRAPH = ('Preprocessor/*', 'Postprocessor/*', '*AnchorGenerator/*', 'Loss/*', 'global_step', 'image_tensor*')


def _ssdlite(backbone: str, out_indices: tuple) -> Conversion:
    network = dict(
        type='mixdet.SSDLite',
        backbone=dict(type=backbone, out_indices=out_indices),
        neck=dict(type='mixdet.SSDLiteNeck'),
        bbox_head=dict(type='mixdet.SSDLiteHead', num_classes=len(USED_IDS)),
    )
    return Conversion(network, ssdlite_entries, OF_THE_GRAPH, size=300)


def _mixnet(arch: str) -> Conversion:
    network = dict(type='mixdet.MixNet', arch=arch, out_indices=(3, 'head'))
    return Conversion(network, timm_entries, ('classifier.*',), TORCH)


V2_OUTPUTS = ('expansion', 'head')
CONVERSIONS = {
    'ssdlite_mobilenetv1': _ssdlite('mixdet.MobileNetV1', (2, 3)),
    'ssdlite_mobilenetv2': _ssdlite('mixdet.MobileNetV2', V2_OUTPUTS),
    'mobilenetv1': Conversion(dict(type='mixdet.MobileNetV1'), backbone_entries, ('MobilenetV1/Logits/*',)),
    'mobilenetv2': Conversion(
        dict(type='mixdet.MobileNetV2', out_indices=V2_OUTPUTS), backbone_entries, ('MobilenetV2/Logits/*',)
    ),
    'torchvision_mobilenetv2': Conversion(
        dict(type='mixdet.MobileNetV2', out_indices=V2_OUTPUTS), torchvision_entries, ('classifier.*',), TORCH
    ),
    **{f'mixnet_{arch}': _mixnet(arch) for arch in ('s', 'm', 'l', 'xl')},
}


def convert(
    source: Union[str, Path, nn.Module],
    kind: str,
    kernel_sizes: Optional[KernelSizes] = None,
    keep_ids: bool = False,
    allow: Sequence[str] = (),
    images: Sequence[np.ndarray] = (),
    names: Union[Sequence[str], Mapping[int, str]] = (),
) -> dict:
    """A checkpoint (``state_dict`` and ``meta``) of our network with the weights of ``source``.

    ``meta`` notes the source, what the weights expect of the network that loads them (``expects``), the names of the
    batch-norms that are folded, see :mod:`mixdet.weights.folded`, and of those whose statistics were restored.

    Args:
        source: file, ``timm:NAME`` or module, see ``read_weights``.
        kind: what the weights are, a key of ``CONVERSIONS``.
        kernel_sizes: grow a MobileNet's 3x3 kernels into these; the network still computes the same.
        keep_ids: keep COCO's 90 ids as the classes of an SSDLite, instead of COCO's 80 classes. The number of classes
            of weights that were trained on other data is read from them.
        allow: patterns of source names that may be left over, besides those of the classifier.
        images: if batch-norms are folded, restore their statistics on these: (H, W, 3) uint8 BGR; 64 typical ones
            suffice.
        names: of an SSDLite's classes, all of them in order or by id (a label map; ids without a name are left out).

    Raises:
        UserError: if the source cannot be read, or tensors are missing, left over or of another shape.
    """
    network, entries, allowed, expects, size = CONVERSIONS[kind]
    detector = network['type'] == 'mixdet.SSDLite'
    if kernel_sizes is not None and network['type'] == 'mixdet.MixNet':
        raise UserError(f'kernel_sizes={kernel_sizes}: only MobileNets can be grown, whose kernels are all 3x3')
    if names and not detector:
        raise UserError(f'class names are for SSDLite detectors; {kind} has no classes')
    weights = read_weights(source)
    if network['type'] == 'mixdet.MixNet':
        expects = _timm_expects(source, weights.name)
    settings = dict(padding=expects['padding'], norm_cfg=dict(type='BN', eps=expects['eps']))
    grown = {} if kernel_sizes is None else dict(kernel_sizes=kernel_sizes)
    if detector:
        total = count_class_ids(weights.tensors)
        ids, classes = _class_ids(total, keep_ids, names)
        network = dict(
            network,
            backbone={**network['backbone'], **settings, **grown},
            neck={**network['neck'], **settings},
            bbox_head={**network['bbox_head'], 'num_classes': len(ids)},
        )
        entries = partial(entries, class_ids=ids, total=total)
    else:
        network = {**network, **settings, **grown}
    model = MODELS.build(network)
    skipped = fill(model, entries(model), weights.tensors, (*allowed, *allow))
    folded = list(folded_norms(model))
    restored = restore_statistics(model, lambda: _pass_images(model, images, size, expects)) if images else []
    meta = dict(
        source=weights.name,
        sha256=weights.sha256,
        kind=kind,
        skipped=skipped,
        expects=expects,
        folded=[name for name in folded if name not in restored],
        restored=restored,
    )
    if weights.entry:
        meta['entry'] = weights.entry
    if names:
        meta['dataset_meta'] = dict(classes=classes)
    return dict(state_dict={name: tensor.detach().clone() for name, tensor in model.state_dict().items()}, meta=meta)


def _class_ids(
    total: int, keep_ids: bool, names: Union[Sequence[str], Mapping[int, str]]
) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Ids and names (as far as given) of the classes of a detector that was trained on ``total`` ids."""
    if isinstance(names, Mapping):
        unknown = [i for i in names if not 1 <= i <= total]
        if unknown:
            raise UserError(f'the label map has the id {unknown[0]}, but the weights have the ids 1 to {total}')
        return tuple(names), tuple(names.values())
    coco = total == COCO_IDS and not keep_ids and len(names) != total
    ids = USED_IDS if coco else tuple(range(1, total + 1))
    if names and len(names) != len(ids):
        raise UserError(f'{len(names)} class names were given, but the weights have {len(ids)} classes; name each')
    return ids, tuple(names)


def _timm_expects(source: Union[str, Path, nn.Module], name: str) -> dict:
    """What a MixNet of timm expects: of a module as it is built, of a file as the name that timm gave it says."""
    if isinstance(source, nn.Module):
        eps = next((module.eps for module in source.modules() if isinstance(module, nn.BatchNorm2d)), TORCH['eps'])
        same = any('Same' in type(module).__name__ for module in source.modules())
        return dict(IMAGENET, padding='same' if same else 'symmetric', eps=eps)
    return TIMM_TF if 'tf_mixnet' in name else TORCH


def _pass_images(model: nn.Module, images: Sequence[np.ndarray], size: int, expects: dict) -> None:
    """Pass ``images`` through ``model``, prepared as its weights expect them, ``size`` px wide and high."""
    mean, std = (torch.tensor(expects[name]).view(3, 1, 1) for name in ('mean', 'std'))
    for image in images:
        resized = cv2.cvtColor(cv2.resize(image, (size, size)), cv2.COLOR_BGR2RGB)
        inputs = (torch.from_numpy(resized).permute(2, 0, 1) - mean) / std
        model(inputs[None])


def save_checkpoint(checkpoint: dict, path: Path) -> None:
    """Write a checkpoint as .pth or .safetensors; the latter stores the values of ``meta`` as strings.

    Raises:
        UserError: if the file exists, cannot be written or is to be of another type, or safetensors is not installed.
    """
    if path.suffix == '.pth':
        content = io.BytesIO()  # PyTorch's own writing to a full disk ends the process
        torch.save(checkpoint, content)
        with new_file(path) as partial:
            partial.write_bytes(content.getbuffer())
        return
    if path.suffix != SAFETENSORS:
        raise UserError(f'{path}: the checkpoint must end in .pth or {SAFETENSORS}')
    try:
        from safetensors.torch import save
    except ImportError as error:
        raise UserError(f'{path} needs safetensors: pip install safetensors') from error
    meta = {key: value if isinstance(value, str) else json.dumps(value) for key, value in checkpoint['meta'].items()}
    tensors = {name: tensor.contiguous() for name, tensor in checkpoint['state_dict'].items()}
    with new_file(path) as partial:
        partial.write_bytes(save(tensors, metadata=meta))
