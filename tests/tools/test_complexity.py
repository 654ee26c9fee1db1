import pytest
from helpers import ROOT, run_tool

pytestmark = pytest.mark.slow

CONFIG = ROOT / 'configs/ssdlite_mobilenetv2/ssdlite_mobilenetv2-mixconv357_8xb24-600e_coco.py'


@pytest.mark.parametrize(('convention', 'line'), [
    ('real', 'params 4.4702 M   MACs 0.8756 G   (real, 320x320)'),
    ('paper', 'params 4.4875 M   MACs 0.8815 G   (paper, 320x320)'),
])  # fmt: skip
def test_complexity(tmp_path, convention, line):
    done = run_tool('analysis_tools/complexity.py', CONFIG, '--convention', convention, '--by-layer', cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == line
    assert 'backbone.stages.3.0.depthwise.conv.convs.2' in done.stdout
    assert ('bbox_head.reg_convs.0.1' in done.stdout) == (convention == 'real')


def test_complexity_of_an_empty_image(tmp_path):
    done = run_tool('analysis_tools/complexity.py', CONFIG, '--shape', 0, 320, cwd=tmp_path)
    assert done.returncode == 2 and done.stderr == 'error: --shape must be at least 1 px\n'


def test_complexity_of_a_broken_config(tmp_path):
    (tmp_path / 'c.py').write_text("model = dict(type='mixdet.MixNet', arch='q')\n")
    done = run_tool('analysis_tools/complexity.py', 'c.py', cwd=tmp_path)
    assert done.returncode == 2 and done.stderr.startswith("error: c.py: arch='q'")
