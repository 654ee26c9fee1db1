from pathlib import Path

import pytest
from mmdet.datasets import CocoDataset
from mmengine.config import ConfigDict

from mixdet.datasets.entries import Subset
from mixdet.datasets.files import coco_files
from mixdet.datasets.issues import EVALUATION, TRAINING
from mixdet.errors import UserError

NAMES = ['RBC', 'WBC', 'Platelets']


def check(dataset, part='val'):
    return list(coco_files(ConfigDict({f'{part}_dataloader': dict(dataset=dataset)}), ('train', 'val')))


def unchecked(dataset):
    lines = []
    assert not list(coco_files(ConfigDict(val_dataloader=dict(dataset=dataset)), ('val',), lines))
    return lines


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(ann_file='b.json'), r'val_dataloader\.dataset: annotation file .*b\.json does not exist'),
        (dict(ann_file=None), r'annotation file \S+ does not exist; set data_root and ann_file'),
        (dict(data_prefix=dict(img='pictures/')), r'image folder .*pictures does not exist'),
        (dict(type='KokoDataset'), "there is no dataset 'KokoDataset'"),
        (dict(type=None), 'there is no dataset None'),
        (dict(data_prefix=dict(img_path='images/')), r"data_prefix has 'img_path', which CocoDataset does not read; "
         r"write data_prefix=dict\(img='images/'\)"),
        (dict(data_prefix=dict(image='images/')), "data_prefix has 'image', which CocoDataset does not read"),
        (dict(data_prefix=dict(sub_data_root='images/')), "data_prefix has 'sub_data_root' alone; write data_p"),
        (dict(data_prefix={}), r"data_prefix is missing; write data_prefix=dict\(img=''\)"),
        (dict(data_prefix='images/'), r"data_prefix is 'images/'; write data_prefix=dict\(img="),
        (dict(data_prefix=None), r'data_prefix is None; write data_prefix=dict\(img='),
        (dict(data_prefix=dict(img=None)), r"data_prefix\.img is None; give a folder, '' for data_root itself"),
        (dict(metainfo=dict(classes='raccoon')), r"metainfo\.classes is the text 'raccoon', .* comma: \('raccoon',\)"),
        (dict(metainfo=dict(classes=None)), r'metainfo\.classes is None; it must be a tuple of names'),
        (dict(metainfo=dict(classes=())), r'metainfo\.classes is empty; give the names'),
        (dict(metainfo=dict(classes=('RBC', 4))), r"metainfo\.classes is \('RBC', 4\); it must be a tuple of names"),
        (dict(metainfo=dict(classes={'RBC': 1})), r'metainfo\.classes is .*RBC.*; it must be a tuple of names'),
        (dict(metainfo=dict(classes=('RBC', 'WBC', 'RBC'))), r"metainfo\.classes has 'RBC' more than once"),
        (dict(metainfo=dict(CLASSES=('RBC', 'WBC'))), "metainfo has 'CLASSES', which MMDetection 3 does not read"),
        (dict(metainfo=('RBC', 'WBC')), r'metainfo is .*; write metainfo=dict\(classes='),
        (dict(type='VOCDataset', metainfo=dict(classes='raccoon')), "is the text 'raccoon'"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_named(dataset, change, message):
    for key, value in change.items():  # not update(), which merges
        dataset[key] = value
    with pytest.raises(UserError, match=message) as error:
        check(dataset)
    assert '\n' not in str(error.value) and str(error.value).startswith('val_dataloader.dataset')


@pytest.mark.parametrize('value', [None, [], 'a.json'])
def test_a_loader_needs_a_data_set(value):
    with pytest.raises(UserError, match=r'^val_dataloader\.dataset is .*; give the config of a data set'):
        list(coco_files(ConfigDict(val_dataloader=dict(dataset=value, batch_size=1)), ('val',)))


def test_class_names_may_lie_in_a_file(dataset, tmp_path):
    (tmp_path / 'classes.txt').write_text('RBC\nWBC\n')
    dataset.metainfo = ConfigDict(classes=str(tmp_path / 'classes.txt'))
    (file,) = check(dataset)
    assert file.classes == ('RBC', 'WBC')
    dataset.metainfo = ConfigDict(classes='s3://bucket/classes.txt')
    assert check(dataset)[0].classes is None


def test_other_formats_are_left_alone_and_named(dataset):
    lvis = dict(dataset, type='LVISV1Dataset', metainfo=dict(classes=('aerosol_can',)))  # its categories have synonyms
    assert unchecked(lvis) == [
        'val_dataloader.dataset: the data of LVISV1Dataset are not checked: it reads its files in its own way'
    ]
    assert 'CocoPanopticDataset' in unchecked(dict(dataset, type='CocoPanopticDataset'))[0]
    assert unchecked(dict(type='VOCDataset', ann_file='gone.txt')) == [
        'val_dataloader.dataset: the data of VOCDataset are not checked, only those in COCO format are'
    ]


def test_what_a_data_set_uses_of_its_file(dataset):
    pipeline = [dict(type='LoadImageFromFile')]
    dataset.update(filter_cfg=dict(min_size=5, filter_empty_gt=True), indices=3, pipeline=pipeline)
    (file,) = check(dict(type='RepeatDataset', dataset=dataset), 'train')
    assert (file.role, file.subset, file.pipeline) == (TRAINING, Subset(5, True, 3), tuple(pipeline))
    (file,) = check(dict(dataset, test_mode=True))  # filters nothing
    assert (file.role, file.subset) == (EVALUATION, Subset(0, False, 3))


def test_a_file_is_checked_once_for_each_role(dataset):
    cfg = ConfigDict({f'{part}_dataloader': dict(dataset=dataset) for part in ('train', 'val', 'test')})
    cfg.val_dataloader.dataset = dict(type='ConcatDataset', datasets=[dataset, dataset])
    assert [(file.key, file.role) for file in coco_files(cfg, ('train', 'val', 'test'))] == [
        ('train_dataloader.dataset', TRAINING), ('val_dataloader.dataset.datasets.0', EVALUATION)
    ]  # fmt: skip


def test_a_type_may_be_a_class_and_need_not_name_classes(dataset):
    class Nameless(CocoDataset):
        METAINFO = {}

    (file,) = check(dict(dataset, type=CocoDataset, metainfo=None))
    assert file.classes == CocoDataset.METAINFO['classes']
    (file,) = check(dict(dataset, type=Nameless, metainfo=None))
    assert file.classes is None


def test_paths_without_a_data_root_are_relative_to_the_current_folder(dataset, monkeypatch):
    monkeypatch.chdir(dataset.data_root)
    (file,) = check(dict(dataset, data_root=None))
    assert file[:5] == ('val_dataloader.dataset', Path('a.json'), Path('images'), tuple(NAMES), EVALUATION)


def test_only_image_folders_must_exist(dataset):
    check(dict(dataset, data_prefix=dict(img='images/', seg='maps/')))
    (file,) = check(dict(dataset, data_prefix=dict(img='')))
    assert file.images == Path(dataset.data_root)


@pytest.mark.parametrize(
    'remote',
    [dict(data_root='s3://bucket/'), dict(ann_file='s3://bucket/a.json'), dict(data_prefix=dict(img='http://host/'))],
)
def test_remote_storage_is_left_to_mmengine(dataset, remote):
    assert unchecked(dict(dataset, **{'data_root': '', 'ann_file': 'gone.json', **remote})) == [
        'val_dataloader.dataset: data in remote storage are not checked'
    ]
