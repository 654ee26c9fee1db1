"""No tool writes over a file that is not its own, nor through a link."""

import pytest
from helpers import ROOT, run_tool

pytestmark = pytest.mark.slow

CONFIG = ROOT / 'configs/demo/ssdlite_mixnet-s_1xb8-12e_demo.py'
COMMANDS = {
    'fixed.json': ('check_dataset.py', 'ann.json', '--fix'),
    'weights.pth': ('convert_weights.py', 'source.npz', '--as', 'mobilenetv1'),
    'model.onnx': ('export.py', CONFIG, 'gone.pth', '--out'),
    'swapped.py': ('swap_backbone.py', CONFIG, '--backbone', 'mixnet-s'),
    'found.pkl': ('test.py', CONFIG, 'gone.pth', '--out'),
    'data.json': ('benchmark_data.py', CONFIG, '--out'),
    'exported.md': ('analysis_tools/compare_exported.py', CONFIG, 'gone.pth', 'gone.onnx', '--out'),
    'times.md': ('analysis_tools/benchmark.py', CONFIG, '--out'),
    'times.png': ('analysis_tools/benchmark_mixconv.py', '--plot'),
    'survey.md': ('analysis_tools/swap_survey.py', 'survey.jsonl', '--only', 'ssd/*', '--markdown'),
    'mobilenetv2_figure4.png': ('analysis_tools/kernel_explorer.py', '--out', '.'),
    'verdicts.json': ('analysis_tools/mutate.py', '--out'),
    'table1.md': ('table1.py', '--rounds', 0, '--work-dir', '.'),
    'table1.png': ('table1.py', '--rounds', 0, '--work-dir', '.'),
}
IN_FOLDER = ('mobilenetv2_figure4.png', 'table1.md', 'table1.png')  # the tool is given the folder


@pytest.mark.parametrize('link', [False, True])
@pytest.mark.parametrize('name', COMMANDS)
def test_what_is_there_stays(tmp_path, name, link):
    tool, *arguments = COMMANDS[name]
    if link:
        (tmp_path / name).symlink_to(tmp_path / 'gone')
    else:
        (tmp_path / name).write_text('mine')
    done = run_tool(tool, *arguments, *([] if name in IN_FOLDER else [name]), cwd=tmp_path)
    assert done.returncode == 2 and f'{name} ' in done.stderr and 'already' in done.stderr, done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert (tmp_path / name).is_symlink() if link else (tmp_path / name).read_text() == 'mine'
    assert not (tmp_path / 'gone').exists()
