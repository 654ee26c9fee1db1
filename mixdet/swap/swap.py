"""Putting one of our backbones into an existing config, with everything that depends on it."""

import copy
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Optional, Union

from mmengine.config import Config, ConfigDict

from mixdet.backbones.mixnet import ARCHS
from mixdet.backbones.variants import BASELINE, NETWORKS, all_variants
from mixdet.engine.config import load_config
from mixdet.errors import UserError, first_line
from mixdet.registry import MODELS
from mixdet.swap.outputs import Outputs, describe

PYRAMID = (0, 1, 2, 3)  # our outputs, as a ResNet's
# what weights from ImageNet expect: RGB, mean and deviation of its pixels
NORMALISATION = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True)
UNWIRABLE = {
    'RFP': 'feeds its features back into the stages of DetectoRS_ResNet',
    'TridentRoIHead': 'takes the parallel branches of TridentResNet',
    'ResLayer': "is the last stage of a ResNet and fixes that network's channels",
    'Detectron2Wrapper': 'builds its network with detectron2',
}
# settings of the old backbone that mean the same in ours
KEPT_FROM_PRETRAINED = ('frozen_stages', 'norm_eval')


class Swap(NamedTuple):
    """``cfg``: the new config. ``changes``: what was rewired. ``notes``: what the user should look at."""

    cfg: Config
    changes: list[str]
    notes: list[str]


def read_config(path: str) -> Config:
    """The config in ``path``, also where the package of its backbone is not installed."""
    try:
        return load_config(path)
    except UserError as error:
        if 'Failed to import custom modules' not in str(error):
            raise
        return load_config(path, import_custom_modules=False)


