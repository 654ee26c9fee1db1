import pytest

from mixdet.errors import check_fraction, first_line


@pytest.mark.parametrize(
    ('error', 'line'),
    [
        (ValueError('kernel size 4 is even'), 'kernel size 4 is even'),
        (RuntimeError('\n  shapes differ\nat line 3'), 'shapes differ'),
        (MemoryError(), 'MemoryError'),
        (RuntimeError(' \n'), 'RuntimeError'),
    ],
)
def test_the_first_line_of_an_error(error, line):
    assert first_line(error) == line


def test_fractions():
    assert check_fraction('a', 0) == 0 and check_fraction('a', 1.0) == 1
    for value in (-0.1, 1.1, 30, float('nan')):
        with pytest.raises(ValueError, match='a=.*: must be from 0 to 1'):
            check_fraction('a', value)
