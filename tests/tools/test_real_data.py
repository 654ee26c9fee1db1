"""The tools on real images: COCO through a shipped config, blood cells through the template for one's own data."""

import contextlib
import io
import json
import re

import pytest
from helpers import ROOT, run_tool, shared_path
from pycocotools import coco as pycoco

from mixdet.evaluation.coco import evaluate_coco
from mixdet.evaluation.numbers import STATS
from mixdet.evaluation.results import read_results

pytestmark = pytest.mark.slow

COCO = """
_base_ = '{root}/configs/ssdlite_mixnet/ssdlite_mixnet-s_8xb24-600e_coco.py'
data_root = '{data}/'
train_dataloader = dict(batch_size=4, num_workers=0, persistent_workers=False,
                        dataset=dict(times=1, dataset=dict(data_root=data_root, indices=8)))
val_dataloader = dict(batch_size=4, num_workers=0, persistent_workers=False,
                      dataset=dict(data_root=data_root, indices={images}))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + 'annotations/instances_val2017.json')
test_evaluator = val_evaluator
train_cfg = dict(max_epochs=2, val_interval=2)
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(interval=1))
"""
IMAGES = 16  # evaluated and drawn, of each set; test_both_evaluators_agree_... evaluates a whole one


def evaluate(config, checkpoint, work):
    options = ('--cfg-options', f'test_dataloader.dataset.indices={IMAGES}')
    done = run_tool('test.py', config, checkpoint, '--show-dir', 'pictures', *options, cwd=work)
    assert done.returncode == 0, done.stderr
    assert 'COCO box evaluation' in done.stdout
    assert len(list((work / 'work_dirs').glob('*/*/pictures/*.jpg'))) == IMAGES
    return done.stdout


