import contextlib
import csv
import io
import json
import os
import signal
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from helpers import little_room
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from pycocotools.coco import COCO

from mixdet.deploy.inference import Detection
from mixdet.deploy.prediction import CSV, IMAGES, JSON, PICTURES, Predictor, earlier_pictures
from mixdet.deploy.videos import read_frames
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


@pytest.mark.parametrize('name', [JSON, CSV, IMAGES])
def test_predictions_are_never_overwritten(tmp_path, name):
    (tmp_path / name).write_text('mine')
    with pytest.raises(UserError, match=f'{name} exists already; give another --out .* with --overwrite'):
        Predictor(FixedDetector(), tmp_path)
    assert (tmp_path / name).read_text() == 'mine'


class EmptyDetector(FixedDetector):
    """Finds nothing in images that are brighter than ``COLOUR``."""

    def predict_samples(self, arrays):
        samples = super().predict_samples(arrays)
        for array, sample in zip(arrays, samples):
            if array.mean() > 100:
                sample.pred_instances = sample.pred_instances[:0]
        return samples

    def detections(self, sample):
        return FOUND[: len(sample.pred_instances)]


def read_csv(path):
    with path.open(newline='', encoding='utf-8') as file:
        return list(csv.DictReader(file))


def test_images_without_a_detection_are_listed(tmp_path):
    first, last = (write_image(tmp_path / 'in' / name) for name in ('a.jpg', 'c.jpg'))
    cv2.imwrite(str(tmp_path / 'in/b.png'), np.full((50, 70, 3), 200, np.uint8))
    paths = [first, tmp_path / 'in/b.png', last]
    Predictor(EmptyDetector(), tmp_path / 'out').run(paths)
    images = json.loads((tmp_path / 'out' / IMAGES).read_text())
    assert [category['name'] for category in images['categories']] == ['disc', 'square', 'triangle', 'star']
    assert images['categories'][0]['id'] == 1
    assert [image['detections'] for image in images['images']] == [2, 0, 2]
    assert images['images'][1] == dict(
        id=1, file_name=str(paths[1]), width=70, height=50, detections=0, picture='pictures/b.png.jpg'
    )
    rows = read_csv(tmp_path / 'out' / CSV)
    assert [row['file'] for row in rows] == [str(path) for path in (first, first, paths[1], last, last)]
    assert set(list(rows[2].values())[1:]) == {''}
    # COCO's tools read the two files together
    with contextlib.redirect_stdout(io.StringIO()):
        results = COCO(str(tmp_path / 'out' / IMAGES)).loadRes(str(tmp_path / 'out' / JSON))
    assert results.getImgIds() == [0, 1, 2] and len(results.getAnnIds()) == 4
    assert (cv2.imread(str(tmp_path / 'out/pictures/b.png.jpg')) > 190).all()


ODD = [b'caf\xe9.jpg', b'=1+1.jpg', b'[b]a.jpg', '文.jpg'.encode(), b'a\x1b[31m.jpg', b'IMG_1.JPG', b'x.png']


def test_file_names_of_any_kind(tmp_path):
    """OpenCV ends the process at a name that is not UTF-8."""
    source = tmp_path / os.fsdecode(b'd\xe9j\xe0 vu')
    content = write_image(tmp_path / 'a.jpg').read_bytes()
    source.mkdir()
    for name in ODD:
        (source / os.fsdecode(name)).write_bytes(content)
    write_video(tmp_path / 'a.avi', 2).rename(source / os.fsdecode(b'\xff.avi'))
    paths = sorted(source.iterdir())
    predictor = Predictor(FixedDetector(), tmp_path / 'out')
    predictor.run(paths)
    assert predictor.images == len(ODD) + 2 and not predictor.skipped
    files = {record['file_name'] for record in json.loads((tmp_path / 'out' / JSON).read_text())}
    assert files == {str(path) for path in paths}  # each can be opened again
    rows = {row['file'].rpartition('/')[2] for row in read_csv(tmp_path / 'out' / CSV)}
    assert {'caf\\xe9.jpg', '文.jpg', 'a\\x1b[31m.jpg', '\\xff.avi', '=1+1.jpg'} <= rows
    pictures = os.listdir(os.fsencode(tmp_path / 'out' / PICTURES))
    assert sorted(pictures) == sorted([*ODD[:-1], b'x.png.jpg', b'\xff.avi.mp4'])


class Stop(FixedDetector):
    def predict_samples(self, arrays):
        if len(self.batches) == 2:
            raise KeyboardInterrupt
        return super().predict_samples(arrays)


