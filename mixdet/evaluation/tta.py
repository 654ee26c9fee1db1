"""Test-time augmentation: an image and its mirror image, merged by NMS."""

import copy

from mmengine.config import Config, ConfigDict

from mixdet.datasets.wrappers import wrapped_datasets

MIRROR_KEYS = ('flip', 'flip_direction')


def mirror_in_test(cfg: Config) -> None:
    """Change ``cfg`` so that a test sees each image as it is and mirrored, by MMDetection's ``DetTTAModel``.

    A ``tta_model`` of the config is kept; without one, the detections are merged by the model's own NMS.

    Raises:
        ValueError: if the test pipeline does not end in PackDetInputs, or the model has no NMS of its own.
    """
    for key, dataset in wrapped_datasets(cfg.test_dataloader.dataset, 'test_dataloader.dataset'):
        pipeline = copy.deepcopy(list(dataset['pipeline']))
        if not pipeline or pipeline[-1].get('type') != 'PackDetInputs':
            raise ValueError(f'{key}.pipeline must end in PackDetInputs')
        pack = pipeline[-1]
        pack['meta_keys'] = (*pack.get('meta_keys', ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),)
        pack['meta_keys'] += tuple(key for key in MIRROR_KEYS if key not in pack['meta_keys'])
        # the plain image first: the merged result takes its ground truth
        mirror = [dict(type='RandomFlip', prob=0.0), dict(type='RandomFlip', prob=1.0)]
        dataset['pipeline'] = [*pipeline[:-1], dict(type='TestTimeAug', transforms=[mirror, [pack]])]
    if 'tta_model' not in cfg:
        test_cfg = cfg.model.get('test_cfg') or {}
        if 'nms' not in test_cfg:
            raise ValueError('model.test_cfg has no nms to merge with; give a tta_model in the config')
        merge = dict(nms=test_cfg['nms'], max_per_img=test_cfg.get('max_per_img', 100))
        cfg.tta_model = dict(type='DetTTAModel', tta_cfg=merge)
    cfg.model = ConfigDict(**cfg.tta_model, module=cfg.model)
