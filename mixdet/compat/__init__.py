"""What does the OpenMMLab stack need to work on current machines? One module per defect; each says when it can go.

Uses ``errors`` alone. ``install`` runs on ``import mixdet``, before mmcv and mmdet are imported; nothing that works
is replaced.
"""

import warnings

from mixdet.compat.stack import check_stack

__all__ = ['check_stack', 'install']


def install() -> None:
    """Install every shim; calling it again changes nothing."""
    from mixdet.compat import checkpoints, config_text, mmcv_ops, packages, safetensors, yaml_files

    # onedl-mmdetection 3.5.1 warns about this optional package on every import
    warnings.filterwarnings('ignore', message='faster_coco_eval is not installed')
    mmcv_ops.install()
    packages.install()
    checkpoints.install()
    safetensors.install()
    yaml_files.install()
    config_text.install()
