import pytest

from mixdet.errors import first_line


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
