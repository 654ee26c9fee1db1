import pytest
from helpers import needs_torch, run_tool

pytestmark = pytest.mark.slow


@needs_torch('2.6')
def test_hostile_files_do_no_harm(tmp_path):
    """A few kinds; it fails by itself if the command in its pickles would not run even if it were trusted."""
    kinds = ('pickle.pth', 'view.pth', 'map.pbtxt', 'training')
    done = run_tool('analysis_tools/foreign_files_drill.py', '--kinds', *kinds, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert len([line for line in lines if line.startswith('held')]) == 8 + 8 + 1 + 1
    assert lines[-1].startswith('18 doors, 4 kinds of file; did harm: 0; most memory: ')
