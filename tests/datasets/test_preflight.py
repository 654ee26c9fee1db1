import json

import pytest
from mmengine.config import ConfigDict

from mixdet.datasets.preflight import check_datasets, read_categories
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
        (dict(metainfo=dict(classes=('WBC', 'RBC'))), r"in the order of .*\('RBC', 'WBC'\)"),
        (dict(metainfo=dict()), "class 'person' is not in"),
        (dict(type='KokoDataset'), "there is no dataset 'KokoDataset'"),
    ],
)
def test_faults_are_named(dataset, change, message):
    dataset.update(change)
    if 'metainfo' in change:
        dataset['metainfo'] = ConfigDict(change['metainfo'])
    with pytest.raises(UserError, match=message) as error:
        check(dataset)
    assert '\n' not in str(error.value)


def test_sets_that_read_their_categories_otherwise_are_left_alone(dataset):
    check(dict(dataset, type='LVISV1Dataset', metainfo=dict(classes=('aerosol_can',))))


def test_wrapped_sets_are_named_by_their_place(dataset):
    broken = ConfigDict(dataset, ann_file='b.json')
    with pytest.raises(UserError, match=r'^val_dataloader\.dataset\.dataset\.datasets\.1:'):
        check(dict(type='RepeatDataset', dataset=dict(type='ConcatDataset', datasets=[dataset, broken])))


def test_categories_are_found_whatever_comes_before(tmp_path):
    path = tmp_path / 'a.json'
    path.write_text(
        json.dumps(dict(info='"categories": [1]', images=[dict(categories=[3])], categories=[dict(name='x')]))
    )
    assert read_categories(path) == ['x']
    for text, message in (
        ('[]', 'is it a COCO file'),
        ('{"categories": {}}', 'is it a COCO file'),
        ('{"categories": [{"id": 1}]}', 'is it a COCO file'),
        ('{"categories": [', 'not valid JSON or is cut off'),
    ):
        path.write_text(text)
        with pytest.raises(UserError, match=message):
            read_categories(path)
