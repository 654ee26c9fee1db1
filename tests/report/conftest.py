import copy
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from mixdet.evaluation.coco import IOU_THRS
from mixdet.evaluation.details import FALSE_ALARM, FOUND, MISSED, Box, Details, ImageErrors
from mixdet.evaluation.numbers import STATS
from mixdet.report.detail_files import write_details
from mixdet.report.pictures import LABELLED, box_records, save_bare
from mixdet.report.run import REPORT_FOLDER, STATE_FILE

CLASSES = ('red <cell>', 'white cell')


def write_scalars(work_dir, name, first_epoch, epochs, ap, loss=2.0, mask_ap=None):
    """A log as MMEngine writes it: two lines and a validation per epoch, of 10 iterations each."""
    lines = []
    for epoch in range(first_epoch, first_epoch + epochs):
        for half in (5, 10):
            step = 10 * (epoch - 1) + half
            record = dict(lr=0.1, loss=loss / epoch, loss_cls=1.5 / epoch, loss_bbox=0.5 / epoch, epoch=epoch)
            lines.append({**record, 'iter': step, 'step': step, 'time': 0.1})
        metrics = {f'coco/bbox_{key}': ap + epoch / 100 for key in STATS}
        metrics['coco/red <cell>_precision'] = ap
        if mask_ap is not None:
            metrics.update({f'coco/segm_{key}': mask_ap + epoch / 100 for key in STATS})
            metrics['coco/segm_red <cell>_precision'] = mask_ap
        lines.append({**metrics, 'time': 1.0, 'step': epoch})
    path = work_dir / name / 'vis_data/scalars.json'
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(''.join(f'{json.dumps(line)}\n' for line in lines))
    return path


@pytest.fixture
def scalars():
    return write_scalars


def three_images(folder):
    """Details of an evaluation of three images; the file of the last one is missing."""
    images = []
    for name in ('good.png', 'bad.png', 'gone.png'):
        path = folder / name
        Image.fromarray(np.full((60, 90, 3), 200, np.uint8)).save(path)
        box = (10.0, 10.0, 40.0, 40.0)
        truth = [Box(box, 0, FOUND), Box((50.0, 10.0, 80.0, 50.0), 1, FOUND if name == 'good.png' else MISSED)]
        found = [Box(box, 0, FOUND, 0.9)] + [Box((0.0, 0.0, 9.0, 9.0), 1, FALSE_ALARM, 0.5)] * (name != 'good.png')
        if name == 'good.png':
            found.append(Box(truth[1].corners, 1, FOUND, 0.7))
        images.append(ImageErrors(str(path), truth, found))
    path.unlink()
    numbers = dict(boxes=3, AP=0.5, AP50=0.75, AP75=0.25, AP_small=-1.0, AP_medium=0.5, AP_large=-1.0, AR=0.6, F1=0.7)
    classes = [dict(name=name, **numbers, score=0.4321) for name in CLASSES]
    curve = np.linspace(1, 0, 101)
    confusion = np.array([[2, 1, 0], [0, 1, 2], [0, 2, 0]])
    mean = {f'{iou:.2f}': curve for iou in IOU_THRS}
    return Details(classes, np.stack([curve, curve**2]), mean, confusion, images, 0.3)


def training_data():
    """Statistics as ``box_statistics`` gives them."""
    row = dict(images=40, small=10, medium=70, large=20, side=51.5, percent=12.5)
    return dict(
        images=80, counted=80, empty=2, boxes=150, ignored=3, per_image=dict(mean=1.88, median=2.0, most=7),
        sizes=[[640, 480, 79], [320, 240, 1]], classes=[dict(row, name=name, boxes=75) for name in CLASSES],
        sides=dict(edges=[0.0, *(2 ** (k / 2) for k in range(4, 21))], counts=[0] * 5 + [50] * 3 + [0] * 10),
    )  # fmt: skip


