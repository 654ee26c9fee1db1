import re

import mmcv
import pytest
from helpers import ROOT, run_tool

from mixdet.datasets import make_demo_data

pytestmark = pytest.mark.slow

TOOL = 'analysis_tools/browse_dataset.py'
DEMO = ROOT / 'configs/demo/ssdlite_mixnet-s_1xb8-12e_demo.py'


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp('browse')
    make_demo_data(folder / 'data/mixdet_demo', {'train': 5, 'val': 1})
    return folder


def test_augmented_images_are_drawn(folder):
    done = run_tool(TOOL, DEMO, '--out', 'a/pictures', '--number', 3, cwd=folder)
    assert done.returncode == 0 and done.stdout == '3 of 5 training images: a/pictures\n', done.stderr
    files = sorted((folder / 'a/pictures').iterdir())
    assert len(files) == 3 and all(re.fullmatch(r'00000[0-4]_00000[1-5]\.jpg', file.name) for file in files)
    assert {mmcv.imread(file).shape for file in files} == {(640, 640, 3)}
    done = run_tool(TOOL, DEMO, '--output-dir', 'all', '--not-show', '--number', 0, cwd=folder)  # as in MMDetection
    assert done.returncode == 0 and len(list((folder / 'all').iterdir())) == 5, done.stderr


def test_nothing_is_overwritten(folder):
    (folder / 'mine').mkdir()
    (folder / 'mine/notes.txt').write_text('mine')
    done = run_tool(TOOL, DEMO, '--out', 'mine', cwd=folder)
    assert done.returncode == 2 and done.stderr.startswith('error: --out mine exists already')
    assert [file.name for file in (folder / 'mine').iterdir()] == ['notes.txt']


def test_bad_input_is_one_line(folder):
    (folder / 'bad.py').write_text(
        f"_base_ = '{DEMO}'\ntrain_dataloader = dict(dataset=dict(pipeline=[dict(type='No')]))\n"
    )
    (folder / 'none.py').write_text('model = dict()\n')
    for config, message in (
        ('bad.py', 'No is not in'),
        ('none.py', 'has no train_dataloader'),
        ('gone.py', 'not exist'),
    ):
        done = run_tool(TOOL, config, '--out', 'x', cwd=folder)
        assert done.returncode == 2 and message in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr
    assert not (folder / 'x').exists()
