"""Putting one of our backbones into an existing config, together with everything that depends on the backbone."""

import copy
from typing import Any, NamedTuple, Optional, Union

from mmengine.config import Config, ConfigDict

from mixdet.backbones.mixnet import ARCHS
from mixdet.backbones.variants import BASELINE, NETWORKS, all_variants
from mixdet.engine.config import load_config
from mixdet.errors import UserError, first_line
from mixdet.swap.outputs import BackboneOutputs, backbone_outputs
from mixdet.swap.wiring import first_neck, rewire, type_name, walk

PYRAMID = (0, 1, 2, 3)  # indices of our outputs, as of a ResNet's
# the input that ImageNet weights expect: mean and standard deviation of the pixels, RGB
NORMALISATION = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True)
NOT_SWAPPABLE = {
    'RFP': 'feeds its features back into the stages of DetectoRS_ResNet',
    'TridentRoIHead': 'takes the parallel branches of TridentResNet',
    'ResLayer': "is the last stage of a ResNet and needs that network's channels",
    'Detectron2Wrapper': 'builds its network with detectron2',
}
SYNC_BATCH_NORMS = ('SyncBN', 'MMSyncBN')
# settings of the old backbone that mean the same in ours, and make sense for pretrained weights only
KEPT_IF_PRETRAINED = ('frozen_stages', 'norm_eval')


class Swap(NamedTuple):
    """The result of a swap.

    Attributes:
        cfg: the new config.
        changes: what was rewired.
        notes: what the user should look at.
    """

    cfg: Config
    changes: list[str]
    notes: list[str]


def load_config_leniently(path: str) -> Config:
    """The config in ``path``; if the packages of its ``custom_imports`` are not installed, it is read without them.

    Raises:
        UserError: if the file does not exist or cannot be read.
    """
    try:
        return load_config(path)
    except UserError as error:
        if 'Failed to import custom modules' not in str(error):
            raise
        return load_config(path, import_custom_modules=False)


def named_backbone(name: str) -> dict:
    """Config of ``mixnet-s`` (m, l, xl), ``mobilenetv1`` or ``mobilenetv2``, as in the names of our config files.

    The name of a MobileNet may be followed by a variant of :mod:`mixdet.backbones.variants`:
    ``mobilenetv2-mixconv357``.

    Raises:
        UserError: if there is no such backbone.
    """
    network, _, variant = name.partition('-')
    if network == 'mixnet' and variant in ARCHS:
        return dict(type='mixdet.MixNet', arch=variant)
    if network not in NETWORKS or (variant and variant not in all_variants(network)):
        raise UserError(
            f'--backbone {name}: must be {", ".join(f"mixnet-{arch}" for arch in ARCHS)}, mobilenetv1 or mobilenetv2; '
            'a MobileNet may be followed by a variant of the paper: mobilenetv2-mixconv357, mobilenetv1-depthwise5x5'
        )
    return dict(type=NETWORKS[network], **all_variants(network)[variant or BASELINE])


def swap_backbone(cfg: Config, backbone: Union[str, dict], pretrained: Optional[str] = None) -> Swap:
    """Put one of our backbones into ``cfg``, and adapt what depends on it; ``cfg`` itself is not changed.

    The old backbone is built once to find the strides and channels that the rest of the detector was made for. Ours
    gets the outputs of the same strides, and its channels replace the old ones in neck and heads.

    Args:
        cfg: config of any detector.
        backbone: name (see :func:`named_backbone`) or config of one of our backbones.
        pretrained: checkpoint of its weights. Without one nothing is frozen: settings of the old backbone that freeze
            stages or batch-norm statistics would freeze random values.

    Raises:
        UserError: if the detector cannot be wired to the backbone, with all the reasons.
    """
    cfg = copy.deepcopy(cfg)
    config = named_backbone(backbone) if isinstance(backbone, str) else dict(backbone)
    detector = _find_detector(cfg)
    old_config = detector.backbone
    notes: list[str] = []
    obstacles = [f'{name} {NOT_SWAPPABLE[name]}' for name in _types(detector) if name in NOT_SWAPPABLE]
    if obstacles:
        raise UserError(f'cannot be wired to another backbone: {"; ".join(dict.fromkeys(obstacles))}')
    old = _old_outputs(detector, notes)
    if 'out_indices' not in config:
        config['out_indices'] = _out_indices(config, old)
    config.update(_carried_over(old_config, pretrained, notes))
    new = backbone_outputs(config)
    detector.backbone = ConfigDict(config)
    changes = [
        f'backbone: {type_name(old_config.type)} -> {config["type"]}, out_indices={config["out_indices"]}',
        *rewire(detector, old, new),
        *_set_normalisation(cfg.model),
    ]
    _set_imports(cfg, notes)
    _adapt_training(cfg, detector, notes)
    _note_other_weights(cfg, detector, notes)
    return Swap(cfg, changes, notes)


def _find_detector(cfg: Config) -> ConfigDict:
    """The part of the model with the backbone: ``detector`` in trackers and semi-supervised models.

    Raises:
        UserError: if there is none, or its network is not built from the config.
    """
    model = cfg.get('model')
    if not isinstance(model, dict):
        raise UserError('there is no model in this config')
    name = type_name(model.get('type', 'without a type'))
    if name in NOT_SWAPPABLE:
        raise UserError(f'cannot be wired to another backbone: {name} {NOT_SWAPPABLE[name]}')
    for part in (model, model.get('detector')):
        if isinstance(part, dict) and isinstance(part.get('backbone'), dict) and 'type' in part['backbone']:
            return part
    raise UserError(f'model {name} has no backbone')


