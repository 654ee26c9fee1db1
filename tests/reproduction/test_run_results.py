import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from study_examples import result

from mixdet.errors import UserError
from mixdet.reproduction.run_results import (
    json_text,
    read_choices,
    read_run_result,
    read_run_results,
    thinned,
    versions,
    write_run_result,
)


def test_a_result_comes_back(tmp_path):
    one = result('mobilenetv2-mixconv35', seed=1, ap=0.25)
    write_run_result(one, tmp_path / 'neu-det/a.json')
    assert read_run_result(tmp_path / 'neu-det/a.json') == one and one.ap == 0.25
    assert len((tmp_path / 'neu-det/a.json').read_text().splitlines()) == 23


def test_all_results_of_a_folder_without_the_choices(tmp_path):
    for name in ('b', 'a'):
        write_run_result(result(name), tmp_path / f'neu-det/{name}.json')
    (tmp_path / 'choices').mkdir()
    choice = dict(family='f', chosen=dict(lr=1), tried=[])
    (tmp_path / 'choices/f.json').write_text(json_text(choice))
    assert [one.row for one in read_run_results(tmp_path)] == ['a', 'b'] and read_choices(tmp_path) == [choice]
    assert read_run_results(tmp_path / 'gone') == [] and read_choices(tmp_path / 'gone') == []


@pytest.mark.parametrize('text', ['{', '[]', '{"row": 1}', '{"stats": {}}', ''])
def test_another_file(tmp_path, text):
    (tmp_path / 'a.json').write_text(text)
    with pytest.raises(UserError, match=r'a.json .*; remove it$'):
        read_run_result(tmp_path / 'a.json')


def test_a_result_without_ap(tmp_path):
    content = json.loads(json_text(dict(vars(result('a')), stats=dict(mAP_50=1))))
    (tmp_path / 'a.json').write_text(json.dumps(content))
    with pytest.raises(UserError, match='is not a result of tools/study.py'):
        read_run_result(tmp_path / 'a.json')


@given(st.lists(st.floats(0.001, 100), max_size=200), st.integers(1, 50))
def test_thinned_curves_keep_the_mean(values, points):
    curve = thinned(values, points)
    assert len(curve) == min(points, len(values))
    ends = [0, *(end for end, _ in curve)]
    assert ends == sorted(set(ends)) and ends[-1] == len(values)
    total = sum(mean * (end - start) for start, (end, mean) in zip(ends, curve))
    assert total == pytest.approx(sum(values), rel=1e-3)


def test_versions_name_what_a_result_depends_on():
    assert set(versions()) == {'mixdet', 'mmdet', 'mmengine', 'torch', 'python'} and all(versions().values())