def test_coco_images(tmp_path):
    data = shared_path('data', 'coco-mini')
    (tmp_path / 'coco.py').write_text(COCO.format(root=ROOT, data=data, images=IMAGES))
    done = run_tool('train.py', 'coco.py', '--cfg-options', 'train_cfg.max_epochs=1', cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert 'epoch 1/1  iter 2/2' in done.stdout
    done = run_tool('train.py', 'coco.py', '--resume', cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert 'epoch 2/2  iter 2/2' in done.stdout and 'epoch 1/2' not in done.stdout
    output = evaluate('coco.py', 'work_dirs/coco/epoch_2.pth', tmp_path)
    assert 'toothbrush' in output and 'person' in output


def test_own_data_template(tmp_path):
    data = shared_path('data', 'bccd')
    template = (ROOT / 'configs/custom/ssdlite_mixnet-s_custom.py').read_text()
    block = re.compile(r'(?<=change this\n).*?(?=\n# -{20})', re.DOTALL)
    mine = block.sub(
        f"""data_root = '{data}/'
classes = ('RBC', 'WBC', 'Platelets')
train_ann, train_images = 'annotations/instances_train.json', 'images/'
val_ann, val_images = 'annotations/instances_test.json', 'images/'
max_epochs = 1
batch_size = 4""",
        template.replace("'../_base_", f"'{ROOT}/configs/_base_"),
    )
    assert mine.count(str(data)) == 1
    (tmp_path / 'cells.py').write_text(mine)
    options = (
        'train_dataloader.dataset.dataset.indices=8',
        f'val_dataloader.dataset.indices={IMAGES}',
        'default_hooks.checkpoint.interval=1',
    )
    done = run_tool('train.py', 'cells.py', '--cfg-options', *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    output = evaluate('cells.py', 'work_dirs/cells/epoch_1.pth', tmp_path)
    for name in ('RBC', 'WBC', 'Platelets'):
        assert name in output


def test_the_template_by_options_alone_on_five_images(tmp_path):
    """In batches of four the last image is alone, on which the batch-norm of SSDLite's last level cannot train."""
    root = shared_path('cases', 'five_images.json').parent.parent
    options = [
        f'data_root={root}',  # without a slash at its end
        "classes=('RBC','WBC','Platelets')",
        'train_ann=cases/five_images.json',
        'train_images=data/bccd/images/',
        'val_ann=cases/five_images.json',
        'val_images=data/bccd/images/',
        'batch_size=4',
        'max_epochs=1',
        *(
            f'{part}_dataloader.{key}'
            for part in ('train', 'val')
            for key in ('num_workers=0', 'persistent_workers=False')
        ),
    ]
    config = ROOT / 'configs/custom/ssdlite_mixnet-s_custom.py'
    done = run_tool('train.py', config, '--work-dir', 'out', '--cfg-options', *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    warning = 'train_dataloader: 5 images in an epoch in batches of 4 would end with a batch of one'
    assert warning in done.stdout + done.stderr and 'epoch 1/1  iter 1/1' in done.stdout
    assert (tmp_path / 'out/epoch_1.pth').exists()


@pytest.mark.parametrize('names', ["('RBC', 'Platelets', 'WBC')", "('RBC', 'WBC', 'Platelet')"])
def test_wrong_class_names_for_real_annotations(tmp_path, names):
    data = shared_path('data', 'bccd')
    template = (ROOT / 'configs/custom/ssdlite_mixnet-s_custom.py').read_text()
    template = template.replace("'../_base_", f"'{ROOT}/configs/_base_")
    template = template.replace("'data/my_data/'", f"'{data}/'").replace("('first class', 'second class')", names)
    template = template.replace('annotations/train.json', 'annotations/instances_train.json')
    (tmp_path / 'cells.py').write_text(template)
    done = run_tool('train.py', 'cells.py', cwd=tmp_path)
    assert done.returncode == 2 and len(done.stderr.strip().splitlines()) == 1
    assert 'instances_train.json' in done.stderr and "'Platelets'" in done.stderr


def test_both_evaluators_agree_on_an_imported_detector(tmp_path):
    """TensorFlow's SSDLite weights on COCO images: the twelve numbers, and those of each class."""
    pytest.importorskip('faster_coco_eval')
    data = shared_path('data', 'coco-mini')
    source = shared_path('weights', 'ssdlite_mobilenet_v2_coco.npz')
    done = run_tool('convert_weights.py', source, 'tf.pth', '--as', 'ssdlite_mobilenetv2', cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    annotations = data / 'annotations/instances_val2017.json'
    options = [
        f'test_dataloader.dataset.data_root={data}/',
        'test_dataloader.num_workers=0',
        'test_dataloader.persistent_workers=False',
        f'test_evaluator.ann_file={annotations}',
        'test_evaluator.outfile_prefix=found',
    ]
    config = ROOT / 'configs/ssdlite_mobilenetv2/ssdlite_mobilenetv2-baseline3x3-tf-300_coco.py'
    done = run_tool('test.py', config, 'tf.pth', '--work-dir', 'out', '--cfg-options', *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (result,) = read_results(tmp_path / 'out')
    with contextlib.redirect_stdout(io.StringIO()):
        coco = pycoco.COCO(annotations)
    for backend in ('pycocotools', 'faster-coco-eval'):
        found = json.loads((tmp_path / 'found.bbox.json').read_text())
        numbers = evaluate_coco(coco, found, coco.getCatIds(), coco.getImgIds(), backend)
        assert result.numbers.bbox.stats == pytest.approx(dict(zip(STATS, numbers.stats)), abs=1e-9, rel=0)
        assert list(result.numbers.bbox.per_class.values()) == pytest.approx(numbers.class_ap(), abs=1e-9, rel=0)
    assert result.numbers.bbox.stats['mAP'] == pytest.approx(0.3551, abs=0.002)
    details = json.loads((tmp_path / 'out/results/tf/details.json').read_text())
    assert details['images'] == 79 and len(details['pictures']['worst']) == 8
    assert [row['AP'] for row in details['classes']] == list(result.numbers.bbox.per_class.values())
