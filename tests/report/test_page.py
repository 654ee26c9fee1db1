import json
import os
import re
import shutil
from html.parser import HTMLParser

import pytest

from mixdet.errors import UserError
from mixdet.evaluation.numbers import STATS
from mixdet.report.detail_files import write_details
from mixdet.report.page import (
    best_checkpoint,
    breakable,
    commands,
    differing_facts,
    format_boxes,
    format_count,
    format_duration,
    unique_names,
    write_comparison,
    write_report,
)
from mixdet.report.run import read_training_run

pytestmark = pytest.mark.slow

VOID = {'meta', 'img', 'br', 'link', 'input'}


class Page(HTMLParser):
    """Text by section, attributes by tag, and whether every tag is closed in its turn."""

    def __init__(self, text):
        super().__init__()
        self.open, self.text, self.attributes, self.ids = [], {}, [], []
        self.section = ''
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        if tag not in VOID:
            self.open.append(tag)
        self.attributes += [(tag, key, value) for key, value in attrs]
        self.ids += [value for key, value in attrs if key == 'id']
        if tag == 'section':
            self.section = dict(attrs)['id']

    def handle_startendtag(self, tag, attrs):
        self.attributes += [(tag, key, value) for key, value in attrs]
        self.ids += [value for key, value in attrs if key == 'id']

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, (tag, self.getpos())

    def handle_data(self, data):
        self.text[self.section] = self.text.get(self.section, '') + f' {" ".join(data.split())}'


def check_alone(page, text):
    """Nothing is fetched: whatever the page refers to is in it."""
    for tag, key, value in page.attributes:
        if key in ('src', 'href', 'xlink:href', 'data', 'poster', 'srcset', 'action'):
            assert value.startswith(('#', 'data:')), (tag, key, value[:80])
            if value.startswith('#'):
                assert value[1:] in page.ids
        elif not key.startswith('xmlns'):
            assert '//' not in (value or '') or key in ('alt', 'title'), (tag, key, value[:80])
    assert '@import' not in text and not re.search(r'url\((?!#)', text)
    assert 'link' not in {tag for tag, _, _ in page.attributes}
    scripts = re.findall(r'<script>(.*?)</script>', text, re.DOTALL)
    assert len(scripts) == 1 and 'http' not in scripts[0] and 'fetch' not in scripts[0]


def test_the_page_is_complete_and_needs_no_other_file(work_dir):
    path = write_report(work_dir)
    assert path == work_dir / 'report.html'
    text = path.read_text()
    page = Page(text)
    check_alone(page, text)
    assert {'curves', 'results', 'classes', 'precision', 'confusion', 'pictures', 'card', 'use'} <= set(page.text)
    figures = ('loss', 'ap', 'lr', 'precision_recall', 'iou', 'confusion')
    assert {f'figure-{name}' for name in figures} <= set(page.ids) and text.count('<svg') == len(figures)
    assert all((work_dir / f'report/{name}.png').read_bytes()[:4] == b'\x89PNG' for name in figures)
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
    pictures = [value for tag, key, value in page.attributes if (tag, key) == ('img', 'src')]
    # two samples, the worst (the image that is gone is left out), and the best
    assert len(pictures) == 2 + 1 + 2 and all(len(value) > 1000 for value in pictures)
    assert page.text['pictures'].count('bad.png') == 3 and '1 missed' in page.text['pictures']


def test_a_training_that_has_just_begun(work_dir):
    for path in [*work_dir.glob('*/vis_data/scalars.json'), work_dir / 'report/details.json']:
        path.unlink()
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


@pytest.fixture
def other(work_dir, scalars):
    other = work_dir.with_name('other')
    scalars(other, '20260101_000000', 1, 2, 0.5)
    return other


def test_comparison(work_dir, other, tmp_path):
    runs = [read_training_run(work_dir), read_training_run(other)]
    text = write_comparison(runs, tmp_path / 'both.html').read_text()
    page = Page(text)
    check_alone(page, text)
    assert 'AP IoU .50:.95 0.2800 0.5200' in re.sub(r' +', ' ', page.text['results'])
    assert re.findall(r'class="win">([\d.]+)', text) == ['0.5200'] * 12 + ['0.5000']
    assert 'red <cell> 0.2500 0.5000' in re.sub(r' +', ' ', page.text['classes'])
    assert '1.23 M' in page.text['card'] and 'abcdef' in page.text['card']


