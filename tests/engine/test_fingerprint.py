import json
import shutil

import pytest
from mmdet.datasets import CocoDataset
from mmengine.dataset import BaseDataset, ConcatDataset, RepeatDataset

from mixdet.datasets import make_demo_data
from mixdet.engine.fingerprint import fingerprint
from mixdet.engine.seeded_data import SeededDataset

CLASSES = ('disc', 'square', 'triangle', 'star')


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    return make_demo_data(tmp_path_factory.mktemp('data') / 'demo', {'train': 6, 'val': 4})


def coco(root, part='train', **options):
    options = {'ann_file': f'annotations/{part}.json', 'data_prefix': dict(img='images/'), **options}
    root = f'{root}/' if root else ''
    return CocoDataset(data_root=root, metainfo=dict(classes=CLASSES), pipeline=[], **options)


@pytest.fixture
def changed(data, tmp_path):
    """A copy of the data whose annotations are changed by a function."""

    def make(change):
        root = tmp_path / 'changed'
        shutil.copytree(data, root)
        path = root / 'annotations/train.json'
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content, indent=1))
        return root

    return make


def test_it_is_that_of_the_content(data, changed):
    """In another folder, in another layout of the file, within wrappers, and with or without serialization."""
    expected = fingerprint(coco(data))
    assert len(expected) == 16 and expected == fingerprint(coco(data))
    moved = changed(lambda content: None)
    assert fingerprint(coco(moved)) == expected
    assert fingerprint(coco('', ann_file=f'{moved}/annotations/train.json',
                            data_prefix=dict(img=f'{moved}/images'))) == expected  # fmt: skip
    assert fingerprint(SeededDataset(coco(data, serialize_data=False))) == expected
    assert fingerprint(RepeatDataset(coco(data), times=3)) == expected


def swap_images(content):
    first, second = content['images'][:2]
    first['file_name'], second['file_name'] = second['file_name'], first['file_name']


@pytest.mark.parametrize(
    'change',
    [
        lambda content: [image.update(file_name=f'new_{image["file_name"]}') for image in content['images']],
        lambda content: content['annotations'][-1]['bbox'].__setitem__(2, content['annotations'][-1]['bbox'][2] - 0.5),
        lambda content: content['annotations'][3].update(category_id=content['annotations'][3]['category_id'] % 3 + 1),
        lambda content: content['annotations'][3].update(iscrowd=1),
        lambda content: content['annotations'].pop(),
        lambda content: content['images'].reverse(),
        swap_images,
    ],
)
def test_any_change_changes_it(data, changed, change):
    assert fingerprint(coco(changed(change))) != fingerprint(coco(data))


def test_other_data_have_another(data):
    train, val = coco(data), coco(data, 'val')
    prints = [fingerprint(each) for each in (train, val, ConcatDataset([train, val]), ConcatDataset([val, train]))]
    assert len(set(prints)) == 4


def test_data_of_another_kind_have_none():
    assert fingerprint([1, 2, 3]) is None
    assert fingerprint(object()) is None


def test_a_path_in_none_of_the_folders_counts_by_its_name():
    def of(path):
        class One(BaseDataset):
            def load_data_list(self):
                return [dict(img_path=path, seg_map_path=None, instances=[])]

        return fingerprint(One(lazy_init=False))

    assert of('/a/1.jpg') == of('/b/1.jpg') != of('/a/2.jpg')
