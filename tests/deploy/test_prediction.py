import csv
import json
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData

from mixdet.deploy.inference import Detection
from mixdet.deploy.prediction import CSV, JSON, PICTURES, Predictor
from mixdet.errors import UserError

FOUND = [Detection('disc', 0, 0.875, (4.0, 8.0, 20.0, 16.0)), Detection('star', 3, 0.5, (100.0, 70.0, 140.0, 110.5))]
COLOUR = (120, 80, 40)  # BGR


class FixedDetector:
    """Finds ``FOUND`` in every image, one of them below the score for pictures; notes the sizes of batches."""

    score_thr = 0.6
    model = SimpleNamespace(dataset_meta=dict(classes=('disc', 'square', 'triangle', 'star')))

    def __init__(self):
        self.batches = []

    def predict_samples(self, arrays):
        self.batches.append(len(arrays))
        return [DetDataSample(pred_instances=self.instances()) for _ in arrays]

    def instances(self):
        return InstanceData(
            bboxes=torch.tensor([one.box for one in FOUND]),
            scores=torch.tensor([one.score for one in FOUND]),
            labels=torch.tensor([one.label for one in FOUND]),
        )

    def detections(self, sample):
        return FOUND


def write_image(path, size=(160, 120)):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((*size[::-1], 3), COLOUR, np.uint8))
    return path


def write_video(path, frames):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*'MJPG'), 12, (32, 24))
    for _ in range(frames):
        writer.write(np.full((24, 32, 3), COLOUR, np.uint8))
    writer.release()
    return path


def test_images_become_records_and_pictures(tmp_path):
    paths = [write_image(tmp_path / 'in' / name) for name in ('a.jpg', 'a.png', 'deep/b.png', 'deep/c.jpg', 'd.bmp')]
    (tmp_path / 'in/text.png').write_text('text')
    detector = FixedDetector()
    predictor = Predictor(detector, tmp_path / 'out', batch_size=2)
    predictor.run([*paths[:1], tmp_path / 'in/text.png', *paths[1:]])
    assert detector.batches == [2, 2, 1]
    assert predictor.images == 5 and [line.split(' ')[0] for line in predictor.skipped] == [
        str(tmp_path / 'in/text.png')
    ]
    records = json.loads((tmp_path / 'out' / JSON).read_text())
    assert records[:2] == [
        dict(image_id=0, category_id=1, bbox=[4, 8, 16, 8], score=0.875, category='disc', file_name=str(paths[0])),
        dict(image_id=0, category_id=4, bbox=[100, 70, 40, 40.5], score=0.5, category='star', file_name=str(paths[0])),
    ]
    assert [record['image_id'] for record in records[::2]] == [0, 1, 2, 3, 4]
    assert [record['file_name'] for record in records[1::2]] == [str(path) for path in paths]
    with (tmp_path / 'out' / CSV).open(newline='') as file:
        rows = list(csv.reader(file))
    assert rows[0] == ['file', 'frame', 'class', 'score', 'x1', 'y1', 'x2', 'y2'] and len(rows) == 11
    assert rows[1] == [str(paths[0]), '', 'disc', '0.8750', '4.00', '8.00', '20.00', '16.00']
    pictures = tmp_path / 'out' / PICTURES
    found = sorted(str(path.relative_to(pictures)) for path in pictures.rglob('*.*'))
    assert found == ['a.jpg', 'a.png.jpg', 'd.bmp.jpg', 'deep/b.png.jpg', 'deep/c.jpg']
    drawn = cv2.imread(str(pictures / 'a.png.jpg')).astype(int)
    assert drawn.shape == (120, 160, 3)
    assert abs(drawn[8, 10:20] - COLOUR).max() > 50 and abs(drawn[60:, 90:] - COLOUR).max() < 15


def test_frames_of_videos_have_numbers(tmp_path):
    films = [write_video(tmp_path / f'{name}.avi', frames) for name, frames in (('a', 3), ('b', 1))]
    (tmp_path / 'c.avi').write_bytes(b'nothing')
    image = write_image(tmp_path / 'd.jpg')
    detector = FixedDetector()
    predictor = Predictor(detector, tmp_path / 'out', batch_size=2)
    predictor.run([films[0], tmp_path / 'c.avi', image, films[1]])
    assert detector.batches == [1, 2, 1, 1] and predictor.images == 5
    assert predictor.skipped == [f'{tmp_path / "c.avi"} cannot be decoded as a video']
    records = json.loads((tmp_path / 'out' / JSON).read_text())[::2]
    assert [(record['file_name'], record.get('frame')) for record in records] == [
        (str(image), None), (str(films[0]), 0), (str(films[0]), 1), (str(films[0]), 2), (str(films[1]), 0),
    ]  # fmt: skip
    assert [record['image_id'] for record in records] == [0, 1, 2, 3, 4]
    with (tmp_path / 'out' / CSV).open(newline='') as file:
        assert [row['frame'] for row in csv.DictReader(file)][::2] == ['', '0', '1', '2', '0']
    pictures = tmp_path / 'out' / PICTURES
    assert sorted(path.name for path in pictures.iterdir()) == ['a.avi.mp4', 'b.avi.mp4', 'd.jpg']
    video = cv2.VideoCapture(str(pictures / 'a.avi.mp4'))
    assert video.get(cv2.CAP_PROP_FPS) == 12 and video.get(cv2.CAP_PROP_FRAME_COUNT) == 3
    whole, frame = video.read()
    assert whole and frame.shape == (24, 32, 3) and abs(frame[8, 10:20].astype(int) - COLOUR).max() > 50


@pytest.mark.parametrize('name', [JSON, CSV])
def test_predictions_are_never_overwritten(tmp_path, name):
    (tmp_path / name).write_text('mine')
    with pytest.raises(UserError, match=f'{name} exists already; give another --out'):
        Predictor(FixedDetector(), tmp_path)
    assert (tmp_path / name).read_text() == 'mine'
