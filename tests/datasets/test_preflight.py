import json
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from helpers import ROOT
from mmdet.datasets import CocoDataset
from mmengine.config import Config, ConfigDict
from mmengine.runner.priority import get_priority

from mixdet.datasets import make_demo_data
from mixdet.datasets.preflight import CocoFile, DatasetCheckHook, check_datasets, coco_files, examine
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
        (dict(metainfo=dict(classes=('WBC', 'RBC', 'Platelets'))), r"their order in .*\('RBC', 'WBC', 'Platelets'\)"),
        (dict(ann_file=None), r'annotation file \S+ does not exist; set data_root and ann_file'),
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


def test_other_formats_are_left_alone(dataset):
    check(dict(dataset, type='LVISV1Dataset', metainfo=dict(classes=('aerosol_can',))))  # its categories have synonyms
    check(dict(type='VOCDataset', ann_file='gone.txt'))


def test_a_type_may_be_a_class_and_need_not_name_classes(dataset):
    class Nameless(CocoDataset):
        METAINFO = {}

    with pytest.raises(UserError, match="class 'person' is not in"):
        check(dict(dataset, type=CocoDataset, metainfo=None))
    check(dict(dataset, type=Nameless, metainfo=None))


def test_paths_without_a_data_root_are_relative_to_the_current_folder(dataset, monkeypatch):
    monkeypatch.chdir(dataset.data_root)
    (file,) = coco_files(ConfigDict(val_dataloader=dict(dataset=dict(dataset, data_root=None))), ('val',))
    assert file == ('val_dataloader.dataset', Path('a.json'), Path('images'), tuple(NAMES), False)


def test_only_image_folders_must_exist(dataset):
    check(dict(dataset, data_prefix=dict(img='images/', seg='maps/')))
    (file,) = coco_files(ConfigDict(val_dataloader=dict(dataset=dict(dataset, data_prefix=None))), ('val',))
    assert file.images == Path(dataset.data_root)


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
    with pytest.raises(UserError, match='wrong number of classes, 5 instead of 4'):
        check_datasets(cfg, ('train',))


def test_wrapped_sets_are_named_by_their_place(dataset):
    broken = ConfigDict(dataset, ann_file='b.json')
    with pytest.raises(UserError, match=r'^val_dataloader\.dataset\.dataset\.datasets\.1:'):
        check(dict(type='RepeatDataset', dataset=dict(type='ConcatDataset', datasets=[dataset, broken])))


def test_errors_stop_and_what_is_left_out_is_printed(dataset, capsys, monkeypatch):
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
    monkeypatch.setenv('RANK', '1')  # of several processes only the first prints
    check(dataset)
    assert capsys.readouterr().err == ''
    monkeypatch.setenv('RANK', '0')
    data['annotations'][1]['bbox'] = [1, 1, 2, 3]
    data['annotations'][2]['bbox'] = [1, 1, 2, 4]
    path.write_text(json.dumps(data))
    check(dataset)
    assert capsys.readouterr().err == f'{path}: 1 x zero box size: annotation 0; the box is left out\n'
    data['annotations'][1].pop('image_id')
    data['annotations'][2]['bbox'][0] = float('nan')
    path.write_text(json.dumps(data))
    with pytest.raises(UserError, match=r'annotation 1: missing image_id; .* \(2 errors in all: tools/ch'):
        check(dataset)


def test_the_head_must_have_the_number_of_classes(dataset):
    model = dict(type='SingleStageDetector', bbox_head=dict(type='SSDHead', num_classes=4))
    cfg = ConfigDict(model=model, train_dataloader=dict(dataset=dataset))
    with pytest.raises(UserError, match=r'model\.bbox_head\.num_classes: wrong number of classes, 4 instead of 3'):
        check_datasets(cfg, ('train',))
    check_datasets(ConfigDict(model=model, val_dataloader=dict(dataset=dataset)), ('val',))  # nothing is trained on it
    model['bbox_head']['num_classes'] = 3
    model['rpn_head'] = dict(type='RPNHead', num_classes=1)
    check_datasets(ConfigDict(model=model, train_dataloader=dict(dataset=dataset)), ('train',))
    stages = [dict(num_classes=3), dict(num_classes=80)]
    cfg = ConfigDict(model=dict(roi_head=dict(bbox_head=stages)), train_dataloader=dict(dataset=dataset))
    with pytest.raises(
        UserError, match=r'model\.roi_head\.bbox_head\.num_classes: wrong number of classes, 80 instead of 3'
    ):
        check_datasets(cfg, ('train',))


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
    runner = SimpleNamespace(rank=0, cfg=cfg)
    DatasetCheckHook().before_train(runner)
    with pytest.raises(UserError, match='unreadable image file'):
        DatasetCheckHook(decode=True).before_train(runner)
    DatasetCheckHook(decode=True).before_train(SimpleNamespace(rank=1, cfg=cfg))
    assert get_priority(DatasetCheckHook().priority) == 0


@pytest.fixture
def file(dataset):
    """Two images, one of which is missing, each with a box of another class."""
    path = Path(dataset.data_root, 'a.json')
    data = json.loads(path.read_text())
    data['images'] = [dict(id=i, file_name=f'{i}.png', width=10, height=10) for i in (1, 2)]
    box = dict(bbox=[1, 1, 3, 3], area=9, iscrowd=0, segmentation=[[1, 1, 4, 1, 4, 4]])
    data['annotations'] = [dict(box, id=i, image_id=i, category_id=i) for i in (1, 2)]
    path.write_text(json.dumps(data))
    cv2.imwrite(str(Path(dataset.data_root, 'images/1.png')), np.zeros((10, 10, 3), np.uint8))
    return CocoFile('val_dataloader.dataset', path, path.parent / 'images', ('RBC', 'WBC'), False)


def test_the_repaired_copy_has_only_images_that_can_be_read(file):
    log, fixed = examine(file, ConfigDict(), decode=False)
    assert [image['id'] for image in fixed['images']] == [entry['id'] for entry in fixed['annotations']] == [1]
    assert fixed['annotations'][0]['segmentation'] == []
    assert log.counts() == {
        'class not in the config': 1, 'class not trained': 1, 'category without boxes': 1, 'missing image file': 1
    }  # fmt: skip
    assert str(log.issues[0]) == (
        "val_dataloader.dataset.metainfo.classes: class not in the config, 'Platelets'; its boxes are left out"
    )
    _, fixed = examine(file, ConfigDict(), decode=False, segmentations=True)
    assert fixed['annotations'][0]['segmentation'] == [[1, 1, 4, 1, 4, 4]]


def test_without_images_and_classes_only_the_annotations_are_checked(file):
    log, fixed = examine(file._replace(images=None, classes=None), ConfigDict(), decode=True)
    assert log.counts() == {'category without boxes': 1} and len(fixed['images']) == 2 and log.trained == 2