def named_backbone(name: str) -> dict:
    """Config of ``mixnet-s`` (m, l, xl), ``mobilenetv1`` or ``mobilenetv2``, as our config files name them.

    A MobileNet's variant may follow: ``mobilenetv2-mixconv357`` (:mod:`mixdet.backbones.variants`). Raises UserError on
    another name.
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
    """``cfg`` with one of our backbones, and what depends on it, as a new config.

    The old backbone is built once to see which strides and channels the rest of the detector was made for; ours gets
    the outputs of the same strides, and the lists of channels in neck and heads become its own.

    Args:
        cfg: config of any detector.
        backbone: name (see :func:`named_backbone`) or config of one of our backbones.
        pretrained: checkpoint of its weights. Without one nothing is frozen: the settings of the old backbone that
            freeze stages or batch-norm statistics would freeze noise.

    Raises:
        UserError: naming all that cannot be wired.
    """
    cfg = copy.deepcopy(cfg)
    config = named_backbone(backbone) if isinstance(backbone, str) else dict(backbone)
    detector = _detector(cfg)
    old_config, changes, notes = detector.backbone, [], []
    obstacles = [f'{name} {UNWIRABLE[name]}' for name in _types(detector) if name in UNWIRABLE]
    if obstacles:
        raise UserError(f'cannot be wired to another backbone: {"; ".join(dict.fromkeys(obstacles))}')
    old = _old_outputs(detector, notes)
    if 'out_indices' not in config:
        config['out_indices'] = _out_indices(config, old)
    config.update(_kept(old_config, pretrained, notes))
    new = describe(config)
    detector.backbone = ConfigDict(config)
    changes.append(f'backbone: {_name(old_config.type)} -> {config["type"]}, out_indices={config["out_indices"]}')
    changes += _rewire(detector, old, new)
    changes += _normalise(cfg.model)
    _imports(cfg, notes)
    _look_at(cfg, detector, old_config, notes)
    return Swap(cfg, changes, notes)


def _name(kind) -> str:
    return kind if isinstance(kind, str) else kind.__name__


def _detector(cfg: Config) -> ConfigDict:
    """The part of the model that has a backbone: trackers and semi-supervised models keep it in ``detector``."""
    model = cfg.get('model')
    if not isinstance(model, dict):
        raise UserError('there is no model in this config')
    obstacle = UNWIRABLE.get(_name(model.get('type', '')))
    if obstacle:
        raise UserError(f'cannot be wired to another backbone: {_name(model.type)} {obstacle}')
    for part in (model, model.get('detector')):
        if isinstance(part, dict) and isinstance(part.get('backbone'), dict) and 'type' in part.backbone:
            return part
    raise UserError(f'model {_name(model.get("type", "without a type"))} has no backbone')


def _walk(node, path: str = '') -> Iterator[tuple[str, dict]]:
    """All dicts below ``node`` with their dotted paths, but not backbones."""
    if isinstance(node, dict):
        yield path, node
        for key, value in node.items():
            if not str(key).endswith('backbone'):
                yield from _walk(value, f'{path}.{key}' if path else str(key))
    elif isinstance(node, (list, tuple)):
        for i, value in enumerate(node):
            yield from _walk(value, f'{path}.{i}')


def _types(node) -> list[str]:
    return [_name(part['type']) for _, part in _walk(node) if part.get('type')]


def _first_neck(detector: dict) -> Optional[dict]:
    """The neck that sees the backbone, if it says how many channels it takes."""
    neck = detector.get('neck')
    neck = neck[0] if isinstance(neck, (list, tuple)) else neck
    return neck if neck and 'in_channels' in neck else None


def _old_outputs(detector: dict, notes: list[str]) -> Outputs:
    try:
        return describe(detector.backbone)
    except Exception as error:  # not ours; its package may be missing
        neck = _first_neck(detector)
        old = f'{_name(detector.backbone.type)} cannot be built here ({first_line(error)})'
        if neck is None:
            raise UserError(f'backbone {old}, and there is no neck that would tell its channels') from error
        channels = neck['in_channels']
        channels = (channels,) if isinstance(channels, int) else tuple(channels)
        strides = tuple(4 << i for i in PYRAMID)[-len(channels) :]
        notes.append(f'{old}: taken for outputs of stride {strides}')
        return Outputs(channels, strides)


def _out_indices(config: dict, old: Outputs) -> tuple[int, ...]:
    """Those of our outputs that have the strides of the old ones."""
    strides = describe({**config, 'out_indices': PYRAMID}).strides
    if not set(old.strides) <= set(strides) or len(set(old.strides)) < len(old.strides):
        raise UserError(
            f'cannot be wired: the detector takes outputs of stride {old.strides}, ours have {strides}, each once'
        )
    return tuple(PYRAMID[strides.index(stride)] for stride in old.strides)


def _kept(old: dict, pretrained: Optional[str], notes: list[str]) -> dict:
    """What carries over from the old backbone's config."""
    kept = dict(with_cp=True) if old.get('with_cp') else {}
    norm = (old.get('norm_cfg') or {}).get('type', 'BN')
    if norm in ('SyncBN', 'MMSyncBN'):
        kept['norm_cfg'] = dict(type=norm, eps=0.001, momentum=0.01)
    elif norm not in ('BN', 'LN'):
        notes.append(f'the old backbone was normalised by {norm}, ours is by BN')
    if pretrained:
        kept['init_cfg'] = dict(type='Pretrained', checkpoint=pretrained)
        kept.update({key: old[key] for key in KEPT_FROM_PRETRAINED if key in old})
        if 'frozen_stages' in kept:
            kept['frozen_stages'] = min(kept['frozen_stages'], len(PYRAMID))
    elif old.get('frozen_stages', -1) >= 0 or old.get('norm_eval'):
        notes.append('no pretrained weights: frozen_stages and norm_eval are off')
    lost = [key for key in ('dcn', 'sac', 'plugins') if old.get(key)]
    if lost:
        notes.append(f'gone with the old backbone: {", ".join(lost)}')
    return kept