@pytest.fixture
def mask_run(work_dir, details, scalars):
    """The training of ``work_dir`` with masks."""
    scalars(work_dir, '20260101_000000', 1, 3, 0.25, mask_ap=0.125)
    for row, ap in zip(details.classes, (0.4567, -1.0)):
        row['mask_AP'] = ap
    write_details(details, work_dir / 'report')
    return work_dir


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


def test_comparison_with_and_without_masks(mask_run, other, tmp_path):
    runs = [read_training_run(mask_run), read_training_run(other)]
    text = write_comparison(runs, tmp_path / 'both.html').read_text()
    page = Page(text)
    check_alone(page, text)
    assert {'figure-ap', 'figure-mask_ap', 'figure-loss'} <= set(page.ids)
    results, classes = (re.sub(r' +', ' ', page.text[section]) for section in ('results', 'classes'))
    assert (
        'box AP and AR AP IoU .50:.95 0.2800 0.5200' in results and 'mask AP and AR AP IoU .50:.95 0.1550 -' in results
    )
    assert 'red <cell> 0.2500 0.5000' in classes and 'red <cell> 0.1250 -' in classes


def test_names_tell_runs_apart(work_dir, other):
    run, second = read_training_run(work_dir), read_training_run(other)
    assert unique_names([run, second]) == ['net', 'other']
    second.name = 'net'
    assert unique_names([run, second]) == ['net', 'other']  # folders
    with pytest.raises(UserError, match='given twice'):
        unique_names([run, run])


def test_names_of_equal_folders_are_told_apart_by_those_above(work_dir, tmp_path):
    for name in ('a', 'b'):
        shutil.copytree(work_dir, tmp_path / name / 'work/net')
    runs = [read_training_run(tmp_path / name / 'work/net') for name in ('a', 'b')]
    assert unique_names(runs) == ['a/work/net', 'b/work/net']


def test_only_sizes_and_differences_of_the_cards_are_compared(work_dir, other):
    shutil.copytree(work_dir / 'report', other / 'report')
    state = json.loads((other / 'report/run.json').read_text())
    state['card'].update(seed=8, latency_ms=2.25)
    (other / 'report/run.json').write_text(json.dumps(state))
    assert differing_facts([read_training_run(work_dir), read_training_run(other)]) == [
        ('parameters', ['1.23 M', '1.23 M']), ('MACs', ['0.765 G', '0.765 G']), ('latency', ['12.3 ms', '2.2 ms']),
        ('seed', ['7', '8']),
    ]  # fmt: skip
    (other / 'report/run.json').unlink()
    facts = dict(differing_facts([read_training_run(work_dir), read_training_run(other)]))
    assert facts['latency'] == ['12.3 ms', '-'] and facts['input'] == ['320x256', '-'] and 'loaded from' not in facts


def test_the_best_checkpoint_is_the_newest_best_or_the_last(work_dir):
    run = read_training_run(work_dir)
    assert best_checkpoint(run) == work_dir / 'epoch_3.pth'
    for i, name in enumerate(['best_a.pth', 'best_c.pth', 'best_b.pth']):
        (work_dir / name).write_bytes(b'')
        os.utime(work_dir / name, (i % 2, i % 2))
    assert best_checkpoint(run) == work_dir / 'best_c.pth'
    for path in work_dir.glob('*.pth'):
        path.unlink()
    assert best_checkpoint(run) is None
    assert 'CHECKPOINT' in dict(commands(run))['Evaluate']


def test_words_for_readers():
    assert [format_boxes(n, 'false alarm') for n in (1, 2)] == ['1 false alarm', '2 false alarms']
    assert format_boxes(1, 'confused') == '1 wrong class' and format_boxes(0, 'missed') == '0 missed'
    assert format_duration(3723.9) == '1:02:03'
    assert str(breakable('data/<set>/a.json')) == 'data/<wbr>&lt;set&gt;/<wbr>a.json'


def test_counts_for_readers():
    counts = [format_count(value) for value in (4_351_234, 788_800_000, None)]
    assert counts == ['4.35 M', '0.789 G', '-']
