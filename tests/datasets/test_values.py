import pytest

from mixdet.datasets.values import as_id, as_number, is_finite, is_hashable, is_id, is_real, is_segmentation, shorten

NAN, INF = float('nan'), float('inf')


@pytest.mark.parametrize('value', [0, -3, 2**63 - 1])
def test_ids(value):
    assert is_id(value) and as_id(value) == value


@pytest.mark.parametrize(
    ('value', 'expected'),
    [('7', 7), (' -7 ', -7), ('7.0', 7), ('+7.', 7), (7.0, 7), (7.5, None), ('7.5', None), ('a', None), ('', None),
     ('0x7', None), ('1e3', None), (2**63, None), (str(2**63), None), ('9' * 30, None), (NAN, None), (INF, None),
     (True, None), (None, None), ([7], None)],
)  # fmt: skip
def test_ids_that_are_written_in_another_way(value, expected):
    assert as_id(value) == expected and not is_id(value)


@pytest.mark.parametrize(
    ('value', 'expected'),
    [
        ('12', 12),
        (' 1.5 ', 1.5),
        ('2e1', 20),
        ('-.5', -0.5),
        ('nan', 'nan'),
        ('a', 'a'),
        ('', ''),
        (3, 3),
        (None, None),
    ],
)
def test_numbers_that_are_text(value, expected):
    assert as_number(value) == expected and type(as_number(value)) is type(expected)


def test_what_can_be_looked_up():
    assert all(map(is_hashable, (None, 1, 1.5, 'a', True))) and not any(map(is_hashable, ([1], {})))


@pytest.mark.parametrize('value', [None, True, 1.0, [1], {}, 'a', '', 2**63, 10**400])
def test_other_values_are_no_ids(value):
    assert not is_id(value)


@pytest.mark.parametrize(
    ('value', 'real', 'finite'),
    [(0, True, True), (-1.5, True, True), (10**32, True, True), (-(10**33), True, False), (NAN, True, False),
     (-INF, True, False), (True, False, False), ('1', False, False), (None, False, False), ([], False, False)],
)  # fmt: skip
def test_numbers(value, real, finite):
    assert (is_real(value), is_finite(value)) == (real, finite)


TRIANGLE = [1, 2, 3, 4, 5.5, 6]


@pytest.mark.parametrize(
    'value', [[], [TRIANGLE], [TRIANGLE, [*TRIANGLE, 7, 8]], dict(size=[4, 4], counts='a'), dict(size=[], counts=[16])]
)
def test_segmentations(value):
    assert is_segmentation(value)


@pytest.mark.parametrize(
    'value',
    [None, 'a', TRIANGLE, [TRIANGLE[:4]], [[*TRIANGLE, 7]], [[*TRIANGLE[:5], NAN]], [TRIANGLE, 'a'], {},
     dict(size=[4, 4]), dict(counts='a'), dict(size=4, counts='a'), dict(size=[4, 4], counts=4)],
)  # fmt: skip
def test_other_values_are_no_segmentations(value):
    assert not is_segmentation(value)


def test_long_values_are_shortened_to_60_characters():
    assert shorten('a' * 58) == "'" + 'a' * 58 + "'"
    assert shorten('a' * 59) == "'" + 'a' * 56 + '...'
    assert shorten([1, 2]) == '[1, 2]'