def test_what_was_predicted_before_an_interrupt_is_whole(tmp_path):
    paths = [write_image(tmp_path / f'{name}.jpg') for name in 'abcd']
    predictor = Predictor(Stop(), tmp_path / 'out')
    with pytest.raises(KeyboardInterrupt):
        predictor.run(paths)
    assert predictor.images == 2 and len(json.loads((tmp_path / 'out' / JSON).read_text())) == 4
    assert len(read_csv(tmp_path / 'out' / CSV)) == 4 and len(list((tmp_path / 'out' / PICTURES).iterdir())) == 2
    film = write_video(tmp_path / 'f.mp4', 5)
    with pytest.raises(KeyboardInterrupt):
        Predictor(Stop(), tmp_path / 'film').run([film])
    video = cv2.VideoCapture(str(tmp_path / 'film/pictures/f.mp4'))
    assert video.get(cv2.CAP_PROP_FRAME_COUNT) == 2
    images = json.loads((tmp_path / 'film' / IMAGES).read_text())['images']
    assert [image['frame'] for image in images] == [0, 1] and images[0]['picture'] == 'pictures/f.mp4'


def test_a_picture_that_cannot_be_written_stops(tmp_path, monkeypatch):
    paths = [write_image(tmp_path / f'{name}.jpg') for name in 'ab']
    encode = cv2.imencode
    monkeypatch.setattr(cv2, 'imencode', lambda *args: (False, None) if predictor.images else encode(*args))
    predictor = Predictor(FixedDetector(), tmp_path / 'out')
    with pytest.raises(UserError, match='pictures/b.jpg cannot be written'):
        predictor.run(paths)
    assert len(json.loads((tmp_path / 'out' / JSON).read_text())) == 2


def test_an_image_too_large_for_the_memory_is_skipped(tmp_path):
    class Small(FixedDetector):
        def predict_samples(self, arrays):
            if arrays[0].shape[1] > 200:
                raise MemoryError
            return super().predict_samples(arrays)

    paths = [write_image(tmp_path / 'a.jpg', (300, 200)), write_image(tmp_path / 'b.jpg')]
    predictor = Predictor(Small(), tmp_path / 'out')
    predictor.run(paths)
    assert predictor.images == 1 and predictor.skipped == [f'{paths[0]}: not enough memory for 300x200 px']


def test_overwriting_replaces_what_a_run_wrote_and_nothing_else(tmp_path):
    paths = [write_image(tmp_path / 'in' / name) for name in ('a.jpg', 'b.jpg')]
    out = tmp_path / 'out'
    Predictor(FixedDetector(), out).run(paths)
    write_image(out / PICTURES / 'c.jpg').write_text('mine')
    Predictor(FixedDetector(), out, overwrite=True).run(
        [tmp_path / 'in/../in/a.jpg', write_image(tmp_path / 'in/c.jpg')]
    )
    assert sorted(path.name for path in (out / PICTURES).iterdir()) == ['a.jpg', 'c.jpg', 'c_2.jpg']
    assert (out / PICTURES / 'c.jpg').read_text() == 'mine' and len(read_csv(out / CSV)) == 4
    # a picture that is an input now stays
    Predictor(FixedDetector(), out, overwrite=True).run([out / PICTURES / 'a.jpg'])
    assert sorted(path.name for path in (out / PICTURES).iterdir()) == ['a.jpg', 'a_2.jpg', 'c.jpg']


def test_a_link_in_the_place_of_the_pictures_is_refused(tmp_path):
    (tmp_path / 'mine').mkdir()
    (tmp_path / 'out').mkdir()
    (tmp_path / 'out' / PICTURES).symlink_to(tmp_path / 'mine')
    with pytest.raises(UserError, match='out/pictures is a link that leads out of .*out; remove it'):
        Predictor(FixedDetector(), tmp_path / 'out')
    (tmp_path / 'other').symlink_to(tmp_path / 'mine')  # which the user asks for
    Predictor(FixedDetector(), tmp_path / 'other').run([write_image(tmp_path / 'a.jpg')])
    assert (tmp_path / 'mine/pictures/a.jpg').exists()


def test_a_list_of_pictures_reaches_no_other_file(tmp_path):
    (tmp_path / 'out/pictures').mkdir(parents=True)
    (tmp_path / 'out/pictures/link').symlink_to(tmp_path)
    for name in ('mine.jpg', 'out/mine.jpg', 'out/pictures/ours.jpg'):
        (tmp_path / name).touch()
    named = (
        '../mine.jpg',
        'mine.jpg',
        'pictures/../../mine.jpg',
        'pictures/link/mine.jpg',
        'pictures/ours.jpg',
        'pictures',
    )
    named = [*named, str(tmp_path / 'mine.jpg')]
    (tmp_path / 'out' / IMAGES).write_text(json.dumps(dict(images=[dict(picture=name) for name in named])))
    assert earlier_pictures(tmp_path / 'out') == [tmp_path / 'out/pictures/ours.jpg']
    for content in ('no JSON', '[' * 10**5):
        (tmp_path / 'out' / IMAGES).write_text(content)
        assert earlier_pictures(tmp_path / 'out') == []


class Signalled(FixedDetector):
    """Gets SIGTERM, as from a cluster, while it is at its second batch."""

    def predict_samples(self, arrays):
        samples = super().predict_samples(arrays)
        if len(self.batches) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return samples


