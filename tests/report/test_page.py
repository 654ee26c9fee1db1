import json
import re

import pytest
from web_page import Page, check_alone

from mixdet.errors import UserError
from mixdet.evaluation.numbers import STATS
from mixdet.report.detail_files import write_details
from mixdet.report.page import best_checkpoint, commands, write_report
from mixdet.report.run import read_training_run

pytestmark = pytest.mark.slow


def test_the_page_is_complete_and_needs_no_other_file(work_dir):
    path = write_report(work_dir)
    assert path == work_dir / 'report.html'
    text = path.read_text()
    page = Page(text)
    check_alone(page, text)
    sections = {'curves', 'results', 'classes', 'precision', 'confusion', 'pictures', 'data', 'card', 'use'}
    assert sections <= set(page.text)
    figures = ('loss', 'ap', 'lr', 'precision_recall', 'iou', 'confusion', 'data-classes', 'data-sizes')
    assert {f'figure-{name}' for name in figures} <= set(page.ids)
    files = [work_dir / f'report/{name.replace("-", "_")}.png' for name in figures]
    assert all(path.read_bytes()[:4] == b'\x89PNG' for path in files)
    assert (work_dir / 'results.csv').is_file()


def test_the_numbers_are_the_runs(work_dir):
    text = write_report(work_dir).read_text()
    page = Page(text)
    shown = dict(re.findall(r'data-number="([^"]+)">([^<]+)<', text))
    assert shown == {f'bbox_{name}': '0.2800' for name in STATS}
    classes = page.text['classes']
    assert 'red <cell> 3 0.500 0.750 0.250 - 0.500 - 0.600 0.700 0.432' in re.sub(r' +', ' ', classes)
    assert '<cell>' not in text and 'red &lt;cell&gt;' in text
    size = '320\N{MULTIPLICATION SIGN}256'
    for fact in ('SSDLite', 'MixNet', size, '1,234,567', '765,000,000', '12.3 ms', '80 images', 'abcdef', 'SGD'):
        assert fact in page.text['card'], fact
    assert 'epoch 3 of 3' in page.text[''] and '1:02:03' in page.text[''] and 'finished' in page.text['']


def test_pictures_are_in_the_page(work_dir):
    text = write_report(work_dir).read_text()
    page = Page(text)
    pictures = [value for tag, key, value in page.attributes if (tag, key) == ('image', 'href')]
    # two samples, the worst (the image that is gone is left out), the best, and the augmented one
    assert len(pictures) == 2 + 1 + 2 + 1 and all(len(value) > 500 for value in pictures)
    assert page.text['pictures'].count('bad.png') == 3 and '1 missed' in page.text['pictures']
    assert text.count('<em>ground truth</em>') == text.count('<em>detections</em>') == 5
    # a box of 10..40 of 90 px wide and of 60 px high images, labelled by the page itself
    assert re.search(r'style="left:11.11%;top:16.67%;width:33.33%;height:50.00%;--c:#19b98a" title="red &lt;', text)
    assert '<b>red &lt;cell&gt; 0.90</b>' in text


def test_statistics_and_augmented_images_of_the_training_set(work_dir):
    page = Page(write_report(work_dir).read_text())
    data = re.sub(r' +', ' ', page.text['data'])
    assert '80 images, 150 boxes: 1.88 an image, at most 7; 2 images have none; 3 crowd boxes are not trained' in data
    assert 'red <cell> 75 40 10 70 20 51.5 12.5' in data and 'a <b>.png' in data
    assert '80 training images, 150 boxes' in re.sub(r' +', ' ', page.text[''])


def test_what_a_data_set_does_not_give_out_is_said(work_dir):
    change_state(work_dir, data=None, augmented=None, data_missing='KeyError: instances')
    page = Page(write_report(work_dir).read_text())
    assert 'data' not in page.text and 'KeyError: instances' in page.text['card']


def change_state(work_dir, card=None, **values):
    path = work_dir / 'report/run.json'
    state = json.loads(path.read_text())
    state.update({key: value for key, value in values.items() if value is not None})
    for key in (key for key, value in values.items() if value is None):
        del state[key]
    state['card'].update(card or {})
    path.write_text(json.dumps(state))


def test_pictures_of_an_earlier_version_have_their_boxes_drawn_on_them(work_dir):
    path = work_dir / 'report/details.json'
    details = json.loads(path.read_text())
    for records in details['pictures'].values():
        for record in records:
            for key in ('bare', 'size', 'truth', 'detections'):
                del record[key]
    path.write_text(json.dumps(details))
    page = Page(write_report(work_dir).read_text())
    pictures = [value for tag, key, value in page.attributes if (tag, key) == ('img', 'src')]
    assert len(pictures) == 5 and '1 missed' in page.text['pictures']