def _types(node: Any) -> list[str]:
    return [type_name(part['type']) for _, part in walk(node) if part.get('type')]


def _old_outputs(detector: ConfigDict, notes: list[str]) -> BackboneOutputs:
    """The outputs of the old backbone; what the neck expects, if the backbone cannot be built."""
    try:
        return backbone_outputs(detector.backbone)
    except Exception as error:  # its package may not be installed
        neck = first_neck(detector)
        old = f'{type_name(detector.backbone.type)} cannot be built here'
        if neck is None:
            raise UserError(f'backbone {old}, and no neck states its channels: {first_line(error)}') from error
        channels = neck['in_channels']
        channels = (channels,) if isinstance(channels, int) else tuple(channels)
        strides = tuple(4 << i for i in PYRAMID)[-len(channels) :]
        notes.append(f'{old} ({first_line(error)}): its outputs are assumed to have strides {strides}')
        return BackboneOutputs(channels, strides)


def _out_indices(config: dict, old: BackboneOutputs) -> tuple[int, ...]:
    """Those of our outputs that have the strides of the old ones."""
    strides = backbone_outputs({**config, 'out_indices': PYRAMID}).strides
    if not set(old.strides) <= set(strides) or len(set(old.strides)) < len(old.strides):
        raise UserError(
            f'cannot be wired: the detector takes outputs of stride {old.strides}, ours have {strides}, each once'
        )
    return tuple(PYRAMID[strides.index(stride)] for stride in old.strides)


def _carried_over(old: dict, pretrained: Optional[str], notes: list[str]) -> dict:
    """Settings of the old backbone that ours gets as well."""
    kept: dict[str, Any] = dict(with_cp=True) if old.get('with_cp') else {}
    norm = (old.get('norm_cfg') or {}).get('type', 'BN')
    if norm in SYNC_BATCH_NORMS:
        kept['norm_cfg'] = dict(type=norm, eps=0.001, momentum=0.01)
    elif norm not in ('BN', 'LN'):
        notes.append(f'the old backbone was normalised by {norm}, ours is by BN')
    if pretrained:
        kept['init_cfg'] = dict(type='Pretrained', checkpoint=pretrained)
        kept.update({key: old[key] for key in KEPT_IF_PRETRAINED if key in old})
        if 'frozen_stages' in kept:
            kept['frozen_stages'] = min(kept['frozen_stages'], len(PYRAMID))
    elif old.get('frozen_stages', -1) >= 0 or old.get('norm_eval'):
        notes.append('no pretrained weights: frozen_stages and norm_eval are off')
    lost = [key for key in ('dcn', 'sac', 'plugins') if old.get(key)]
    if lost:
        notes.append(f'removed with the old backbone: {", ".join(lost)}')
    return kept


def _set_normalisation(model: dict) -> list[str]:
    """Set the normalisation of ImageNet in every data preprocessor that normalises; returns the changes."""
    changes = []
    for path, part in walk(model):
        normalises = 'DataPreprocessor' in type_name(part.get('type', '')) and part.get('mean') is not None
        if normalises and {key: part.get(key) for key in NORMALISATION} != NORMALISATION:
            part.update(copy.deepcopy(NORMALISATION))
            part.pop('rgb_to_bgr', None)
            changes.append(f'{path}: mean, std and channel order of ImageNet')
    return changes


def _set_imports(cfg: Config, notes: list[str]) -> None:
    """Import mixdet, and no longer mmpretrain if only the old backbone needed it."""
    imports = list(cfg.get('custom_imports', {}).get('imports', []))
    scopes = {name.partition('.')[0] for name in _types(cfg._cfg_dict) if '.' in name}
    unused = [name for name in imports if name.startswith('mmpretrain') and 'mmpretrain' not in scopes]
    if unused:
        notes.append(f'removed from custom_imports: {", ".join(unused)}, which only the old backbone needed')
    kept = [name for name in imports if name not in unused and name != 'mixdet']
    cfg.custom_imports = dict(imports=[*kept, 'mixdet'], allow_failed_imports=False)


def _adapt_training(cfg: Config, detector: ConfigDict, notes: list[str]) -> None:
    """Remove or note learning rates that were meant for the old backbone."""
    wrapper = cfg.get('optim_wrapper') or {}
    if wrapper.get('constructor') == 'LearningRateDecayOptimizerConstructor':
        wrapper.pop('constructor')
        wrapper.pop('paramwise_cfg', None)
        notes.append('optim_wrapper.constructor decayed the learning rate over the layers of the old backbone: removed')
    custom = (wrapper.get('paramwise_cfg') or {}).get('custom_keys', {})
    rate = custom.get('backbone', {}).get('lr_mult', 1)
    if rate < 1 and 'init_cfg' not in detector.backbone:
        notes.append(
            f'optim_wrapper.paramwise_cfg trains the backbone at lr_mult={rate}: set 1 without pretrained weights'
        )


def _note_other_weights(cfg: Config, detector: ConfigDict, notes: list[str]) -> None:
    """Note weights of the whole old detector, and backbones that stay."""
    if cfg.get('load_from'):
        notes.append(f'load_from={cfg.load_from} holds the old backbone: what does not fit is skipped')
    for key in ('init_cfg', 'pretrained'):
        if detector.get(key):
            notes.append(f'model.{key} loads weights of the old detector')
    others = [
        f'{path}.{key}' if path else str(key)
        for path, part in walk(cfg.model)
        for key, value in part.items()
        if str(key).endswith('backbone') and isinstance(value, dict) and value is not detector.backbone
    ]
    if others:
        notes.append(f'other backbones are not changed: {", ".join(others)}')
