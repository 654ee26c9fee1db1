import json
import os
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from coco_examples import CLASSES, boxes_of_evaluation, boxes_of_training, files
from helpers import ROOT
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mmengine.config import Config, ConfigDict
from mmengine.model import BaseModel
from mmengine.runner import Runner
from mmengine.runner.priority import get_priority
from PIL import Image

from mixdet.datasets import make_demo_data
from mixdet.datasets.annotations import Repair
from mixdet.datasets.files import CocoFile, coco_files
from mixdet.datasets.issues import ANY, ERROR, EVALUATION, TRAINING
from mixdet.datasets.preflight import DatasetCheckHook, check_datasets, examine
from mixdet.errors import UserError

NAMES = ['RBC', 'WBC', 'Platelets']


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
        (dict(metainfo=dict(classes=('RBC', 'WBC', 'Platelet'))), "class 'Platelet' .* did you mean 'Platelets'"),
        (dict(metainfo=dict(classes=('cat',))), "class 'cat' is not in .* it has RBC, WBC, Platelets"),
        (dict(metainfo=dict(classes=('WBC', 'RBC'))), r"their order in .*\('RBC', 'WBC'\); use that order, or write a"),
        (dict(metainfo=dict(classes=('WBC', 'RBC', 'Platelets'))), r"their order in .*\('RBC', 'WBC', 'Platelets'\)"),
        (dict(metainfo=dict()), "class 'person' is not in"),
    ],
)
def test_issues_are_named(dataset, change, message):
    dataset.update(change)
    if 'metainfo' in change:
        dataset['metainfo'] = ConfigDict(change['metainfo'])
    with pytest.raises(UserError, match=message) as error:
        check(dataset)
    assert '\n' not in str(error.value)


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
    with pytest.raises(
        UserError, match='image 1: missing image file, .*1.jpg, but .*1.png exists; the run stops.*read$'
    ):
        check(dataset)
    cv2.imwrite(str(Path(dataset.data_root, 'images/1.jpg')), np.zeros((10, 10, 3), np.uint8))
    capsys.readouterr()
    check(dataset)
    effect = 'it is evaluated, and no detection can match it'
    assert capsys.readouterr().err == f'{path}: 3 x zero box size, such as annotation 0; {effect}\n'
    monkeypatch.setenv('RANK', '1')  # of several processes only the first prints
    check(dataset)
    assert capsys.readouterr().err == ''
    monkeypatch.setenv('RANK', '0')
    data['annotations'][1]['bbox'] = [1, 1, 2, 3]
    data['annotations'][2]['bbox'] = [1, 1, 2, 4]
    path.write_text(json.dumps(data))
    check(dataset)
    assert capsys.readouterr().err == f'{path}: 1 x zero box size: annotation 0; {effect}\n'
    data['annotations'][1].pop('image_id')
    data['annotations'][2]['bbox'][0] = float('nan')
    path.write_text(json.dumps(data))
    with pytest.raises(UserError, match=r'annotation 1: missing image_id; .* \(2 errors in all: tools/ch'):
        check(dataset)


def test_the_head_must_have_the_number_of_classes(dataset):
    path = Path(dataset.data_root, 'a.json')
    data = json.loads(path.read_text())
    data['annotations'] = [dict(id=1, image_id=1, category_id=1, bbox=[1, 1, 3, 3], area=9)]
    path.write_text(json.dumps(data))
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
    return CocoFile('val_dataloader.dataset', path, path.parent / 'images', ('RBC', 'WBC'), EVALUATION)


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


def write_boxes(dataset, boxes, name='a.json', **changes):
    """Give the data set's file the boxes (category, crowd) on its only image."""
    path = Path(dataset.data_root, 'a.json')
    data = json.loads(path.read_text())
    data['annotations'] = [
        dict(id=i + 1, image_id=1, category_id=category, bbox=[1, 1, 3 + i, 3], area=9, iscrowd=crowd)
        for i, (category, crowd) in enumerate(boxes)
    ]
    Path(dataset.data_root, name).write_text(json.dumps({**data, **changes}))


def check_training(*datasets, **cfg):
    dataset = dict(type='ConcatDataset', datasets=list(datasets)) if len(datasets) > 1 else datasets[0]
    check_datasets(ConfigDict(train_dataloader=dict(dataset=dataset), **cfg), ('train', 'val'))


