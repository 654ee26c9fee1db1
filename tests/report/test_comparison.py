import json
import re
import shutil

import pytest
from web_page import Page, check_alone

from mixdet.errors import UserError
from mixdet.report.comparison import differing_facts, loss_curves, unique_names, write_comparison
from mixdet.report.run import read_training_run

pytestmark = pytest.mark.slow


def test_comparison(work_dir, other, tmp_path):
    runs = [read_training_run(work_dir), read_training_run(other)]
    text = write_comparison(runs, tmp_path / 'both.html').read_text()
    page = Page(text)
    check_alone(page, text)
    assert 'AP IoU .50:.95 0.2800 0.5200' in re.sub(r' +', ' ', page.text['results'])
    assert re.findall(r'class="win">([\d.]+)', text) == ['0.5200'] * 12 + ['0.5000']
    assert 'red <cell> 0.2500 0.5000' in re.sub(r' +', ' ', page.text['classes'])
    assert '1.23 M' in page.text['card'] and 'abcdef' in page.text['card']


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
    state['card'].update(seed=8, latency_ms=12.2)
    (other / 'report/run.json').write_text(json.dumps(state))
    assert differing_facts([read_training_run(work_dir), read_training_run(other)]) == [
        ('parameters', ['1.23 M', '1.23 M']), ('MACs', ['0.765 G', '0.765 G']),
        ('latency', [f'{ms} ms (quartiles 12.0 and 13.0, 30 runs), CPU time 12.2 ms' for ms in (12.3, 12.2)]),
        ('seed', ['7', '8']),
    ]  # fmt: skip
    (other / 'report/run.json').unlink()
    facts = dict(differing_facts([read_training_run(work_dir), read_training_run(other)]))
    assert facts['latency'][0].startswith('12.3 ms (') and facts['latency'][1] == '-'
    assert facts['input'] == ['320x256', '-'] and facts['started from'] == ['scratch', 'not recorded']


def test_runs_that_differ_in_their_start_are_told_apart(work_dir, other):
    shutil.copytree(work_dir / 'report', other / 'report')
    state = json.loads((other / 'report/run.json').read_text())
    state['card']['start'] = [dict(part='backbone', file='imagenet.pth', source='tf.npz', kind='mobilenetv2')]
    (other / 'report/run.json').write_text(json.dumps(state))
    facts = dict(differing_facts([read_training_run(work_dir), read_training_run(other)]))
    assert facts['started from'] == ['scratch', 'backbone: imagenet.pth (converted from tf.npz, as mobilenetv2)']


def test_losses_of_different_kinds_have_figures_of_their_own(work_dir, other):
    runs = [read_training_run(work_dir), read_training_run(other)]
    runs[1].state = json.loads(json.dumps(runs[0].state))
    colors = dict(a='#111111', b='#222222')
    (title, figure), *more = loss_curves(runs, ['a', 'b'], colors).values()
    assert (
        title == 'Loss' and not more and [line.get_color() for line in figure.axes[0].lines] == ['#111111', '#222222']
    )
    runs[1].card['losses']['bbox_head.loss_cls'] = 'CrossEntropyLoss x 1.0'  # the same names, but not the same numbers
    runs[1].card['model'] = 'RetinaNet'
    both = loss_curves(runs, ['a', 'b'], colors)
    assert list(both) == ['loss', 'loss_2']
    assert [title for title, _ in both.values()] == ['Loss of SSDLite: bbox, cls', 'Loss of RetinaNet: bbox, cls']
    assert [figure.axes[0].lines[0].get_color() for _, figure in both.values()] == ['#111111', '#222222']
    for record in runs[1].train:
        record['loss_mask'] = 1.0
    assert 'mask' in loss_curves(runs, ['a', 'b'], colors)['loss_2'][0]


def test_epochs_and_iterations_on_one_axis(work_dir, other, tmp_path):
    runs = [read_training_run(work_dir), read_training_run(other)]
    assert runs[0].iterations([1, 3]) == [10, 30]  # of 30 in 3 epochs
    assert runs[1].iterations([1, 2]) == [10, 20]  # from its log
    runs[1].state['by_epoch'] = False
    assert runs[1].iterations([7]) == [7]
    text = write_comparison(runs, tmp_path / 'both.html').read_text()
    assert text.count('>iteration<') == 2 and '>epoch<' not in text  # of AP and of the loss
