import pytest

from mixdet.datasets.issues import ERROR, KINDS, NOTE, WARNING, Fault, Report


def test_every_kind_says_what_happens_and_what_can_be_done():
    for name, kind in KINDS.items():
        assert kind.severity in (ERROR, WARNING, NOTE) and kind.effect and kind.fix, name


def test_a_report_counts():
    report = Report('a.json')
    report.boxes, report.kept = 5, 3
    report.add('crowd', 'annotation 1')
    report.add('box missing', 'annotation 2')
    report.add('box missing', 'annotation 3')
    assert report.counts() == {'box missing': 2, 'crowd': 1} and report.left_out == 2
    assert [fault.where for fault in report.of(ERROR)] == ['annotation 2', 'annotation 3']
    with pytest.raises(KeyError):
        report.add('no such kind', 'x')


def test_a_fault_is_one_line():
    fault = Fault('box of no size', 'annotation 4', 'bbox=[1, 1, 0, 2]')
    assert str(fault) == 'annotation 4: box of no size, bbox=[1, 1, 0, 2]; the box is left out'