def test_a_training_on_crowds_alone_is_stopped_and_an_evaluation_warned_of(dataset, capsys):
    write_boxes(dataset, [(0, 1), (1, 1)])
    with pytest.raises(
        UserError, match='file: only crowds, all 2 boxes .* learn nothing; .* --fix OUT.json writes a rep'
    ):
        check_training(dataset)
    check(dataset)
    assert 'only crowds: file; crowds are regions to ignore, every number will be -' in capsys.readouterr().err
    write_boxes(dataset, [(0, 0), (0, 1), (1, 1)])
    check_training(dataset)
    printed = capsys.readouterr().err
    assert '2 x mostly crowds, such as file; crowds are regions to ignore, not trained; if they are objects' in printed


def test_a_training_without_boxes_is_stopped(dataset, capsys):
    with pytest.raises(UserError, match=r'^train_dataloader.dataset: \S+a.json has no box, nothing would be trained'):
        check_training(dataset)
    write_boxes(dataset, [(0, 0)])
    write_boxes(dataset, [], 'background.json')
    check_training(dataset, dict(dataset, ann_file='background.json'))  # pictures without objects among others
    assert 'background.json: 1 x no annotations: file; its images are trained as background' in capsys.readouterr().err
    check_training(dict(dataset, ann_file='background.json'), dict(type='VOCDataset'))  # which may have boxes
    write_boxes(dataset, [(7, 0)])
    with pytest.raises(
        UserError, match='file: no usable box, 1 boxes: 1 x unknown category_id; a training on it would'
    ):
        check_training(dataset)
    write_boxes(dataset, [(0, 0)], images=[])
    with pytest.raises(UserError, match='file: no images; the data set is empty'):
        check(dataset)


def test_a_file_without_annotations_can_be_predicted_on(dataset, capsys):
    path = Path(dataset.data_root, 'a.json')
    data = json.loads(path.read_text())
    del data['annotations']
    path.write_text(json.dumps(data))
    check_datasets(ConfigDict(test_dataloader=dict(dataset=dataset)), ('test',))
    assert capsys.readouterr().err == (
        f'{path}: 1 x no annotations: file; nothing can be evaluated; its images can be predicted on\n'
    )


def test_text_ids_stop_before_an_evaluation_with_the_cure(dataset, capsys):
    write_boxes(dataset, [(0, 0)], images=[dict(id='1', file_name='1.png', width=10, height=10)])
    with pytest.raises(
        UserError, match="image '1': image id not an integer; the evaluation fails; tools/check_dataset"
    ):
        check(dataset)


def test_another_encoding_stops_with_the_cure(dataset):
    path = Path(dataset.data_root, 'a.json')
    path.write_text(path.read_text(), encoding='utf-8-sig')
    with pytest.raises(UserError, match=r'text encoding, UTF-8 with a .*; tools/check_dataset.py \S+ --fix OUT.json'):
        check(dataset)


def test_the_order_of_classes_in_a_joined_file_has_a_cure(dataset):
    write_boxes(dataset, [(0, 0)])
    data = json.loads(Path(dataset.data_root, 'a.json').read_text())
    data['categories'].reverse()
    Path(dataset.data_root, 'b.json').write_text(json.dumps(data))
    with pytest.raises(UserError) as error:
        check_training(dataset, dict(dataset, ann_file='b.json'))
    assert str(error.value).startswith('train_dataloader.dataset.datasets.1: ')
    assert 'use that order' not in str(error.value)  # the first file has another
    assert f'tools/check_dataset.py {dataset.data_root}/b.json --fix OUT.json --classes RBC WBC Platelets' in str(
        error.value
    )
    _, fixed = examine(
        CocoFile('b', Path(dataset.data_root, 'b.json'), None, None), ConfigDict(), False, repair=Repair(order=NAMES)
    )
    Path(dataset.data_root, 'b.json').write_text(json.dumps(fixed))
    check_training(dataset, dict(dataset, ann_file='b.json'))


def test_what_is_not_checked_is_printed(dataset, capsys):
    check(dict(type='VOCDataset', ann_file='gone.txt'))
    assert capsys.readouterr().err == (
        'val_dataloader.dataset: the data of VOCDataset are not checked, only those in COCO format are\n'
    )


def test_images_are_read_as_the_pipeline_reads_them(dataset):
    write_boxes(dataset, [(0, 0)], images=[dict(id=1, file_name='1.tga', width=10, height=10)])
    Image.fromarray(np.zeros((10, 10), np.uint8)).save(Path(dataset.data_root, 'images/1.tga'))

    def decode(mean=(), **loading):
        pipeline = [dict(type='LoadImageFromFile', **loading)]
        cfg = ConfigDict(val_dataloader=dict(dataset=dict(dataset, pipeline=pipeline)))
        cfg.model = dict(data_preprocessor=dict(mean=list(mean)))
        check_datasets(cfg, ('val',), decode=True)

    with pytest.raises(UserError, match='unreadable image file.* --images .* --fix OUT.json writes a repaired copy'):
        decode()
    decode(imdecode_backend='pillow')
    decode(imdecode_backend='pillow', color_type='grayscale')
    decode(imdecode_backend='pillow', color_type='grayscale', mean=[0])
    with pytest.raises(UserError, match='image file of other channels, .*1 instead of 3'):
        decode(imdecode_backend='pillow', color_type='grayscale', mean=[0, 0, 0])


