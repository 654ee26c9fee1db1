import json
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from helpers import ROOT
from mmengine.config import Config, ConfigDict

from mixdet.datasets import make_demo_data
from mixdet.datasets.preflight import DatasetCheckHook, check_datasets, coco_files
from mixdet.errors import UserError

NAMES = ['RBC', 'WBC', 'Platelets']


@pytest.fixture
def dataset(tmp_path):
    (tmp_path / 'images').mkdir()
    categories = [dict(id=i, name=name) for i, name in enumerate(NAMES)]
    (tmp_path / 'a.json').write_text(json.dumps(dict(images=[], annotations=[], categories=categories)))
    return ConfigDict(
        type='CocoDataset',
        data_root=str(tmp_path),
        ann_file='a.json',
        data_prefix=dict(img='images/'),
        metainfo=dict(classes=tuple(NAMES)),
    )


def check(dataset):
    check_datasets(ConfigDict(val_dataloader=dict(dataset=dataset)), ('train', 'val'))


def test_a_sound_set_passes(dataset):
    check(dataset)
    check(dict(type='RepeatDataset', times=2, dataset=dict(type='ConcatDataset', datasets=[dataset, dataset])))
    dataset.metainfo.classes = ('RBC', 'Platelets')  # a subset in order
    check(dataset)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(ann_file='b.json'), r'val_dataloader\.dataset: annotation file .*b\.json does not exist'),
        (dict(data_prefix=dict(img='pictures/')), r'image folder .*pictures does not exist'),
        (dict(metainfo=dict(classes=('RBC', 'WBC', 'Platelet'))), "class 'Platelet' .* did you mean 'Platelets'"),
        (dict(metainfo=dict(classes=('cat',))), "class 'cat' is not in .* it has RBC, WBC, Platelets"),
        (dict(metainfo=dict(classes=('WBC', 'RBC'))), r"their order in .*\('RBC', 'WBC'\)"),
        (dict(metainfo=dict()), "class 'person' is not in"),
        (dict(type='KokoDataset'), "there is no dataset 'KokoDataset'"),
    ],
)
def test_issues_are_named(dataset, change, message):
    dataset.update(change)
    if 'metainfo' in change:
        dataset['metainfo'] = ConfigDict(change['metainfo'])
    with pytest.raises(UserError, match=message) as error:
        check(dataset)
    assert '\n' not in str(error.value)


def test_sets_that_read_their_categories_otherwise_are_left_alone(dataset):
    check(dict(dataset, type='LVISV1Dataset', metainfo=dict(classes=('aerosol_can',))))


@pytest.mark.parametrize(
    'remote',
    [dict(data_root='s3://bucket/'), dict(ann_file='s3://bucket/a.json'), dict(data_prefix=dict(img='http://host/'))],
)
def test_remote_storage_is_left_to_mmengine(dataset, remote):
    check(dict(dataset, **{'data_root': '', 'ann_file': 'gone.json', **remote}))


def test_a_check_does_not_draw_the_demo_set(tmp_path):
    cfg = Config.fromfile(ROOT / 'configs/demo/ssdlite_mixnet-s_1xb8-12e_demo.py')
    root = tmp_path / 'demo'
    for part in ('train', 'val', 'test'):
        cfg[f'{part}_dataloader'].dataset.data_root = f'{root}/'
    check_datasets(cfg, ('train', 'val', 'test'))
    assert list(tmp_path.iterdir()) == []
    make_demo_data(root, {'train': 2, 'val': 1})
    assert [file.path for file in coco_files(cfg, ('train', 'val', 'test'))] == [
        root / 'annotations/train.json', root / 'annotations/val.json'
    ]  # fmt: skip
    check_datasets(cfg, ('train', 'val', 'test'))
    cfg.model.bbox_head.num_classes = 5
    with pytest.raises(UserError, match='num_classes, 5 for 4 classes'):
        check_datasets(cfg, ('train',))


def test_wrapped_sets_are_named_by_their_place(dataset):
    broken = ConfigDict(dataset, ann_file='b.json')
    with pytest.raises(UserError, match=r'^val_dataloader\.dataset\.dataset\.datasets\.1:'):
        check(dict(type='RepeatDataset', dataset=dict(type='ConcatDataset', datasets=[dataset, broken])))


def test_errors_stop_and_what_is_left_out_is_printed(dataset, capsys):
    path = Path(dataset.data_root, 'a.json')
    data = json.loads(path.read_text())
    data['images'] = [dict(id=1, file_name='1.jpg', width=10, height=10)]
    box = dict(image_id=1, category_id=0, area=9, iscrowd=0)
    data['annotations'] = [dict(box, id=i, bbox=[1, 1, 0, 3 + i]) for i in range(3)]
    path.write_text(json.dumps(data))
    with pytest.raises(UserError, match='image 1: missing image file, .*1.jpg; training stops when it is read$'):
        check(dataset)
    cv2.imwrite(str(Path(dataset.data_root, 'images/1.jpg')), np.zeros((10, 10, 3), np.uint8))
    capsys.readouterr()
    check(dataset)
    assert capsys.readouterr().err == f'{path}: 3 x zero box size, such as annotation 0; the box is left out\n'
    data['annotations'][1].pop('image_id')
    data['annotations'][2]['bbox'][0] = float('nan')
    path.write_text(json.dumps(data))
    with pytest.raises(UserError, match=r'annotation 1: missing image_id; .* \(2 errors in all: tools/ch'):
        check(dataset)


def test_the_head_must_have_the_number_of_classes(dataset):
    model = dict(type='SingleStageDetector', bbox_head=dict(type='SSDHead', num_classes=4))
    cfg = ConfigDict(model=model, train_dataloader=dict(dataset=dataset))
    with pytest.raises(UserError, match=r'model\.bbox_head\.num_classes: num_classes, 4 for 3 classes'):
        check_datasets(cfg, ('train',))
    model['bbox_head']['num_classes'] = 3
    model['rpn_head'] = dict(type='RPNHead', num_classes=1)
    check_datasets(ConfigDict(model=model, train_dataloader=dict(dataset=dataset)), ('train',))


def test_images_are_read_on_request(dataset):
    path = Path(dataset.data_root, 'a.json')
    data = json.loads(path.read_text())
    data['images'] = [dict(id=1, file_name='1.jpg', width=10, height=10)]
    path.write_text(json.dumps(data))
    Path(dataset.data_root, 'images/1.jpg').write_bytes(b'no picture')
    cfg = ConfigDict(val_dataloader=dict(dataset=dataset))
    check_datasets(cfg, ('val',))
    with pytest.raises(UserError, match='unreadable image file'):
        check_datasets(cfg, ('val',), decode=True)
    with pytest.raises(UserError, match='unreadable image file'):
        DatasetCheckHook(decode=True).before_train(SimpleNamespace(rank=0, cfg=cfg))