def _rewire(detector: dict, old: Outputs, new: Outputs) -> list[str]:
    """Put the new channels wherever the old ones stood; UserError where the neck does not take them."""
    changes = []

    def put(part: dict, path: str, key: str, value) -> None:
        changes.append(f'{path}.{key}: {part[key]} -> {value}')
        part[key] = value

    def lists() -> None:
        for path, part in _walk(detector):
            value = part.get('in_channels')
            if not isinstance(value, Sequence):
                continue
            if _starts(value, old.channels):
                put(part, path, 'in_channels', [*new.channels, *value[len(old.channels) :]])
                passed = part.get('out_channels')
                if _starts(passed, old.channels):  # SSD's neck hands on what it gets, and adds levels
                    put(part, path, 'out_channels', [*new.channels, *passed[len(old.channels) :]])
            elif tuple(value) == old.channels[::-1]:  # YOLOv3 begins at the deepest
                put(part, path, 'in_channels', [*new.channels[::-1]])

    neck = _first_neck(detector)
    if neck is None:
        if len(old.channels) > 1:
            lists()
        for path, part in _walk(detector):
            for key in ('in_channels', 'out_channels') if path.endswith('roi_extractor') else ('in_channels',):
                if part.get(key) == old.channels[-1]:
                    put(part, path, key, new.channels[-1])
    elif isinstance(neck['in_channels'], int):
        if neck['in_channels'] == old.channels[-1]:
            put(neck, 'neck', 'in_channels', new.channels[-1])
    elif len(old.channels) > 1:
        lists()
    elif tuple(neck['in_channels']) == old.channels:
        put(neck, 'neck', 'in_channels', [*new.channels])
    if neck is not None and changes:
        try:
            MODELS.build(copy.deepcopy(dict(neck)))
        except Exception as error:  # upstream raises anything
            kind = _name(neck['type'])
            raise UserError(
                f'cannot be wired: neck {kind} does not take {new.channels}: {first_line(error)}'
            ) from error
    if not changes:
        where = f'neck.in_channels={neck["in_channels"]} is' if neck else 'no in_channels of neck or heads is'
        raise UserError(f'cannot be wired: the old backbone has {old.channels} channels, but {where} made for that')
    return changes


def _starts(value, channels: tuple[int, ...]) -> bool:
    return isinstance(value, Sequence) and tuple(value[: len(channels)]) == channels


def _normalise(model: dict) -> list[str]:
    """ImageNet's normalisation in every data preprocessor that normalises."""
    changes = []
    for path, part in _walk(model):
        if 'DataPreprocessor' in _name(part.get('type', '')) and part.get('mean') is not None:
            former = {key: part.get(key) for key in NORMALISATION}
            if former != NORMALISATION:
                part.update(copy.deepcopy(NORMALISATION))
                part.pop('rgb_to_bgr', None)
                changes.append(f'{path}: mean, std and channel order of ImageNet')
    return changes


def _imports(cfg: Config, notes: list[str]) -> None:
    """Import mixdet; leave out packages that only the old backbone needed."""
    imports = list(cfg.get('custom_imports', {}).get('imports', []))
    scopes = {name.partition('.')[0] for name in _types(cfg._cfg_dict) if '.' in name}
    idle = [name for name in imports if name.startswith('mmpretrain') and 'mmpretrain' not in scopes]
    if idle:
        notes.append(f'custom_imports without {", ".join(idle)}, which only the old backbone needed')
    kept = [name for name in imports if name not in idle and name != 'mixdet']
    cfg.custom_imports = dict(imports=[*kept, 'mixdet'], allow_failed_imports=False)


def _look_at(cfg: Config, detector: dict, old: dict, notes: list[str]) -> None:
    """Note what else was meant for the old backbone."""
    wrapper = cfg.get('optim_wrapper') or {}
    if wrapper.get('constructor') == 'LearningRateDecayOptimizerConstructor':
        wrapper.pop('constructor')
        wrapper.pop('paramwise_cfg', None)
        notes.append('optim_wrapper.constructor decayed the learning rate over the layers of the old backbone: removed')
    custom = (wrapper.get('paramwise_cfg') or {}).get('custom_keys', {})
    rate = custom.get('backbone', {}).get('lr_mult', 1)
    if rate < 1 and 'init_cfg' not in detector.backbone:
        notes.append(f'optim_wrapper.paramwise_cfg trains the backbone at lr_mult={rate}: set 1 from scratch')
    if cfg.get('load_from'):
        notes.append(f'load_from={cfg.load_from} holds the old backbone: what does not fit is skipped')
    for key in ('init_cfg', 'pretrained'):
        if detector.get(key):
            notes.append(f'model.{key} loads weights of the old detector')
    others = [
        f'{path}.{key}' if path else str(key)
        for path, part in _walk(cfg.model)
        for key, value in part.items()
        if str(key).endswith('backbone') and isinstance(value, dict) and value is not detector.backbone
    ]
    if others:
        notes.append(f'other backbones stay as they are: {", ".join(others)}')
