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


def write_config(folder):
    data = shared_path('data', 'bccd')
    template = (ROOT / 'configs/custom/ssdlite_mixnet-s_custom.py').read_text()
    template = template.replace("'../_base_", f"'{ROOT}/configs/_base_").replace("'data/my_data/'", f"'{data}/'")
    template = template.replace("('first class', 'second class')", "('RBC', 'WBC', 'Platelets')")
    for part in ('train', 'val'):
        template = template.replace(f'annotations/{part}.json', f'annotations/instances_{part}.json')
    (folder / 'cells.py').write_text(template)
    return 'cells.py'
