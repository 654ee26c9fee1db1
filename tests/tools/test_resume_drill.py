import pytest
from helpers import run_tool

pytestmark = pytest.mark.slow


def test_copies_are_resumed_from_their_newest_checkpoint(tmp_path):
    done = run_tool('analysis_tools/resume_drill.py', '--copies', 6, '--work-dir', tmp_path / 'drill', cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.strip().endswith('6 of 6 copies resumed from the newest checkpoint that is whole and finite')
    assert not list(tmp_path.glob('drill/copies/*'))
