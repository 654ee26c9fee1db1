"""What makes the OpenMMLab stack work on current machines: one module a defect, each saying when it can go.

Uses ``errors`` alone. ``install`` runs on ``import mixdet``, before mmcv and mmdet are imported; nothing that works
is replaced.
"""

import warnings

from mixdet.compat.stack import check_stack

__all__ = ['check_stack', 'install']


def install() -> None:
    """Put every shim in place; calling it again changes nothing."""
    from mixdet.compat import checkpoints, config_text, mmcv_ops, packages, safetensors

    # onedl-mmdetection 3.5.1 warns of this optional package on every import
    warnings.filterwarnings('ignore', message='faster_coco_eval is not installed')
    mmcv_ops.install()
    packages.install()
    checkpoints.install()
    safetensors.install()
    config_text.install()