def test_a_training_that_has_just_begun(work_dir):
    for path in [*work_dir.glob('*/vis_data/scalars.json'), work_dir / 'report/details.json']:
        path.unlink()
    change_state(work_dir, data=None, augmented=None)
    text = write_report(work_dir).read_text()
    page = Page(text)
    check_alone(page, text)
    assert set(page.text) == {'', 'card', 'use'} and 'no validation yet' in page.text['']


def test_a_network_that_could_not_be_run(work_dir):
    path = work_dir / 'report/run.json'
    state = json.loads(path.read_text())
    for key in ('macs', 'latency_ms'):
        del state['card'][key]
    state['card']['not_measured'] = 'RuntimeError: wants two images'
    path.write_text(json.dumps(state))
    page = Page(write_report(work_dir).read_text())
    assert 'wants two images' in page.text['card'] and 'latency' not in page.text['card']


def test_a_training_without_report_hook(work_dir):
    (work_dir / 'report/run.json').unlink()
    (work_dir / 'report/details.json').unlink()
    page = Page(write_report(work_dir).read_text())
    assert set(page.text) == {'', 'curves', 'results', 'card', 'use'} and 'has no model card' in page.text['card']


def test_commands_name_the_best_checkpoint(work_dir, monkeypatch):
    monkeypatch.chdir(work_dir.parent)
    lines = dict(commands(read_training_run('net')))
    assert lines['Evaluate'] == 'python tools/test.py net/net.py net/epoch_3.pth --work-dir net'
    assert lines['Resume the training'] == 'python tools/train.py net/net.py --work-dir net --resume'
    (work_dir / 'best_coco_bbox_mAP_epoch_2.pth').write_bytes(b'')
    assert 'net/best_coco_bbox_mAP_epoch_2.pth --format onnx' in dict(commands(read_training_run('net')))['Export']
    work_dir.rename('my net')
    assert "'my net/net.py'" in dict(commands(read_training_run('my net')))['Evaluate']


def test_masks_stand_beside_boxes(mask_run):
    text = write_report(mask_run).read_text()
    page = Page(text)
    check_alone(page, text)
    shown = dict(re.findall(r'data-number="([^"]+)">([^<]+)<', text))
    boxes, masks = (
        {f'{kind}_{name}': value for name in STATS} for kind, value in (('bbox', '0.2800'), ('segm', '0.1550'))
    )
    assert shown == {**boxes, **masks}
    header = re.sub(r' +', ' ', page.text[''])
    assert '0.280 box AP, epoch 3' in header and '0.155 mask AP, epoch 3' in header
    assert 'Box AP and AR' in page.text['results'] and 'Mask AP and AR' in page.text['results']
    assert {'figure-ap', 'figure-mask_ap'} <= set(page.ids) and (mask_run / 'report/mask_ap.png').is_file()
    classes = re.sub(r' +', ' ', page.text['classes'])
    assert 'at score mask AP' in classes and '0.432 0.457' in classes and '0.432 -' in classes


def test_masks_evaluated_from_the_second_part_on(work_dir, scalars):
    scalars(work_dir, '20260101_000001', 4, 1, 0.1, mask_ap=0.125)  # resumed; the best validation was before
    page = Page(write_report(work_dir).read_text())
    header = re.sub(r' +', ' ', page.text[''])
    assert '0.280 box AP, best epoch 3' in header and '- mask AP, best epoch 3' in header
    assert 'IoU .50:.95 0.1400 0.2800' in re.sub(r' +', ' ', page.text['results'])
    assert 'IoU .50:.95 0.1650 -' in re.sub(r' +', ' ', page.text['results'])


def test_the_best_checkpoint_is_the_latest_best_or_the_last(work_dir):
    run = read_training_run(work_dir)
    assert best_checkpoint(run) == work_dir / 'epoch_3.pth'
    for name in ('best_AP_epoch_9.pth', 'best_AP_epoch_12.pth', 'best_AP_epoch_3.pth'):  # written in any order
        (work_dir / name).write_bytes(b'')
    assert best_checkpoint(run) == work_dir / 'best_AP_epoch_12.pth'
    for path in work_dir.glob('*.pth'):
        path.unlink()
    assert best_checkpoint(run) is None
    for junk in (b'\xff\x00', b'x' * 5000, b''):
        (work_dir / 'last_checkpoint').write_bytes(junk)
        assert best_checkpoint(run) is None
    assert 'CHECKPOINT' in dict(commands(run))['Evaluate']


