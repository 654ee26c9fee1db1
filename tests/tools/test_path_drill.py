import pytest
from helpers import run_tool

pytestmark = pytest.mark.slow


def test_no_file_changes_and_no_input_is_lost(tmp_path):
    done = run_tool('analysis_tools/path_drill.py', '--paths', 200, '--seed', 1, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout == (
        '200 inputs; files of the user that changed: 0; inputs without a file of their own: 0; '
        'files that another system takes for one: 0\n'
    )
