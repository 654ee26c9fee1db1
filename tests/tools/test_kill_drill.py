from helpers import run_tool


def test_killed_trainings_end_as_an_uninterrupted_one(tmp_path):
    arguments = ['--kills', 3, '--epochs', 4, '--work-dir', tmp_path / 'kills']
    done = run_tool('analysis_tools/kill_drill.py', *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count('\nkill ') == 3
    assert 'damaged checkpoints: 0' in done.stdout and done.stdout.strip().endswith('trainings that differ: 0')