@pytest.mark.parametrize('name', ['film.mp4', ''])
def test_a_signal_stops_between_two_images(tmp_path, name):
    """All files agree, and a video can be played."""
    paths = [write_video(tmp_path / name, 6)] if name else [write_image(tmp_path / f'{i}.jpg') for i in range(6)]
    predictor = Predictor(Signalled(), tmp_path / 'out', batch_size=2)
    with pytest.raises(SystemExit) as stopped:
        predictor.run(paths)
    assert stopped.value.code == 143 and predictor.images == 4
    images = json.loads((tmp_path / 'out' / IMAGES).read_text())['images']
    assert sum(image['detections'] for image in images) == len(json.loads((tmp_path / 'out' / JSON).read_text())) == 8
    assert len(read_csv(tmp_path / 'out' / CSV)) == 8
    assert all((tmp_path / 'out' / image['picture']).exists() for image in images)
    if name:
        video = cv2.VideoCapture(str(tmp_path / 'out/pictures/film.mp4'))
        assert video.get(cv2.CAP_PROP_FRAME_COUNT) == 4


@pytest.mark.parametrize('room', [0, 30, 200, 700, 900])
def test_a_full_disk_ends_the_run_with_its_reason(tmp_path, room):
    """No room for the first byte, for the head of a file, for a picture, for another record."""
    paths = [write_image(tmp_path / f'{i}.png') for i in range(9)]
    predictor = Predictor(FixedDetector(), tmp_path / 'out')
    with little_room(room), pytest.raises(UserError, match='out/.* cannot be written: File too large'):
        predictor.run(paths)
    for name in (JSON, IMAGES):
        if (tmp_path / 'out' / name).exists():
            json.loads((tmp_path / 'out' / name).read_text())
    for picture in (tmp_path / 'out').glob(f'{PICTURES}/*'):
        assert cv2.imread(str(picture)) is not None
    if room == 0:
        assert not list((tmp_path / 'out').iterdir())  # so that the next run is not refused


@pytest.mark.parametrize(
    'error',
    [
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8589934592 bytes"),
        torch.cuda.OutOfMemoryError('CUDA out of memory'),
    ],
)
def test_images_for_which_there_is_no_memory_leave_the_rest_of_their_batch(tmp_path, error):
    class Small(FixedDetector):
        def predict_samples(self, arrays):
            if len(arrays) > 1 or arrays[0].shape[1] > 200:
                raise error
            return super().predict_samples(arrays)

    paths = [write_image(tmp_path / f'{i}.jpg', (300 if i == 1 else 160, 120)) for i in range(4)]
    predictor = Predictor(Small(), tmp_path / 'out', batch_size=4)
    predictor.run(paths)
    assert predictor.images == 3 and predictor.skipped == [f'{paths[1]}: not enough memory for 300x120 px']


def test_a_video_for_which_there_is_no_more_memory_is_whole(tmp_path):
    class Small(FixedDetector):
        def predict_samples(self, arrays):
            if len(self.batches) == 2:
                self.batches.append(0)
                raise MemoryError
            return super().predict_samples(arrays)

    film, image = write_video(tmp_path / 'a.mp4', 5), write_video(tmp_path / 'b.mp4', 1)
    predictor = Predictor(Small(), tmp_path / 'out')
    predictor.run([film, image])
    assert predictor.skipped == [f'{film}: not enough memory for its frames; those before are kept']
    assert [len(list(read_frames(tmp_path / f'out/pictures/{name}.mp4'))) for name in 'ab'] == [2, 1]
    assert predictor.images == 3


def test_other_errors_of_the_network_are_not_hidden(tmp_path):
    class Broken(FixedDetector):
        def predict_samples(self, arrays):
            raise RuntimeError('shapes do not match')

    with pytest.raises(RuntimeError, match='shapes do not match'):
        Predictor(Broken(), tmp_path / 'out').run([write_image(tmp_path / 'a.jpg')])


@pytest.mark.parametrize('suffix', ['jpg', 'png'])
def test_boxes_of_a_huge_image_are_in_its_own_pixels(tmp_path, monkeypatch, suffix):
    monkeypatch.setattr('mixdet.deploy.images.MAX_PIXELS', 100 * 80)
    seen = []

    class Seeing(FixedDetector):
        def predict_samples(self, arrays):
            seen.append(arrays[0].shape)
            return super().predict_samples(arrays)

    paths = [write_image(tmp_path / f'huge.{suffix}', (400, 200)), write_image(tmp_path / 'b.jpg', (100, 80))]
    predictor = Predictor(Seeing(), tmp_path / 'out')
    predictor.run(paths)
    assert seen == [(50, 100, 3), (80, 100, 3)]
    records = json.loads((tmp_path / 'out' / JSON).read_text())
    assert records[0]['bbox'] == [16, 32, 64, 32] and records[2]['bbox'] == [4, 8, 16, 8]
    images = json.loads((tmp_path / 'out' / IMAGES).read_text())['images']
    assert [(image['width'], image['height']) for image in images] == [(400, 200), (100, 80)]
    assert predictor.notes == [
        f'{paths[0]}: 400x200 px, reduced to 100x50 for the network and the picture; the boxes are in px of the file'
    ]