@pytest.mark.slow
def test_a_training_trains_the_boxes_that_the_check_counts(dataset, tmp_path):
    """An epoch with MMEngine's Runner: pipeline, loader and sampler of a training, and a stub for the model."""
    seen = []

    class Stub(BaseModel):
        def __init__(self):
            super().__init__(dict(type='mmdet.DetDataPreprocessor'))
            self.weight = torch.nn.Parameter(torch.zeros(1))

        def forward(self, inputs, data_samples, mode):
            seen.extend((len(sample.gt_instances), len(sample.ignored_instances)) for sample in data_samples)
            return dict(loss=self.weight.sum())

    write_boxes(dataset, [(0, 0), (0, 1), (1, '1'), (2, 0), (7, 0), (2, None)])
    pipeline = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True)]
    dataset.pipeline = [*pipeline, dict(type='PackDetInputs', meta_keys=())]
    (file,) = coco_files(ConfigDict(train_dataloader=dict(dataset=dataset)), ('train',))
    log, _ = examine(file, ConfigDict(), decode=True)
    runner = Runner(
        Stub(), str(tmp_path), dict(batch_size=1, dataset=dataset, sampler=dict(type='DefaultSampler', shuffle=True)),
        train_cfg=dict(by_epoch=True, max_epochs=1), optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        experiment_name='boxes', log_level='WARNING', default_scope='mmdet', default_hooks=dict(checkpoint=None),
    )  # fmt: skip
    runner.train()
    assert seen == [(log.trained, log.crowds)] == [(3, 2)]


def errors_of(path, role, **dataset):
    """What the check of a data set finds, where images are not looked for: errors, log and repaired copy."""
    part = 'train' if role == TRAINING else 'val'
    dataset = dict(type='CocoDataset', ann_file=str(path), data_prefix=dict(img=''), **dataset)
    cfg = ConfigDict({f'{part}_dataloader': dict(dataset=dataset)})
    (file,) = coco_files(cfg, (part,)) if role != ANY else [CocoFile('file', path, None, None)]
    log, fixed = examine(file._replace(images=None), cfg, decode=False, segmentations=True)
    return [issue.kind for issue in log.of(ERROR)], log, fixed


@settings(
    max_examples=int(os.environ.get('MIXDET_MUTATED_FILES', 300)), deadline=None, derandomize=True, database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip
@given(
    file=files(),
    classes=st.sampled_from([CLASSES, CLASSES, CLASSES, ('dog',)]),
    filter_cfg=st.sampled_from([None, None, dict(filter_empty_gt=True, min_size=1), dict(min_size=61)]),
    indices=st.sampled_from([None, None, None, 1, -1, [1, 0, 1]]),
)
def test_check_and_training_agree(tmp_path, file, classes, filter_cfg, indices):
    """Either the check stops, or an epoch and an evaluation have as many boxes as it says; a repaired copy has both."""
    path = Path(tmp_path, 'a.json')
    content, keeps_all = file
    path.write_bytes(content)
    options = dict(metainfo=dict(classes=classes), filter_cfg=filter_cfg, indices=indices)
    try:
        errors, log, _ = errors_of(path, TRAINING, **options)
    except UserError as error:
        assert '\n' not in str(error) and not keeps_all
        return
    for issue in log.issues:
        assert '\n' not in str(issue)
    if not errors:
        counted = boxes_of_training(path, classes, filter_cfg=filter_cfg, indices=indices)
        assert counted == (log.trained, log.crowds) and (log.trained or not log.boxes)
    errors, log, _ = errors_of(path, EVALUATION, metainfo=options['metainfo'])
    if not errors:
        assert boxes_of_evaluation(path, classes) == (log.evaluated, log.crowds)

    _, log, fixed = errors_of(path, ANY)
    if not fixed['images'] or not fixed['annotations']:  # tools/check_dataset.py does not write it
        assert not keeps_all
        return
    path.write_text(json.dumps(fixed))
    names = [category['name'] for category in fixed['categories']]
    for role, count in ((TRAINING, boxes_of_training), (EVALUATION, boxes_of_evaluation)):
        errors, log, _ = errors_of(path, role, metainfo=dict(classes=names))
        assert set(errors) <= {'no usable box'} and count(path, names) == (log.used, log.crowds)
        assert log.used + log.crowds == 3 or not keeps_all
        assert log.used or not keeps_all
