from types import SimpleNamespace

import mmcv
import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData, PixelData

from mixdet.engine import PictureHook
from mixdet.errors import UserError


class Data(list):
    """A data set of image files."""

    metainfo = dict(classes=(r'$\frac$', '[/b]'))

    def get_data_info(self, index):
        return dict(img_path=self[index])


class Canvas:
    dataset_meta = dict(classes=(r'$\frac$',))

    def __init__(self):
        self.shown, self.drawn = [], []

    def show(self, picture, win_name, wait_time):
        self.shown.append((picture.shape, win_name, wait_time))

    def add_datasample(self, name, image, sample, **options):
        self.drawn.append(self.dataset_meta['classes'])

    def get_image(self):
        return np.full((20, 30, 3), 7, np.uint8)


@pytest.fixture
def run(tmp_path):
    def run(hook, names, **predicted):
        paths = [str(tmp_path / 'images' / name) for name in names]
        for path in paths:
            mmcv.imwrite(np.full((60, 80, 3), 128, np.uint8), path)
        loader = SimpleNamespace(dataset=Data(paths))
        runner = SimpleNamespace(
            test_dataloader=loader, work_dir=tmp_path, timestamp='time', visualizer=Canvas(), world_size=1
        )
        hook.before_test(runner)
        for path in paths:
            found = InstanceData(
                bboxes=torch.tensor([[10.0, 20, 50, 50]]), scores=torch.tensor([0.5]), labels=torch.tensor([0])
            )
            sample = DetDataSample(metainfo=dict(img_path=path), pred_instances=found)
            for name, value in predicted.items():
                sample.set_field(value, name)
            hook.after_test_iter(runner, 0, outputs=[sample])
        hook.after_test_epoch(runner)
        return runner.visualizer

    return run


def test_images_of_the_same_name_have_a_picture_each(run, tmp_path, capsys):
    names = ('a/1.jpg', 'b/1.jpg', 'b/1.png', 'b/c/2.jpg', 'b/c/2.jpg')
    canvas = run(PictureHook('pictures'), names)
    out = tmp_path / 'time/pictures'
    assert sorted(str(path.relative_to(out)) for path in out.rglob('*.jpg')) == [
        'a/1.jpg', 'b/1.jpg', 'b/1.png.jpg', 'b/c/2.jpg', 'b/c/2_2.jpg',
    ]  # fmt: skip
    assert capsys.readouterr().out == f'Pictures: {out} (5)\n' and not canvas.shown
    drawn = mmcv.imread(str(out / 'a/1.jpg')).astype(int)
    assert abs(drawn[50, 20:40] - 128).max() > 50 and abs(drawn[30:, 60:] - 128).max() < 10


def test_a_data_set_that_does_not_know_its_files(run, tmp_path, monkeypatch):
    monkeypatch.setattr(Data, 'get_data_info', lambda self, index: {})
    run(PictureHook('pictures'), ['a/1.jpg', 'b/1.jpg'])
    assert len(list((tmp_path / 'time/pictures').rglob('*.jpg'))) == 2


def test_an_absolute_folder_is_taken_as_it_is(run, tmp_path):
    run(PictureHook(str(tmp_path / 'mine')), ['a.jpg'])
    run(PictureHook(str(tmp_path / 'mine')), ['a.jpg'])
    assert sorted(path.name for path in (tmp_path / 'mine').iterdir()) == ['a.jpg', 'a_2.jpg']  # none is replaced


def test_a_window_and_no_file(run, tmp_path, capsys):
    canvas = run(PictureHook(show=True, wait_time=1), ['a.jpg'])
    assert canvas.shown == [((60, 80, 3), 'a.jpg', 1)] and not (tmp_path / 'time').exists()
    assert not capsys.readouterr().out


def test_segmentations_are_drawn_by_mmdetection(run, tmp_path):
    canvas = run(PictureHook('out'), ['a.jpg'], pred_sem_seg=PixelData(sem_seg=torch.zeros(1, 60, 80)))
    assert canvas.drawn == [(r'\$\frac\$',)] and canvas.dataset_meta['classes'] == (r'$\frac$',)
    assert (mmcv.imread(str(tmp_path / 'time/out/a.jpg')) == 7).all()


def test_wrong_values(run, tmp_path):
    with pytest.raises(ValueError, match='score_thr=30: must be from 0 to 1'):
        PictureHook(score_thr=30)
    hook = PictureHook('out')
    run(hook, ['a.jpg'])
    (tmp_path / 'b.jpg').write_text('text')
    with pytest.raises(UserError, match='b.jpg cannot be decoded as an image'):
        hook.after_test_iter(None, 0, outputs=[SimpleNamespace(img_path=str(tmp_path / 'b.jpg'))])
