import pytest

from mixdet.datasets.issues import ERROR, ISSUE_KINDS, NOTE, WARNING, Issue, IssueLog


def test_every_kind_says_what_happens_and_what_can_be_done():
    for name, kind in ISSUE_KINDS.items():
        assert kind.severity in (ERROR, WARNING, NOTE) and kind.effect and kind.fix, name


def test_a_log_counts():
    log = IssueLog('a.json')
    assert (log.file, log.issues, log.images, log.boxes, log.trained, log.left_out) == ('a.json', [], 0, 0, 0, 0)
    log.boxes, log.trained = 5, 3
    log.add('crowd', 'annotation 1')
    log.add('missing box', 'annotation 2')
    log.add('missing box', 'annotation 3')
    assert log.counts() == {'missing box': 2, 'crowd': 1} and log.left_out == 2
    assert [issue.where for issue in log.of(ERROR)] == ['annotation 2', 'annotation 3']
    with pytest.raises(KeyError):
        log.add('no such kind', 'x')


def test_an_issue_is_one_line():
    issue = Issue('zero box size', 'annotation 4', 'bbox=[1, 1, 0, 2]')
    assert str(issue) == 'annotation 4: zero box size, bbox=[1, 1, 0, 2]; the box is left out'
