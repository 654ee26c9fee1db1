import json

import pytest
from helpers import ROOT, run_tool, shared_path

from mixdet.datasets import make_demo_data

pytestmark = pytest.mark.slow


def test_a_file_is_examined_and_mended(tmp_path):
    data = make_demo_data(tmp_path / 'demo', {'train': 3, 'val': 2})
    content = json.loads((data / 'annotations/train.json').read_text())
    boxes = len(content['annotations'])
    content['annotations'][0]['bbox'][2] = 0
    content['annotations'][1].pop('area')
    content['images'][2]['width'] += 1
    (tmp_path / 'bad.json').write_text(json.dumps(content))
    images = data / 'images/train'
    done = run_tool('check_dataset.py', 'bad.json', '--images', images, '--decode', '--fix', 'good.json', cwd=tmp_path)
    assert done.returncode == 1 and not done.stderr, done.stderr
    for line in (
        'warning: bad.json: annotation 1: zero box size',
        'error: bad.json: annotation 2: missing area; MMDetection fails with a KeyError',
        'is 320x240, but the file says 321x240; its boxes are trained in the wrong place',
        f'bad.json: {boxes - 2} of {boxes} boxes are trained, 2 are left out',
    ):
        assert line in done.stdout
    again = run_tool('check_dataset.py', 'good.json', cwd=tmp_path)
    assert again.returncode == 0 and '0 are left out' in again.stdout
    kept = (tmp_path / 'good.json').read_text()
    refused = run_tool('check_dataset.py', 'bad.json', '--fix', 'good.json', cwd=tmp_path)
    assert refused.returncode == 2 and 'good.json exists already; nothing is overwritten' in refused.stderr
    assert (tmp_path / 'good.json').read_text() == kept


def test_a_config_is_examined(tmp_path):
    done = run_tool('check_dataset.py', write_config(tmp_path), cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count('0 are left out') == 2


def test_an_undrawn_demo_set_is_no_issue_and_is_not_drawn(tmp_path):
    done = run_tool('check_dataset.py', ROOT / 'configs/demo/ssdlite_mixnet-s_1xb8-12e_demo.py', cwd=tmp_path)
    assert done.returncode == 0 and 'nothing to check' in done.stdout and not done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ('name', 'status', 'said', 'boxes'),
    [
        ('crowd_only', 1, '0 of 71 boxes are trained, 71 are crowds, which are ignored, 0 are left out', 71),
        ('root_named_like_child', 1, "error: {path}: category 1: duplicate category name, 'RBC'", 188),
        ('bom', 1, 'error: {path}: file: text encoding, UTF-8 with a byte-order mark', 218),
        ('no_annotations', 0, 'warning: {path}: file: no annotations', 0),
        ('five_images', 0, '89 of 89 boxes are trained, 0 are left out', 89),
    ],
)
def test_files_of_others(tmp_path, name, status, said, boxes):
    path = shared_path('cases', f'{name}.json')
    done = run_tool('check_dataset.py', path, '--fix', 'good.json', cwd=tmp_path)
    assert done.returncode == status and said.format(path=path) in done.stdout, done.stdout + done.stderr
    again = run_tool('check_dataset.py', 'good.json', cwd=tmp_path)
    assert again.returncode == 0 and f'{boxes} of {boxes} boxes are trained, 0 are left out' in again.stdout


def test_a_copy_without_boxes_is_not_written(tmp_path):
    data = make_demo_data(tmp_path / 'demo', {'train': 1})
    content = json.loads((data / 'annotations/train.json').read_text())
    for category in content['categories']:
        category['id'] += 100  # nothing refers to them
    (tmp_path / 'bad.json').write_text(json.dumps(content))
    done = run_tool('check_dataset.py', 'bad.json', '--fix', 'good.json', cwd=tmp_path)
    assert done.returncode == 2 and 'no box of bad.json can be kept, good.json is not written' in done.stderr
    assert not (tmp_path / 'good.json').exists() and 'unknown category_id' in done.stdout


