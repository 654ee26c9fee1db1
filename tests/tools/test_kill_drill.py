from helpers import run_tool


def test_killed_trainings_end_as_the_one_that_was_not(tmp_path):
    done = run_tool('analysis_tools/kill_drill.py', '--kills', 3, '--work-dir', tmp_path / 'kills', cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count('\nkill ') == 3
    assert 'damaged checkpoints: 0' in done.stdout and done.stdout.strip().endswith('trainings that differ: 0')
