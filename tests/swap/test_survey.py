import json

import pytest

from mixdet.errors import UserError
from mixdet.swap.survey import Attempt, survey, survey_tables

RETINANET = "_base_ = 'mmdet::_base_/models/retinanet_r50_fpn.py'\nmodel = dict(backbone=dict(depth={depth}))\n{more}"


@pytest.fixture
def folder(tmp_path):
    texts = {
        'a/runs.py': RETINANET.format(depth=18, more='model["neck"] = dict(in_channels=[64, 128, 256, 512])\n'),
        'a/again.py': RETINANET.format(depth=34, more='model["neck"] = dict(in_channels=[64, 128, 256, 512])\n'),
        'a/fails.py': RETINANET.format(
            depth=18, more='model.update(neck=dict(in_channels=[64, 128, 256, 512]), bbox_head=dict(type="NoHead"))\n'
        ),
        'b/refused.py': RETINANET.format(depth=18, more=''),
        'b/broken.py': "_base_ = './nowhere.py'\n",
        'b/schedule.py': 'max_epochs = 12\n',
    }
    for name, text in texts.items():
        (tmp_path / 'configs' / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / 'configs' / name).write_text(text)
    return tmp_path / 'configs'


def test_every_outcome_and_going_on(folder, tmp_path, monkeypatch):
    monkeypatch.setattr('mixdet.swap.isolation.TRIES', ((True, (64, 64)),))
    paths = sorted(folder.rglob('*.py'))
    results = tmp_path / 'r.jsonl'
    attempts = list(survey(folder, paths, 'mixnet-s', results))
    assert {attempt.config: attempt.status for attempt in attempts} == {
        'a/runs.py': 'runs', 'a/again.py': 'runs', 'a/fails.py': 'fails', 'b/refused.py': 'refused',
        'b/broken.py': 'unreadable', 'b/schedule.py': 'no model',
    }  # fmt: skip
    assert str(tmp_path) not in results.read_text()
    assert 'NoHead' in next(attempt.reason for attempt in attempts if attempt.status == 'fails')
    assert [attempt.pyramid for attempt in attempts if attempt.status != 'no model'].count(True) == 4
    lines = results.read_text().splitlines()
    assert [json.loads(line)['config'] for line in lines] == [attempt.config for attempt in attempts]
    monkeypatch.setattr('mixdet.swap.survey._swap', None)  # nothing is tried twice
    assert list(survey(folder, paths, 'mixnet-s', results)) == attempts
    table = survey_tables(attempts)
    assert '| detectors on a pyramid of stride 4-32 | 4 | 2 | 0 | 1 | 1 |' in table
    assert '| a | 3 | 2 | 0 | 1 | 0 |' in table and '- refused, 1: cannot be wired' in table


@pytest.mark.parametrize('content', ['mine\n', '{"mine": 1}\n', '[]\n'])
def test_another_file_is_not_added_to(tmp_path, content):
    (tmp_path / 'r.jsonl').write_text(content)
    with pytest.raises(UserError, match='r.jsonl is not a file of this survey'):
        next(survey(tmp_path, [tmp_path / 'c.py'], 'mixnet-s', tmp_path / 'r.jsonl'))
    assert (tmp_path / 'r.jsonl').read_text() == content


def test_a_classifier_is_no_detector():
    assert Attempt('x', 'runs', strides=(4, 8, 16, 32)).pyramid and Attempt('x', 'runs', strides=(1, 4, 8)).pyramid
    assert not Attempt('x', 'runs', detector='BaseReID', strides=(32,)).pyramid
    assert not Attempt('x', 'runs', strides=(4, 4)).pyramid and not Attempt('x', 'runs').pyramid
