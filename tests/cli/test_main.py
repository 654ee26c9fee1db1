import sys
import warnings

import pytest

from mixdet.cli import main
from mixdet.cli.main import TRACEBACK, run_tool, user_input
from mixdet.errors import UserError


@pytest.fixture(autouse=True)
def settings(monkeypatch):
    """Calls of ``keep_freed_memory``, whose settings would outlive a test; and no traceback on request."""
    calls = []
    monkeypatch.setattr(main, 'keep_freed_memory', lambda: calls.append(1))
    monkeypatch.delenv(TRACEBACK, raising=False)
    return calls


def fail(error):
    raise error


def test_bad_input_is_one_line_and_status_2(capsys):
    with pytest.raises(SystemExit) as status:
        run_tool(lambda: fail(UserError('a\nlong   story')))
    assert status.value.code == 2 and capsys.readouterr().err == 'error: a long story\n'


@pytest.mark.parametrize(('encoding', 'hint'), [('ascii', True), ('utf-8', False)])
def test_a_locale_that_cannot_name_a_file_is_said(capsys, monkeypatch, encoding, hint):
    monkeypatch.setattr(main.sys, 'getfilesystemencoding', lambda: encoding)
    for name in ('文.json', '\udce6.json', 'a.json'):
        with pytest.raises(SystemExit):
            run_tool(lambda name=name: fail(UserError(f'{name} does not exist')))
        shown = capsys.readouterr().err
        assert ('this locale has ascii file names only: set PYTHONUTF8=1' in shown) == (hint and name != 'a.json')


@pytest.mark.parametrize(
    ('tool', 'status', 'text'),
    [
        (lambda: None, 0, ''),
        (lambda: fail(KeyboardInterrupt()), 130, ''),
        (lambda: sys.exit(), 0, ''),
        (lambda: sys.exit(143), 143, ''),
        (lambda: sys.exit('the training failed'), 1, 'the training failed\n'),
    ],
)
def test_exit_status(capsys, settings, tool, status, text):
    with pytest.raises(SystemExit) as stop:
        run_tool(tool)
    assert stop.value.code == status and capsys.readouterr().err == text
    assert settings == [1]


def test_bugs_keep_their_traceback():
    with pytest.raises(ZeroDivisionError):
        run_tool(lambda: 1 / 0)


@pytest.mark.parametrize(
    ('error', 'line'),
    [
        (OSError(36, 'File name too long', 'a.py'), 'a.py: File name too long'),
        (FileNotFoundError(2, 'No such file or directory', b'a.json'), 'a.json: No such file or directory'),
        (OSError(28, 'No space left on device'), 'a file: No space left on device'),
    ],
)
def test_what_the_system_refuses_is_one_line_too(capsys, error, line):
    with pytest.raises(SystemExit) as status:
        run_tool(lambda: fail(error))
    assert status.value.code == 2 and capsys.readouterr().err == f'error: {line} (traceback: MIXDET_TRACEBACK=1)\n'


def test_an_os_error_of_a_program_is_a_bug():
    with pytest.raises(OSError, match='^a bug$'):
        run_tool(lambda: fail(OSError('a bug')))


@pytest.mark.parametrize('name', ['a' * 200_000, 'a ' * 100_000])
def test_names_of_any_length_leave_the_message_readable(capsys, name):
    with pytest.raises(SystemExit):
        run_tool(lambda: fail(UserError(f'class {name} is unknown; give another')))
    line = capsys.readouterr().err
    assert len(line) < 5000 and line.startswith('error: class a') and line.endswith(' is unknown; give another\n')
    assert 'characters)...' in line


def test_traceback_of_bad_input_on_request(monkeypatch):
    monkeypatch.setenv(TRACEBACK, '1')
    with pytest.raises(UserError):
        run_tool(lambda: fail(UserError('x')))
    with pytest.raises(PermissionError):
        run_tool(lambda: fail(PermissionError(13, 'x', 'y')))


def test_warnings_that_a_user_cannot_act_on_are_not_shown():
    def warn():
        warnings.warn('torch.meshgrid: in an upcoming release', stacklevel=1)
        warnings.warn('a new one', stacklevel=1)

    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter('always')
        with pytest.raises(SystemExit):
            run_tool(warn)
    assert [str(warning.message) for warning in shown] == ['a new one']


@pytest.mark.parametrize(
    ('error', 'reason'),
    [
        (ValueError('kernel_sizes=4: odd'), 'kernel_sizes=4: odd'),
        (TypeError('unexpected keyword'), 'TypeError: unexpected keyword'),
        (FileNotFoundError(2, 'No such file', 'a.json'), 'file a.json does not exist'),
        (FileNotFoundError('gone'), 'FileNotFoundError: gone'),
    ],
)
def test_errors_of_a_config_name_it(error, reason):
    with pytest.raises(UserError) as raised, user_input('c.py'):
        fail(error)
    assert str(raised.value) == f'c.py: {reason} (traceback: MIXDET_TRACEBACK=1)'


def test_reported_errors_stay_as_they_are():
    with pytest.raises(UserError, match='^reported$'), user_input('c.py'):
        fail(UserError('reported'))
