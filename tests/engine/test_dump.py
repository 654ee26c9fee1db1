import pickle

import pytest
from helpers import little_room

from mixdet.engine.dump import DumpPredictions


def test_a_new_file_or_a_reason(tmp_path, capsys):
    metric = DumpPredictions(str(tmp_path / 'out.pkl'))
    assert metric.compute_metrics([dict(score=0.5)]) == {} and metric.failure is None
    assert pickle.loads((tmp_path / 'out.pkl').read_bytes()) == [dict(score=0.5)]
    assert f'Predictions: {tmp_path}/out.pkl\n' in capsys.readouterr().out
    assert metric.compute_metrics([]) == {} and 'out.pkl exists already' in str(metric.failure)
    assert len(pickle.loads((tmp_path / 'out.pkl').read_bytes())) == 1


@pytest.mark.parametrize('room', [0, 500])
def test_a_full_disk(tmp_path, room):
    metric = DumpPredictions(str(tmp_path / 'out.pkl'))
    with little_room(room):
        assert metric.compute_metrics(['x' * 10_000]) == {}
    assert 'out.pkl cannot be written: File too large' in str(metric.failure) and not list(tmp_path.iterdir())
