import pytest

from mixdet.datasets.issues import ANY, ERROR, EVALUATION, ISSUE_KINDS, NOTE, TRAINING, WARNING, Issue, IssueLog


def test_every_kind_says_what_happens_and_what_can_be_done():
    for name, kind in ISSUE_KINDS.items():
        assert kind.severity in (ERROR, WARNING, NOTE) and kind.effect and kind.fix, name
        assert kind.evaluation_severity in ('', ERROR, WARNING, NOTE), name


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


@pytest.mark.parametrize(
    ('kind', 'role', 'severity', 'effect'),
    [
        ('category without boxes', TRAINING, NOTE, 'the class is never trained'),
        ('category without boxes', EVALUATION, NOTE, 'the class gets no AP'),
        ('category without boxes', ANY, NOTE, 'the class is never trained'),
        ('image id not an integer', TRAINING, WARNING, 'the image is trained; an evaluation needs integers'),
        ('image id not an integer', EVALUATION, ERROR, 'the evaluation fails'),
        ('image id not an integer', ANY, ERROR, 'the evaluation fails'),
        ('no usable box', TRAINING, ERROR, 'a training on it would learn nothing'),
        ('no usable box', EVALUATION, WARNING, 'no box is evaluated: every number will be -'),
        ('no usable box', ANY, ERROR, 'a training on it would learn nothing'),
    ],
)
def test_severity_and_effect_are_those_of_what_the_file_is_for(kind, role, severity, effect):
    log = IssueLog('a.json', role)
    log.add(kind, 'x')
    (issue,) = log.issues
    assert (issue.severity, issue.effect) == (severity, effect) and list(log.of(severity)) == [issue]


def test_nothing_is_said_of_training_about_an_evaluation():
    for name in ISSUE_KINDS:
        assert 'train' not in Issue(name, 'x', '', EVALUATION).effect, name


def test_the_summary_counts_what_the_file_is_for():
    log = IssueLog('a.json', EVALUATION)
    log.boxes, log.trained, log.evaluated = 5, 3, 4
    assert log.summary() == 'a.json: 4 of 5 boxes are evaluated, 1 are left out'
    log.role, log.crowds = TRAINING, 1
    assert log.summary() == 'a.json: 3 of 5 boxes are trained, 1 are crowds, which are ignored, 1 are left out'
