import csv
import json
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
    expected = {name if name.endswith('.jpg') else f'{name}.jpg' for name, ok in readable.items() if ok}
    assert pictures == {*expected, 'a.avi.mp4'}
    large = cv2.imread(str(tmp_path / 'predictions/pictures/large.jpg'))
    assert large.shape == (300, 9000, 3)

    records = json.loads((tmp_path / 'predictions/predictions.json').read_text())
    rows = list(csv.DictReader((tmp_path / 'predictions/predictions.csv').read_text().splitlines()))
    assert len(records) == len(rows) > 0
    for record, row in zip(records, rows):
        assert row['file'] == record['file_name'] and row['class'] == record['category']
        assert float(row['x2']) - float(row['x1']) == pytest.approx(record['bbox'][2], abs=0.011)
    assert {record.get('frame') for record in records if record['file_name'] == 'odd/a.avi'} <= {0, 1, 2}

    again = run_tool('predict.py', *tiny, 'odd/plain.png', cwd=tmp_path)
    assert again.returncode == 2 and 'predictions.json exists already' in again.stderr


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
    ):
        done = run_tool('predict.py', *arguments, cwd=tmp_path)
        assert done.returncode == 2 and message in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1
