import contextlib
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.autograd.forward_ad as forward_ad
from helpers import needs_torch
from parity import OPTIONS, assert_refused, operator_weights, require_native, wrong_arguments

from mixdet.layers import MixConv2d, native


@pytest.fixture
def operator():
    require_native()


@needs_torch('2.4')
@pytest.mark.parametrize('same', [False, True])
@pytest.mark.parametrize('channels_last', [False, True])
def test_operators_keep_pytorchs_rules(operator, same, channels_last):
    kwargs = dict(dtype=torch.double, requires_grad=True)
    x = torch.randn(2, 5, 8, 7, **kwargs)
    if channels_last:
        x = x.detach().to(memory_format=torch.channels_last).requires_grad_()
    bias = torch.randn(5, **kwargs)
    ops = torch.ops.mixdet
    torch.library.opcheck(ops.mixconv2d.default, (x, operator_weights(**kwargs), bias, *OPTIONS, same, 'none'))
    grad = torch.randn(2, 5, 4, 7, **kwargs)
    torch.library.opcheck(ops.mixconv2d_input_grad.default, (grad, operator_weights(**kwargs), [8, 7], *OPTIONS, same))
    kernel = [3, 3, 3, 2, 5, 5]
    torch.library.opcheck(ops.mixconv2d_weight_grad.default, (grad, x, kernel, *OPTIONS, same))


@pytest.mark.parametrize(
    ('activation', 'function'), [('relu', torch.relu), ('relu6', torch.nn.functional.relu6), ('none', lambda x: x)]
)
@pytest.mark.parametrize('channels_last', [False, True])
def test_bias_and_activation_inside_the_operator(operator, activation, function, channels_last):
    x, bias = 3 * torch.randn(2, 5, 8, 7), torch.randn(5)
    if channels_last:
        x = x.to(memory_format=torch.channels_last)
    plain = torch.ops.mixdet.mixconv2d(x, kernels := operator_weights(), None, *OPTIONS, False, 'none')
    fused = torch.ops.mixdet.mixconv2d(x, kernels, bias, *OPTIONS, False, activation)
    assert fused.is_contiguous(memory_format=torch.channels_last) == channels_last
    torch.testing.assert_close(fused, function(plain + bias.view(-1, 1, 1)))
    with pytest.raises(RuntimeError, match='has no gradient') if activation != 'none' else contextlib.nullcontext():
        torch.ops.mixdet.mixconv2d(x.requires_grad_(), kernels, bias, *OPTIONS, False, activation)


@wrong_arguments
def test_wrong_arguments_are_refused(operator, change, message):
    assert_refused(torch.ops.mixdet.mixconv2d, change, message)


def test_empty_batches(operator):
    layer = MixConv2d(6, 6, (3, 5), impl='native')
    x = torch.randn(0, 6, 8, 8, requires_grad=True)
    out = layer(x)
    assert out.shape == (0, 6, 8, 8)
    out.sum().backward()
    assert x.grad.shape == x.shape and not layer.convs[0].weight.grad.any()


@pytest.mark.parametrize('threads', [1, 2, 3])
def test_threads_share_the_work(operator, threads):
    torch.manual_seed(0)
    layer = MixConv2d(72, 72, (3, 5, 7), stride=2).double()
    x = torch.randn(5, 72, 50, 90, dtype=torch.double, requires_grad=True)
    before = torch.get_num_threads()
    results = []
    for count, impl in ((before, 'split'), (threads, 'native')):
        torch.set_num_threads(count)
        layer.impl = impl
        out = layer(x)
        results.append([out, *torch.autograd.grad(out.square().sum(), [x, *layer.parameters()])])
    torch.set_num_threads(before)
    for a, b in zip(*results):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-8)


