import csv
import json
import os
import runpy
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from helpers import ROOT, coco_checkpoint, run_tool, shared_path, tiny_checkpoint
from odd_images import scene, write_odd_images

from mixdet import Detector

pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def tiny(tmp_path_factory):
    return tiny_checkpoint(tmp_path_factory.mktemp('tiny'))


def test_odd_images_and_a_video(tiny, tmp_path):
    (tmp_path / 'odd').mkdir()
    readable = write_odd_images(tmp_path / 'odd')
    # as wide as the large one, but drawing boxes into all of its 54 megapixels takes 20 s
    cv2.imwrite(str(tmp_path / 'odd/large.jpg'), scene(9000, 300))
    writer = cv2.VideoWriter(str(tmp_path / 'odd/a.avi'), cv2.VideoWriter_fourcc(*'MJPG'), 12, (48, 32))
    for _ in range(3):
        writer.write(np.ascontiguousarray(scene()))
    writer.release()
    done = run_tool('predict.py', *tiny, 'odd', '--score-thr', 0.15, '--batch-size', 4, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    skipped = {line.split()[1].rstrip(':') for line in done.stdout.splitlines() if line.startswith('skipped: ')}
    assert skipped == {f'odd/{name}' for name, ok in readable.items() if not ok}
    count = sum(readable.values()) + 3
    assert f'{count} images, {len(skipped)} files skipped' in done.stdout
    pictures = {path.name for path in (tmp_path / 'predictions/pictures').iterdir()}
    expected = {
        name if name.lower().endswith(('.jpg', '.jpeg')) else f'{name}.jpg' for name, ok in readable.items() if ok
    }
    assert pictures == {*expected, 'a.avi.mp4'}
    large = cv2.imread(str(tmp_path / 'predictions/pictures/large.jpg'))
    assert large.shape == (300, 9000, 3)

    records = json.loads((tmp_path / 'predictions/predictions.json').read_text())
    lines = (tmp_path / 'predictions/predictions.csv').read_text(encoding='utf-8').splitlines()
    rows = [row for row in csv.DictReader(lines) if row['class']]
    assert len(records) == len(rows) > 0
    images = json.loads((tmp_path / 'predictions/images.json').read_text())['images']
    assert len(images) == count and sum(image['detections'] for image in images) == len(rows)
    for record, row in zip(records, rows):
        assert row['file'] == record['file_name'] and row['class'] == record['category']
        assert float(row['x2']) - float(row['x1']) == pytest.approx(record['bbox'][2], abs=0.011)
    assert {record.get('frame') for record in records if record['file_name'] == 'odd/a.avi'} <= {0, 1, 2}

    again = run_tool('predict.py', *tiny, 'odd/plain.png', cwd=tmp_path)
    assert again.returncode == 2 and 'predictions.json exists already' in again.stderr and '--overwrite' in again.stderr
    again = run_tool('predict.py', *tiny, 'odd/plain.png', '--overwrite', cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert [path.name for path in (tmp_path / 'predictions/pictures').iterdir()] == ['plain.png.jpg']


@pytest.mark.parametrize(('flags', 'fuse'), [((), True), (('--no-fuse',), False)])
def test_the_network_is_fused_unless_told_otherwise(tiny, tmp_path, monkeypatch, flags, fuse):
    """In this process, to see the network that the tool runs."""
    monkeypatch.chdir(tmp_path)
    cv2.imwrite('a.jpg', scene())
    monkeypatch.setattr(sys, 'argv', ['predict.py', *map(str, tiny), 'a.jpg', *flags])
    main = runpy.run_path(str(ROOT / 'tools/predict.py'))['main']
    made = []

    def make(*args, **kwargs):
        made.append(Detector(*args, **kwargs))
        return made[-1]

    monkeypatch.setitem(main.__globals__, 'Detector', make)
    main()
    norms = [module for module in made[0].model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    assert (not norms) == fuse
    assert Path('predictions/pictures/a.jpg').exists()


def test_coco_results_can_be_evaluated(tmp_path):
    """What is written is COCO's format: pycocotools gives the AP of these images when ids are put to their own."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    data = shared_path('data', 'coco-mini')
    images = sorted((data / 'val2017').glob('*.jpg'))[:12]
    config, checkpoint = coco_checkpoint(tmp_path)
    done = run_tool('predict.py', config, checkpoint, *images, '--score-thr', 0.05, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    truth = COCO(str(data / 'annotations/instances_val2017.json'))
    ids = {image['file_name']: image['id'] for image in truth.loadImgs(truth.getImgIds())}
    records = json.loads((tmp_path / 'predictions/predictions.json').read_text())
    for record in records:
        record['image_id'] = ids[record['file_name'].rpartition('/')[2]]
        record['category_id'] = truth.getCatIds(catNms=[record['category']])[0]
    evaluation = COCOeval(truth, truth.loadRes(records), 'bbox')
    evaluation.params.imgIds = [ids[path.name] for path in images]
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    assert evaluation.stats[0] > 0.25


def test_wrong_arguments(tiny, tmp_path):
    (tmp_path / 'text.jpg').write_text('no image')
    for arguments, message in (
        ((*tiny, 'gone.jpg'), 'gone.jpg: no image or video found'),
        ((*tiny, 'text.jpg'), 'none of the 1 files could be read'),
        ((tiny[0], 'gone.pth', 'text.jpg'), 'gone.pth does not exist'),
        ((*tiny, 'text.jpg', '--score-thr', '30'), "'30' is no score: give a number from 0 to 1"),
    ):
        done = run_tool('predict.py', *arguments, cwd=tmp_path)
        assert done.returncode == 2 and message in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1


def test_names_that_are_no_text(tiny, tmp_path):
    """Under a locale without Unicode, and of classes that Rich and TeX would read."""
    (tmp_path / 'in').mkdir()
    cv2.imwrite(str(tmp_path / 'a.jpg'), scene())
    for name in (b'caf\xe9.jpg', '文[x].jpg'.encode()):
        (tmp_path / 'in' / os.fsdecode(name)).write_bytes((tmp_path / 'a.jpg').read_bytes())
    (tmp_path / 'in' / os.fsdecode(b'\xff.png')).write_bytes(b'text')
    (tmp_path / 'c.py').write_text(
        f"_base_ = '{tiny[0]}'\nclasses = ('[/x]', r'$\\frac$', '=1+1', '文')\n"
        'test_dataloader = dict(dataset=dict(metainfo=dict(classes=classes)))\n'
    )
    done = run_tool(
        'predict.py',
        'c.py',
        tiny[1],
        'in',
        '--score-thr',
        0.1,
        '--agnostic-nms',
        cwd=tmp_path,
        PYTHONIOENCODING='ascii',
    )
    assert done.returncode == 0, done.stderr
    assert 'skipped: in/\\xff.png cannot be decoded' in done.stdout and '2 images, 1 files skipped' in done.stdout
    records = json.loads((tmp_path / 'predictions/predictions.json').read_text())
    assert {os.fsencode(record['file_name'])[3:] for record in records} <= {b'caf\xe9.jpg', '文[x].jpg'.encode()}
    assert len(list((tmp_path / 'predictions/pictures').iterdir())) == 2
