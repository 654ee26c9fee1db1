import hashlib
import io
import json
import re
import shutil
import subprocess
import tarfile

import cv2
import numpy as np
import pytest
from helpers import needs_torch

from mixdet import Detector
from mixdet.datasets.transforms import resize_bilinear
from mixdet.deploy.export import export, export_metadata
from mixdet.deploy.exported import load_exported
from mixdet.deploy.formats import FORMATS, web
from mixdet.deploy.formats.base import Job, Metadata
from mixdet.errors import UserError

META = Metadata(('a',), (8, 16), (0.0,) * 3, (1.0,) * 3, 'Resize', True, 'c')
RUN = """
import {readFileSync, writeFileSync} from 'node:fs';
const [module, cases] = process.argv.slice(1);
const detector = await import(module);
for (const {name, file, width, height, argument} of JSON.parse(cases)) {
  const pixels = new Uint8Array(readFileSync(file));
  let last = 0;
  const rowAt = (y) => {
    if (y < last) { throw new Error('rows are read from the top'); }
    last = y;
    return pixels.subarray(4 * width * y, 4 * width * (y + 1));
  };
  writeFileSync(`${file}.out`, new Uint8Array(detector[name](rowAt, width, height, ...argument).buffer));
}
"""


@pytest.fixture
def runtime(tmp_path, monkeypatch):
    """Stand-ins for onnxruntime-web's files in ``node_modules`` of the current folder; returns their folder."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / 'node_modules/onnxruntime-web/dist'
    folder.mkdir(parents=True)
    for name in web.FILES:
        (folder / name).write_bytes(name.encode())
        monkeypatch.setitem(web.FILES, name, hashlib.sha256(name.encode()).hexdigest())
    return folder


def without_network(path):
    """``write`` a job that has no network, as far as it gets."""
    path.mkdir(exist_ok=True)
    web.write(Job(None, None, META), path)


def fake_npm(folder, monkeypatch, script):
    (folder / 'npm').write_text(f'#!/bin/sh\n{script}\n')
    (folder / 'npm').chmod(0o755)
    monkeypatch.setenv('PATH', f'{folder}:/usr/bin:/bin')


def in_browser_code(tmp_path, cases):
    """Float32 arrays: functions of detector.mjs on images (H, W, 3), each case (name, image, arguments after it)."""
    if not shutil.which('node'):
        pytest.skip('node is not installed')
    described = []
    for i, (name, image, argument) in enumerate(cases):
        file = tmp_path / f'{i}'
        np.dstack([image, np.full(image.shape[:2], 255, np.uint8)]).tofile(file)
        size = dict(width=image.shape[1], height=image.shape[0])
        described.append(dict(size, name=name, file=str(file), argument=argument))
    module = (web.PAGE / 'detector.mjs').as_uri()
    command = ['node', '--input-type=module', '-e', RUN, module, json.dumps(described)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [np.fromfile(tmp_path / f'{i}.out', np.float32) for i in range(len(cases))]


def test_pixels_are_resized_as_in_training(tmp_path):
    """Bit for bit: also one pixel, one row, and half the size, where OpenCV takes the mean of four."""
    rng = np.random.default_rng(0)
    sides = [(1, 1), (1, 7), (9, 1), (3, 5), (64, 96), (64, 95), (211, 333), (640, 427), *rng.integers(2, 300, (8, 2))]
    images = [rng.integers(0, 256, (*side, 3), np.uint8) for side in sides]
    for height, width in ((32, 48), (47, 31)):
        cases = [
            (name, image, [width, height]) for image in images for name in ('resizeAsOpenCV', 'resizeAsTensorFlow')
        ]
        for (name, image, _), result in zip(cases, in_browser_code(tmp_path, cases)):
            of_opencv = name == 'resizeAsOpenCV'
            wanted = cv2.resize(image, (width, height)) if of_opencv else resize_bilinear(image, height, width)
            assert np.array_equal(result.reshape(height, width, 3), wanted.astype(np.float32)), (name, image.shape)


def test_input_is_the_detectors(tmp_path, tiny, demo_images):
    detector = Detector(*tiny)
    metadata = export_metadata(detector, tiny[0], True).to_json()
    cases = [('networkInput', image[..., ::-1], [metadata]) for image in demo_images]
    for result, wanted in zip(in_browser_code(tmp_path, cases), detector.preprocess(demo_images).numpy()):
        assert np.array_equal(result.reshape(wanted.shape), wanted)


@needs_torch(FORMATS['web'].minimum_torch)
def test_the_folder_is_whole_and_refers_to_nothing_else(tiny, tmp_path, runtime):
    pytest.importorskip('onnxscript')
    pytest.importorskip('onnxruntime')
    path = tmp_path / 'a.web'
    detector = Detector(*tiny, fuse=False)
    metadata = export(detector, export_metadata(detector, tiny[0], True), path, 'web')
    assert json.loads((path / 'mixdet.json').read_text())['classes'] == list(metadata.classes)
    run, loaded = load_exported(path)
    assert loaded == metadata and len(run(np.zeros((1, 3, 160, 160), np.float32))) == 3
    named = set()
    for file in [*path.glob('*.html'), *path.glob('*.mjs'), *path.glob('*.css')]:
        text = file.read_text(encoding='utf-8')
        assert not re.search('://(?!localhost:8000)', text)
        assert '@import' not in text and 'url(' not in text
        named |= set(re.findall(r"""(?:src="|href="|from '|new URL\(')(?!data:)([^"']+)["']""", text))
    files = {file.relative_to(path).as_posix() for file in path.rglob('*') if file.is_file()}
    assert {name.removeprefix('./') for name in named} == files - {'index.html'}
    with pytest.raises(UserError, match=r'a\.web exists already'):
        export(detector, metadata, path, 'web')


def test_detections_without_nms_are_refused(tmp_path):
    with pytest.raises(UserError, match='--format web needs NMS in the file; leave out --no-nms'):
        web.write(Job(None, None, META._replace(nms=False)), tmp_path)


def test_another_version_of_the_runtime_is_refused(tmp_path, runtime):
    (name, *_) = web.FILES
    (runtime / name).write_bytes(b'other')
    with pytest.raises(
        UserError, match=rf'{name} is not that of onnxruntime-web [\d.]+; "npm install onnxruntime-web@'
    ):
        without_network(tmp_path / 'a.web')
    (runtime / name).unlink()
    with pytest.raises(UserError, match=rf'onnxruntime-web: {name} is missing; "npm install'):
        without_network(tmp_path / 'b.web')


def test_the_runtime_comes_from_npm(tmp_path, runtime, monkeypatch):
    with tarfile.open(tmp_path / 'package.tgz', 'w:gz') as archive:
        for name in web.FILES:
            entry = tarfile.TarInfo(f'package/dist/{name}')
            entry.size = len(name)
            archive.addfile(entry, io.BytesIO(name.encode()))
    shutil.rmtree(tmp_path / 'node_modules')
    fake_npm(tmp_path, monkeypatch, f'test "$*" = "pack onnxruntime-web@{web.VERSION} --prefer-offline '
             f'--ignore-scripts" && cp {tmp_path}/package.tgz .')  # fmt: skip
    monkeypatch.setattr(web.onnx, 'write', lambda job, path: None)
    without_network(tmp_path / 'a.web')
    assert {file.name: file.read_text() for file in (tmp_path / 'a.web/ort').iterdir()} == {
        name: name for name in web.FILES
    }


def test_without_npm_one_line_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    advice = r'run "npm install onnxruntime-web@[\d.]+", and copy the folder node_modules to here$'
    fake_npm(tmp_path, monkeypatch, 'printf "npm error code ENOTFOUND\nnpm error network\n" >&2; exit 1')
    with pytest.raises(UserError, match=rf'npm pack .*: npm error code ENOTFOUND; where it works, {advice}') as error:
        without_network(tmp_path / 'a.web')
    assert '\n' not in str(error.value)
    monkeypatch.setenv('PATH', str(tmp_path / 'nothing'))
    with pytest.raises(UserError, match=rf'npm, which has onnxruntime-web, is not installed; where it works, {advice}'):
        without_network(tmp_path / 'b.web')