def test_crowds_are_made_objects_and_categories_ordered_on_request(tmp_path):
    data = make_demo_data(tmp_path / 'demo', {'train': 2})
    content = json.loads((data / 'annotations/train.json').read_text())
    content['annotations'][0]['iscrowd'] = 1
    (tmp_path / 'some.json').write_text(json.dumps(content))
    names = [category['name'] for category in content['categories']][::-1]
    options = ('--crowds-to-objects', '--classes', *names)
    done = run_tool('check_dataset.py', 'some.json', *options, cwd=tmp_path)
    assert done.returncode == 2 and 'give its name with --fix OUT.json' in done.stderr
    done = run_tool('check_dataset.py', 'some.json', '--fix', 'no.json', '--classes', 'disk', cwd=tmp_path)
    assert done.returncode == 2 and "some.json has no category 'disk'" in done.stderr
    done = run_tool('check_dataset.py', 'some.json', '--fix', 'new/a.json', *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    fixed = json.loads((tmp_path / 'new/a.json').read_text())
    assert [category['name'] for category in fixed['categories']] == names
    assert not any(box['iscrowd'] for box in fixed['annotations'])


VOC = """
_base_ = '{root}/configs/demo/ssdlite_mixnet-s_1xb8-12e_demo.py'
data = dict(_delete_=True, type='VOCDataset', data_root='voc/', ann_file='list.txt', pipeline=[])
train_dataloader = dict(dataset=data)
val_dataloader = dict(dataset=data)
val_evaluator = dict(_delete_=True, type='VOCMetric', metric='mAP')
"""


def test_a_config_of_another_format_is_not_checked_in_silence(tmp_path):
    (tmp_path / 'voc.py').write_text(VOC.format(root=ROOT))
    for tool in ('check_dataset.py', 'train.py'):
        done = run_tool(tool, 'voc.py', cwd=tmp_path)
        assert done.returncode == 2 and done.stderr.count('\n') == 1
        assert "checkpoint.save_best='coco/bbox_mAP' is not a metric of val_evaluator" in done.stderr
        assert "set it to 'pascal_voc/mAP', 'auto'" in done.stderr
    with (tmp_path / 'voc.py').open('a') as file:
        file.write("default_hooks = dict(checkpoint=dict(save_best='pascal_voc/mAP'))\n")
    done = run_tool('check_dataset.py', 'voc.py', cwd=tmp_path)
    assert 'train_dataloader.dataset: the data of VOCDataset are not checked, only those in COCO' in done.stdout


def test_training_without_a_validation_set(tmp_path):
    make_demo_data(tmp_path / 'data/mixdet_demo', {'train': 9, 'val': 1})
    config = ROOT / 'configs/demo/ssdlite_mixnet-s_1xb8-12e_demo.py'
    options = ['train_cfg.max_epochs=1', 'train_dataloader.batch_size=3', 'train_dataloader.num_workers=0',
               'train_dataloader.persistent_workers=False']  # fmt: skip
    half = run_tool('train.py', config, '--cfg-options', *options, 'val_dataloader=None', cwd=tmp_path)
    assert half.returncode == 2 and '--no-validate' in half.stderr and half.stderr.count('\n') == 1
    done = run_tool('train.py', config, '--no-validate', '--cfg-options', *options, cwd=tmp_path)
    assert done.returncode == 0 and 'epoch 1/1' in done.stdout and 'evaluation' not in done.stdout, done.stderr


def write_config(folder):
    data = shared_path('data', 'bccd')
    template = (ROOT / 'configs/custom/ssdlite_mixnet-s_custom.py').read_text()
    template = template.replace("'../_base_", f"'{ROOT}/configs/_base_").replace("'data/my_data/'", f"'{data}/'")
    template = template.replace("('first class', 'second class')", "('RBC', 'WBC', 'Platelets')")
    for part in ('train', 'val'):
        template = template.replace(f'annotations/{part}.json', f'annotations/instances_{part}.json')
    (folder / 'cells.py').write_text(template)
    return 'cells.py'
