import pytest
from helpers import ROOT, run_tool
from mmengine.config import Config

from mixdet.backbones.variants import variants

pytestmark = pytest.mark.slow


def test_configs_of_a_figure(tmp_path):
    done = run_tool('ablation_configs.py', 'out', '--figure', '5', cwd=tmp_path)
    assert done.returncode == 0 and done.stdout == 'wrote 35 configs to out\n', done.stderr
    name = 'ssdlite_mobilenetv2-layer9-mixconv3579_8xb24-600e_coco.py'
    # the base of an installed mixdet, or of this checkout
    text = (tmp_path / 'out' / name).read_text().replace("'mixdet::", f"'{ROOT}/configs/")
    (tmp_path / 'out' / name).write_text(text)
    cfg = Config.fromfile(tmp_path / 'out' / name)
    assert cfg.model.backbone.layer_kernel_sizes == {9: (3, 5, 7, 9)} and cfg.model.backbone.kernel_sizes == 3
    assert len(list((tmp_path / 'out').glob('*.py'))) == len(variants('mobilenetv2', 5))
    done = run_tool('ablation_configs.py', 'out', '--figure', '5', cwd=tmp_path)  # that file has been changed
    assert done.returncode == 2 and 'already exists with other contents' in done.stderr
    assert (tmp_path / 'out' / name).read_text() == text


def test_explorer(tmp_path):
    pytest.importorskip('matplotlib')
    (tmp_path / 'ap.json').write_text('{"mixconv35": 0.221}')
    arguments = ('--figure', '6', '--size', '32', '--rounds', '1', '--results', 'ap.json', '--out', 'plots')
    done = run_tool('analysis_tools/kernel_explorer.py', *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert 'mixconv357-dilated' in done.stdout and '0.221' in done.stdout
    assert {path.name for path in (tmp_path / 'plots').iterdir()} == {
        'mobilenetv2_figure6.csv', 'mobilenetv2_figure6.png'
    }  # fmt: skip


def test_explorer_with_arguments_out_of_range(tmp_path):
    for arguments in (['--rounds', -1], ['--size', 0]):
        done = run_tool('analysis_tools/kernel_explorer.py', *arguments, cwd=tmp_path)
        assert done.returncode == 2 and done.stderr == 'error: --size must be at least 1, --rounds at least 0\n'


def test_explorer_with_a_broken_result_file(tmp_path):
    (tmp_path / 'ap.json').write_text('[1]')
    done = run_tool('analysis_tools/kernel_explorer.py', '--results', 'ap.json', cwd=tmp_path)
    assert done.returncode == 2 and done.stderr.startswith('error: --results ap.json: must be a JSON file')