def test_forward_differentiation_is_refused(operator):
    """It must raise, because the tangent would be lost silently."""
    layer = MixConv2d(6, 6, (3, 5), impl='native').requires_grad_(False)
    x = torch.randn(1, 6, 8, 8)
    with forward_ad.dual_level(), pytest.raises(RuntimeError, match='jvp is not implemented'):
        layer(forward_ad.make_dual(x, x))


def test_output_has_the_inputs_memory_format(operator):
    layer = MixConv2d(6, 6, (3, 5), impl='native')
    x = torch.randn(2, 6, 8, 8)
    assert layer(x).is_contiguous()
    assert layer(x.to(memory_format=torch.channels_last)).is_contiguous(memory_format=torch.channels_last)


def load(caplog):
    """Load as a fresh process would: the result, and the messages."""
    with caplog.at_level(logging.WARNING, logger=native.__name__):
        caplog.clear()
        return native.load.__wrapped__(), [record.getMessage() for record in caplog.records]


def test_without_a_compiler_one_line_says_so(monkeypatch, tmp_path, caplog):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    monkeypatch.setenv('CXX', 'no-such-compiler')
    loaded, messages = load(caplog)
    assert not loaded and len(messages) == 1 and 'no-such-compiler' in messages[0] and '\n' not in messages[0]


def fake_compiler(folder, monkeypatch, script):
    """A compiler that is a shell ``script``, and an empty cache."""
    path = folder / 'fake-c++'
    path.write_text(f'#!/bin/sh\necho run >>{folder}/runs\n{script}\n')
    path.chmod(0o755)
    monkeypatch.setenv('XDG_CACHE_HOME', str(folder))
    monkeypatch.setenv('CXX', str(path))


def test_a_build_that_failed_is_remembered(monkeypatch, tmp_path, caplog):
    script = 'echo "x.cpp:1: note: hm" >&2\necho "x.cpp:2: error: no such flag" >&2\nexit 1'
    fake_compiler(tmp_path, monkeypatch, script)
    loaded, messages = load(caplog)
    assert not loaded and len(messages) == 2 and 'Compiling' in messages[0]
    assert messages[1].endswith('x.cpp:2: error: no such flag')
    loaded, messages = load(caplog)
    assert not loaded and len(messages) == 1 and 'x.cpp:2: error: no such flag (not tried again' in messages[0]
    assert (tmp_path / 'runs').read_text() == 'run\n'
    (failure,) = (tmp_path / 'mixdet').glob('*.failed')
    assert str(failure) in messages[0]
    assert sorted(path.name for path in (tmp_path / 'mixdet').iterdir()) == ['lock', failure.name]
    failure.unlink()
    load(caplog)
    assert (tmp_path / 'runs').read_text() == 'run\nrun\n'


@pytest.mark.parametrize('script', ['echo "c++: fatal error: Killed signal terminated" >&2; exit 1', 'kill -9 $$'])
def test_a_build_that_was_killed_is_tried_again(monkeypatch, tmp_path, caplog, script):
    fake_compiler(tmp_path, monkeypatch, script)
    for _ in range(2):
        assert not load(caplog)[0]
    assert (tmp_path / 'runs').read_text() == 'run\nrun\n'


def test_a_library_that_does_not_load_says_why(monkeypatch, tmp_path, caplog):
    fake_compiler(tmp_path, monkeypatch, 'for last; do :; done; echo "no library at all" >"$last"')
    loaded, messages = load(caplog)
    assert not loaded and len(messages) == 2
    assert str(tmp_path / 'mixdet') in messages[1] and 'file too short' in messages[1]


def library_of(folder):
    (library,) = (folder / 'mixdet').glob('*.so')
    return library