def test_the_time_of_a_busy_machine_is_no_headline(work_dir):
    change_state(work_dir, dict(latency_ms=3019.0, latency_quartiles_ms=[400.0, 4000.0], latency_cpu_ms=33.0))
    text = write_report(work_dir).read_text()
    page, tiles = Page(text), text[text.index('<div class="tiles">') : text.index('</header>')]
    assert tiles.count('<b>') == 6 and '3019' not in tiles and ' ms' not in tiles
    assert '3019.0 ms (quartiles 400.0 and 4000.0, 30 runs), CPU time 33.0 ms, unsteady' in page.text['card']


def test_the_start_is_in_the_card(work_dir):
    assert 'started from scratch' in re.sub(r' +', ' ', Page(write_report(work_dir).read_text()).text['card'])
    start = [dict(part='backbone', file='a/<b>.pth', sha256='0123456789', source='tf.npz', kind='mobilenetv2')]
    change_state(work_dir, dict(start=start))
    card = Page(write_report(work_dir).read_text()).text['card']
    assert 'backbone: a/ <b>.pth (converted from tf.npz, as mobilenetv2, sha256 01234567)' in card


def test_a_state_file_that_was_cut_off_costs_the_card_alone(work_dir):
    path = work_dir / 'report/run.json'
    path.write_bytes(path.read_bytes()[:200])
    page = Page(write_report(work_dir).read_text())
    assert {'curves', 'results', 'classes', 'pictures', 'card', 'use'} <= set(page.text)
    header = re.sub(r' +', ' ', page.text[''])
    assert 'epoch 3 0:00:03 of training' in header and 'run.json is left out: it is cut off' in header
    assert 'a = 1' in page.text['card'] and '0.2800' in page.text['results']


NAMES = [
    r'$\frac$', '<script>alert(1)</script>', '[/x]', '"><img src=x onerror=alert(1)>', 'a\nb', '_hidden', '\x1b[31m',
    'x' * 300, '\u202egnp.exe', '\N{CJK UNIFIED IDEOGRAPH-72D7}', '{{ 7 * 7 }}', "'; --c: red", '${HOME}$', '\udce9',
]  # fmt: skip


def test_any_names_can_be_shown(work_dir, evaluation_details, image, recwarn):
    """Of classes, the config and image files."""
    details = evaluation_details(NAMES, [image._replace(truth=[box._replace(label=i) for i, box in enumerate(
        image.truth * 6)])])  # fmt: skip
    write_details(details, work_dir / 'report', samples=1)
    path = work_dir / 'report/details.json'
    content = json.loads(path.read_text())
    content['pictures']['samples'][0]['image'] = 'data/\udce9t\udce9 <b>.jpg'
    path.write_text(json.dumps(content))
    data = json.loads((work_dir / 'report/run.json').read_text())['data']
    data['classes'] = [dict(data['classes'][0], name=name) for name in NAMES]
    change_state(work_dir, dict(name='[/] <b>$x$', classes=NAMES), data=data)
    text = write_report(work_dir).read_text(encoding='utf-8')
    page = Page(text)
    check_alone(page, text)
    assert 'alert(1)' in page.text['classes'] and '49' not in page.text['classes']
    assert {tag for tag, _, _ in page.attributes} & {'script', 'b'} == set() and '<img src=x' not in text
    assert not [warning for warning in recwarn if 'glyph' in str(warning.message).lower()]


def test_a_page_of_the_users_stays(work_dir):
    page = work_dir / 'report.html'
    assert write_report(work_dir) == write_report(work_dir) == page
    page.write_text('<html>mine</html>')
    with pytest.raises(UserError, match='report.html is there already and not a file that mixdet wrote; move it'):
        write_report(work_dir)
    assert page.read_text() == '<html>mine</html>'


def test_links_out_of_a_strangers_folder_are_not_followed(work_dir, tmp_path):
    """Neither is what they name shown in the page, nor is it written to."""
    secret = tmp_path / 'secret'
    secret.write_text('a secret')
    for config in work_dir.glob('*.py'):
        config.unlink()
    (work_dir / 'a.py').symlink_to(secret)
    state = work_dir / 'report/run.json'
    content = json.loads(state.read_text())
    content['card'].pop('config', None)
    state.write_text(json.dumps(content))
    (work_dir / 'report/loss.png').unlink(missing_ok=True)
    (work_dir / 'report/loss.png').symlink_to(secret)
    assert 'a secret' not in write_report(work_dir).read_text() and secret.read_text() == 'a secret'
    (work_dir / 'report').rename(tmp_path / 'elsewhere')
    (work_dir / 'report').symlink_to(tmp_path / 'elsewhere')
    with pytest.raises(UserError, match='report is a link to another folder; remove it'):
        write_report(work_dir)
