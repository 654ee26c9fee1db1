import json

import cv2
import numpy as np
import pytest
from mmengine.config import ConfigDict

NAMES = ['RBC', 'WBC', 'Platelets']


@pytest.fixture
def dataset(tmp_path):
    """The config of a data set with one image and no boxes."""
    (tmp_path / 'images').mkdir()
    categories = [dict(id=i, name=name) for i, name in enumerate(NAMES)]
    images = [dict(id=1, file_name='1.png', width=10, height=10)]
    (tmp_path / 'a.json').write_text(json.dumps(dict(images=images, annotations=[], categories=categories)))
    cv2.imwrite(str(tmp_path / 'images/1.png'), np.zeros((10, 10, 3), np.uint8))
    return ConfigDict(
        type='CocoDataset',
        data_root=str(tmp_path),
        ann_file='a.json',
        data_prefix=dict(img='images/'),
        metainfo=dict(classes=tuple(NAMES)),
    )