def cut_in_half(library):
    library.write_bytes(library.read_bytes()[: library.stat().st_size // 2])


def belong_to_another(path):
    if os.geteuid() != 0:
        pytest.skip('only root can give a file away')
    os.chown(path, 12345, -1)


DAMAGE = {
    'cut in half': cut_in_half,
    'empty': lambda library: library.write_bytes(b''),
    'another': lambda library: library.write_bytes(b'planted'),
    'another with its checksum': lambda library: (
        library.write_bytes(b'planted'),
        library.with_suffix('.sha256').write_bytes(native._sha256(library)),
        library.chmod(0o777),
    ),
    'a link': lambda library: library.replace(library.parent / 'x') and library.symlink_to(library.parent / 'x'),
    'no checksum': lambda library: library.with_suffix('.sha256').unlink(),
    'writable by a group': lambda library: library.chmod(0o775),
    'a checksum writable by all': lambda library: library.with_suffix('.sha256').chmod(0o666),
    'of another user': belong_to_another,
    'a checksum of another user': lambda library: belong_to_another(library.with_suffix('.sha256')),
}


@pytest.mark.parametrize('kind', DAMAGE)
def test_a_library_that_is_not_as_it_was_built_is_built_again(monkeypatch, tmp_path, kind):
    fake_compiler(tmp_path, monkeypatch, 'for last; do :; done; echo made >"$last"')
    before = os.umask(0o002)
    try:
        library = native._library()
    finally:
        os.umask(before)
    assert native._library() == library == library_of(tmp_path)
    assert (tmp_path / 'runs').read_text() == 'run\n' and library.stat().st_mode & 0o777 == 0o755
    DAMAGE[kind](library)
    assert native._library() == library and library.read_text() == 'made\n' and not library.is_symlink()
    assert native._library() == library and (tmp_path / 'runs').read_text() == 'run\nrun\n'


def test_a_library_is_on_the_disk_before_it_has_its_name(monkeypatch, tmp_path):
    fake_compiler(tmp_path, monkeypatch, 'for last; do :; done; echo made >"$last"')
    synced = []

    def sync(descriptor):
        path = Path(os.readlink(f'/proc/self/fd/{descriptor}'))
        synced.append((path.suffix, path.parent.name == 'mixdet'))

    if not Path('/proc/self/fd').is_dir():
        pytest.skip('no /proc')
    monkeypatch.setattr(native.os, 'fsync', sync)
    native._library()
    assert synced == [('.sha256', False), ('.so', False), ('', False)]


def test_a_cache_that_others_can_write_to(monkeypatch, tmp_path, caplog):
    """Its own one is closed to them, another user's is not used."""
    fake_compiler(tmp_path, monkeypatch, 'for last; do :; done; echo made >"$last"')
    cache = tmp_path / 'mixdet'
    cache.mkdir()
    cache.chmod(0o777)
    native._library()
    assert cache.stat().st_mode & 0o777 == 0o755
    if os.geteuid() == 0:
        os.chown(cache, 12345, -1)
    else:
        monkeypatch.setattr(native.os, 'geteuid', lambda: 12345)
    loaded, (message,) = load(caplog)
    assert not loaded and f'other users can write to {cache}; set XDG_CACHE_HOME' in message


def test_a_failure_that_another_user_noted_is_tried_again(monkeypatch, tmp_path, caplog):
    fake_compiler(tmp_path, monkeypatch, 'echo "x.cpp:2: error: no such flag" >&2; exit 1')
    assert not load(caplog)[0]
    (failure,) = (tmp_path / 'mixdet').glob('*.failed')
    failure.write_text('\x1b[31mcome to example.com')
    assert '\\x1b[31mcome' in load(caplog)[1][0]
    failure.chmod(0o666)
    assert load(caplog)[1][-1].endswith('error: no such flag') and failure.stat().st_mode & 0o777 == 0o644
    assert (tmp_path / 'runs').read_text() == 'run\nrun\n'


@pytest.mark.parametrize('name', ['lock', 'mixdet', 'library'])
def test_strange_things_in_the_cache_never_raise(monkeypatch, tmp_path, caplog, name):
    fake_compiler(tmp_path, monkeypatch, 'for last; do :; done; echo made >"$last"')
    if name == 'lock':  # a link to what it would overwrite
        (tmp_path / 'mixdet').mkdir()
        (tmp_path / 'other').write_text('mine')
        (tmp_path / 'mixdet/lock').symlink_to(tmp_path / 'other')
    elif name == 'mixdet':
        (tmp_path / 'mixdet').write_text('no folder')
    else:
        library = native._library()
        library.unlink()
        library.mkdir()
    loaded, messages = load(caplog)
    assert not loaded and '\n' not in messages[-1] and 'is not available' in messages[-1]
    assert name != 'lock' or (tmp_path / 'other').read_text() == 'mine'


@pytest.mark.parametrize('compiler', ['"', 'c++ \x00', '  '])
def test_no_compiler_setting_raises(monkeypatch, tmp_path, caplog, compiler):
    fake_compiler(tmp_path, monkeypatch, 'exit 1')
    monkeypatch.setattr(native.os, 'environ', {**os.environ, 'CXX': compiler, 'PATH': str(tmp_path)})
    loaded, messages = load(caplog)
    assert not loaded and len(messages) == 1


def test_processes_that_compile_at_once_share_one_result(monkeypatch, tmp_path):
    fake_compiler(tmp_path, monkeypatch, 'sleep 1; for last; do :; done; echo made >"$last"')
    code = 'from mixdet.layers import native; print(native._library())'
    processes = [
        subprocess.Popen([sys.executable, '-W', 'ignore', '-c', code], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    first, second = (process.communicate()[0] for process in processes)
    assert first == second and Path(first.strip()).read_text() == 'made\n'
    assert (tmp_path / 'runs').read_text() == 'run\n'


def test_the_threads_are_pytorchs(operator):
    """The library brings no OpenMP of its own, whose threads PyTorch's settings would not reach."""
    if shutil.which('readelf') is None:
        pytest.skip('no readelf')
    content = subprocess.check_output(['readelf', '-d', str(native._library())], text=True)
    needed = [line for line in content.splitlines() if '(NEEDED)' in line]
    assert any('libtorch_cpu' in line for line in needed) and not any('omp' in line for line in needed)


def test_a_cache_that_cannot_be_written(monkeypatch, tmp_path, caplog):
    (tmp_path / 'file').write_text('')
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'file'))
    loaded, messages = load(caplog)
    assert not loaded and len(messages) == 1 and 'file' in messages[0]


def test_a_changed_source_is_compiled_and_another_copy_is_not(monkeypatch, tmp_path):
    compiled = []

    def compile_nothing(command, **kwargs):
        compiled.append(command)
        Path(command[-1]).touch()
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(native.subprocess, 'run', compile_nothing)
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    library = native._library()
    copied = shutil.copytree(native.MAIN_SOURCE.parent, tmp_path / 'csrc')
    monkeypatch.setattr(native, 'MAIN_SOURCE', copied / 'mixconv.cpp')
    assert native._library() == library and len(compiled) == 1
    source = copied / 'plan.h'
    source.write_text(f'{source.read_text()}// changed')
    assert native._library() != library
    assert len(compiled) == 2 and str(native.MAIN_SOURCE) in compiled[1]


def test_it_can_be_switched_off(monkeypatch, caplog):
    monkeypatch.setenv(native.SWITCH, '0')
    assert load(caplog) == (False, [])


def test_without_the_operator_layers_use_split(monkeypatch):
    monkeypatch.setattr(native, 'available', lambda: False)
    layer = MixConv2d(6, 6, (3, 5), impl='native')
    x = torch.randn(1, 6, 8, 8)
    reference = MixConv2d(6, 6, (3, 5), impl='split')
    reference.load_state_dict(layer.state_dict())
    assert torch.equal(layer(x), reference(x))


def test_availability_is_a_constant_to_torch_compile():
    marked = torch.compiler.assume_constant_result(lambda: True)
    assert vars(marked) and vars(marked).items() <= vars(native.available).items()
