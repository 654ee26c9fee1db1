"""The page of ``tools/export.py --format web`` in Chromium, which finds what ONNX Runtime finds in Python."""

import contextlib
import functools
import http.server
import shutil
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers import coco_checkpoint, run_tool, shared_path

from mixdet import Detector
from mixdet.deploy.images import read_image
from mixdet.deploy.parity import compare_detections, detection_arrays

pytestmark = pytest.mark.slow

NAMES = ('000000000139', '000000000802', '000000018575')
PATIENCE = 120_000  # ms
OPTIONS = (
    '--no-sandbox',  # Chromium has none for root
    '--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1',  # no network but this server
    '--use-fake-device-for-media-stream',
    '--use-fake-ui-for-media-stream',
)
VALUES = """
card => [...card.querySelectorAll('tbody tr')].map(
  row => [row.querySelector('th').textContent, ...[...row.querySelectorAll('data')].map(one => Number(one.value))])
"""


class Handler(http.server.SimpleHTTPRequestHandler):
    """What ``python -m http.server`` runs, without its log."""

    def log_message(self, *args):
        pass


@pytest.fixture(scope='module')
def exported(tmp_path_factory):
    """The folder of the page, and a detector that runs the ONNX file in it."""
    sync_api()
    folder = tmp_path_factory.mktemp('web')
    config, checkpoint = coco_checkpoint(folder, size=300)
    done = run_tool('export.py', config, checkpoint, '--format', 'web', '--out', 'coco.web', cwd=folder)
    if 'npm' in done.stderr:
        pytest.skip(done.stderr)
    assert done.returncode == 0, done.stderr
    return folder / 'coco.web', Detector(config, folder / 'coco.web')


@pytest.fixture(scope='module')
def address(exported):
    handler = functools.partial(Handler, directory=str(exported[0]))
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f'http://127.0.0.1:{server.server_port}/'
        server.shutdown()


@pytest.fixture(scope='module')
def browser():
    with sync_api().sync_playwright() as playwright:
        chromium = shutil.which('chromium') or playwright.chromium.executable_path
        if not Path(chromium).exists():
            pytest.skip('Chromium is not installed')
        with contextlib.closing(playwright.chromium.launch(executable_path=chromium, args=OPTIONS)) as browser:
            yield browser


@pytest.fixture
def page(browser, address):
    """The page, once its detector is ready and from then on without any network."""
    with contextlib.closing(browser.new_context(viewport=dict(width=390, height=844))) as context:
        page, errors = context.new_page(), []
        page.on('request', lambda request: errors.append(request.url) if address not in request.url else None)
        page.on('pageerror', lambda error: errors.append(str(error)))
        page.on('console', lambda message: errors.append(message.text) if message.type == 'error' else None)
        page.goto(address)
        status(page, 'Ready.')
        context.set_offline(True)
        yield page
        assert errors == []


def sync_api():
    return pytest.importorskip('playwright.sync_api')


def status(page, text):
    sync_api().expect(page.locator('#status')).to_have_text(text, timeout=PATIENCE)


def look_at(page, *paths):
    page.set_input_files('#files', paths)
    status(page, 'Done.')
    return page.locator('#results article').all()


def found_in(card, classes):
    """Boxes, scores and labels in the table of a card."""
    rows = card.evaluate(VALUES)
    return (
        np.array([row[2:] for row in rows]).reshape(-1, 4),
        np.array([row[1] for row in rows]),
        np.array([classes.index(row[0]) for row in rows]),
    )


def test_detections_are_those_of_onnx_runtime(exported, page, tmp_path):
    """On PNG files: decoders of JPEG differ."""
    _, detector = exported
    images, files = [], []
    for name in NAMES:
        images.append(cv2.imread(str(shared_path('data', 'coco-mini', 'val2017') / f'{name}.jpg')))
        files.append(tmp_path / f'{name}.png')
        cv2.imwrite(str(files[-1]), images[-1])
    page.locator('#score').fill('0.05')
    cards = look_at(page, *files)
    assert [card.locator('h2').inner_text() for card in cards] == [file.name for file in files]
    for card, image in zip(cards, images):
        assert f'{image.shape[1]} \xd7 {image.shape[0]} px' in card.inner_text()
    found = [found_in(card, detector.classes) for card in cards]
    wanted = [detection_arrays(detector.predict_samples([image])[0]) for image in images]
    difference = compare_detections(wanted, found)
    assert difference.detections > 30 and difference.unmatched == 0
    assert difference.scores < 1e-3 and difference.boxes < 0.05, difference


def test_a_rotated_photo(exported, page, tmp_path):
    """Its boxes are in px of the upright picture; decoders of JPEG differ by a grey level here and there."""
    from PIL import Image

    _, detector = exported
    photo = Image.open(shared_path('data', 'coco-mini', 'val2017') / f'{NAMES[1]}.jpg')
    exif = Image.Exif()
    exif[0x0112] = 6
    photo.rotate(90, expand=True).save(tmp_path / 'photo.jpg', quality=95, exif=exif)
    (card,) = look_at(page, tmp_path / 'photo.jpg')
    assert f'{photo.width} \xd7 {photo.height} px' in card.inner_text()
    wanted = detection_arrays(detector.predict_samples([read_image(tmp_path / 'photo.jpg')])[0])
    difference = compare_detections([wanted], [found_in(card, detector.classes)], score_thr=0.3)
    assert difference.detections > 1 and difference.unmatched == 0
    assert difference.scores < 0.02 and difference.boxes < 1


def test_score_keyboard_and_removal(page):
    (card,) = look_at(page, shared_path('data', 'coco-mini', 'val2017') / f'{NAMES[0]}.jpg')
    boxes = card.locator('.picture i')
    before = boxes.count()
    page.locator('#score').focus()
    for _ in range(10):
        page.keyboard.press('ArrowRight')
    assert page.locator('#score-shown').inner_text() == '0.40' and 0 < boxes.count() < before
    assert boxes.count() == card.locator('tbody tr').count()
    page.locator('#score').fill('0.95')
    assert boxes.count() == 0 and 'no object' in card.inner_text()
    assert card.locator('img').get_attribute('alt') == f'{NAMES[0]}.jpg: no object'
    assert page.evaluate('() => document.documentElement.scrollWidth') <= 390
    page.keyboard.press('Tab')  # past the summary, which is not shown, to the button
    page.keyboard.press('Enter')
    assert page.locator('article').count() == 0


def test_a_file_that_is_no_picture(page, tmp_path):
    (tmp_path / 'a.png').write_bytes(b'text')
    (card,) = look_at(page, tmp_path / 'a.png')
    assert 'This browser cannot read it as a picture.' in card.inner_text()


def test_the_camera(page):
    page.get_by_role('button', name='Use the camera').click()
    sync_api().expect(page.locator('#live .facts')).to_contain_text('640 \xd7 480 px', timeout=PATIENCE)
    page.get_by_role('button', name='Stop the camera').click()
    status(page, 'The camera is off.')
    assert not page.locator('#live').is_visible()