@pytest.fixture(scope='session')
def finished_training(tmp_path_factory):
    """What a finished training of three epochs leaves: its work dir, and the details of its last validation."""
    folder = tmp_path_factory.mktemp('finished')
    details, work_dir = three_images(folder), folder / 'net'
    write_scalars(work_dir, '20260101_000000', 1, 3, 0.25)
    (work_dir / 'net.py').write_text('a = 1\n')
    (work_dir / 'epoch_3.pth').write_bytes(b'')
    (work_dir / 'last_checkpoint').write_text(str(work_dir / 'epoch_3.pth'))
    write_details(details, work_dir / REPORT_FOLDER, samples=2)
    card = dict(
        name='net', command='python tools/train.py net.py', model='SSDLite', backbone='MixNet', input_size=[320, 256],
        params=1_234_567, macs=765_000_000, latency_ms=12.34, latency_quartiles_ms=[12.0, 13.0], latency_rounds=30,
        latency_cpu_ms=12.2, losses={'bbox_head.loss_cls': 'FocalLoss x 1.0'}, start=[],
        device='a <processor>', threads=2, processes=1,
        train=dict(images=80, annotations='train.json'), val=dict(images=3, annotations='val.json'),
        classes=list(CLASSES), batch_size=8, optimizer='SGD, lr 0.1', seed=7, deterministic=False,
        versions=dict(torch='2.0'), revision='abcdef', config='a = 1\n',
    )  # fmt: skip
    state = dict(
        card=card, by_epoch=True, status='finished', epoch=3, max_epochs=3, iter=30, max_iters=30, seconds=3723.5,
        written='2026-01-01 01:02', data=training_data(), logs=['20260101_000000'],
        augmented=[dict(
            save_bare(Image.new('RGB', (64, 48)), work_dir / REPORT_FOLDER, 'train_1.jpg'), image='a <b>.png',
            truth=box_records([Box((1.0, 20.0, 30.0, 40.0), 0, LABELLED)], CLASSES),
        )],
    )  # fmt: skip
    (work_dir / REPORT_FOLDER / STATE_FILE).write_text(json.dumps(state))
    return work_dir, details


@pytest.fixture
def details(finished_training):
    """Details of an evaluation, for a test to change."""
    return copy.deepcopy(finished_training[1])


@pytest.fixture
def work_dir(finished_training, tmp_path):
    """The work dir of a finished training of three epochs, for a test to change."""
    return shutil.copytree(finished_training[0], tmp_path / 'work_dirs/net')


@pytest.fixture
def other(work_dir, scalars):
    other = work_dir.with_name('other')
    scalars(other, '20260101_000000', 1, 2, 0.5)
    return other


@pytest.fixture
def mask_run(work_dir, details, scalars):
    """The training of ``work_dir`` with masks."""
    scalars(work_dir, '20260101_000000', 1, 3, 0.25, mask_ap=0.125)
    for row, ap in zip(details.classes, (0.4567, -1.0)):
        row['mask_AP'] = ap
    write_details(details, work_dir / 'report')
    return work_dir


def make_details(classes, images=()):
    numbers = dict(boxes=2, AP=0.5, AP50=0.75, AP75=0.25, AP_small=-1.0, AP_medium=-1.0, AP_large=0.5)
    curve = np.linspace(1, 0, 101)
    confusion = np.zeros((len(classes) + 1,) * 2, int)
    confusion[0, :2], confusion[1, 0], confusion[1, -1] = (7, 2), 3, 4
    return Details(
        [dict(name=name, **numbers, AR=0.6, F1=0.7, score=0.4) for name in classes],
        np.stack([curve] * len(classes)),
        {f'{iou:.2f}': curve for iou in IOU_THRS},
        confusion,
        list(images),
        0.3,
    )


@pytest.fixture
def evaluation_details():
    """``make_details``, for tests that need the details of an evaluation."""
    return make_details


@pytest.fixture
def image(tmp_path):
    path = tmp_path / 'a.png'
    Image.fromarray(np.full((50, 100, 3), 128, np.uint8)).save(path)
    truth = [Box((10, 10, 40, 40), 0, FOUND), Box((50, 5, 95, 45), 1, MISSED)]
    return ImageErrors(
        str(path), truth, [Box((10, 10, 40, 40), 0, FOUND, 0.9), Box((60, 20, 70, 48), 0, FALSE_ALARM, 0.4)]
    )
