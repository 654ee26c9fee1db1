import pytest

from mixdet.cli.main import TRACEBACK, run_tool, user_input
from mixdet.errors import UserError


def fail(error):
    raise error


def test_bad_input_is_one_line_and_status_2(capsys):
    with pytest.raises(SystemExit) as status:
        run_tool(lambda: fail(UserError('a\nlong   story')))
    assert status.value.code == 2 and capsys.readouterr().err == 'error: a long story\n'


def test_status_of_success_and_interrupt():
    for main, expected in ((lambda: None, 0), (lambda: fail(KeyboardInterrupt()), 130)):
        with pytest.raises(SystemExit) as status:
            run_tool(main)
        assert status.value.code == expected


def test_bugs_keep_their_traceback():
    with pytest.raises(ZeroDivisionError):
        run_tool(lambda: 1 / 0)


def test_traceback_of_bad_input_on_request(monkeypatch):
    monkeypatch.setenv(TRACEBACK, '1')
    with pytest.raises(UserError):
        run_tool(lambda: fail(UserError('x')))


@pytest.mark.parametrize(('error', 'message'), [
    (ValueError('kernel_sizes=4: odd'), 'c.py: kernel_sizes=4: odd'),
    (TypeError('got an unexpected keyword'), 'c.py: TypeError: got an unexpected keyword'),
    (FileNotFoundError(2, 'No such file', 'a.json'), 'c.py: file a.json does not exist'),
    (UserError('told already'), '^told already$'),
])  # fmt: skip
def test_what_goes_wrong_with_a_config_is_told_of_it(error, message):
    with pytest.raises(UserError, match=message), user_input('c.py'):
        fail(error)
