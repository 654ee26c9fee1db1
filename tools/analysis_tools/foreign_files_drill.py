"""Try hostile files of every kind at every tool that reads such files, and see whether one does harm.

Read without care, each would run a command that leaves a marker, fill the memory, or put a file of the user's into a
page. A tool must refuse it in one line with status 2, or leave the dangerous part out. Exits with status 1 otherwise.
"""

import argparse
import importlib
import json
import os
import re
import runpy
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
from mmengine.registry import init_default_scope

from mixdet.cli.main import run_tool
from mixdet.datasets import make_demo_data
from mixdet.deploy.formats.base import Metadata
from mixdet.deploy.formats.torchscript import METADATA
from mixdet.engine.config import load_config
from mixdet.registry import MODELS
from mixdet.text import print

TOOLS = Path(__file__).resolve().parents[1]
CONFIG = f"""_base_ = '{TOOLS.parent}/configs/demo/ssdlite_mixnet-s_1xb8-12e_demo.py'
model = dict(backbone=dict(_delete_=True, type='mixdet.MobileNetV2', widen_factor=0.25, kernel_sizes=(3, 5),
                           out_indices=('expansion', 'head')))
"""
MODULES = ('mixdet.cli.runner', 'mixdet.deploy.exported', 'mixdet.report.page', 'mmdet.visualization')
SECRET = b'\xff\xd8\xff a file of the user'  # which begins as a JPEG does
SPREAD = 1024  # MiB that a tool may take beyond what the imports do
WEIGHTS = ('convert_weights.py {} out.pth --as ssdlite_mobilenetv2',)
CHECKPOINT = (
    'train.py good.py --cfg-options load_from={}', 'train.py good.py --resume {}', 'test.py good.py {}',
    'predict.py good.py {} image.png', 'export.py good.py {} --out out.onnx', 'replay.py good.py {}',
    'analysis_tools/compare_exported.py good.py {} good.pth', *WEIGHTS,
)  # fmt: skip
EXPORTED = (*CHECKPOINT[2:], 'analysis_tools/compare_exported.py good.py good.pth {}')
CONFIGS = (
    'train.py {}', 'test.py {} good.pth', 'predict.py {} good.pth image.png', 'export.py {} good.pth --out out.onnx',
    'replay.py {} good.pth', 'check_dataset.py {}', 'swap_backbone.py {} out.py --backbone mixnet-s',
    'analysis_tools/compare_exported.py {} good.pth good.pth', 'analysis_tools/browse_dataset.py {} --out drawn',
    'analysis_tools/complexity.py {}', 'analysis_tools/benchmark.py {}',
)  # fmt: skip


class Command:
    """Runs a command when it is unpickled."""

    def __reduce__(self) -> tuple:
        return os.system, ('touch marker',)


def write_script(path: Path) -> None:
    """TorchScript that writes a file when it runs, and otherwise looks like one of our exports."""
    module = torch.jit.ScriptModule()
    module.define("def forward(self, x):\n  return torch.from_file('marker', True, 4).fill_(1.0)[0] + x\n")
    metadata = Metadata(('a',), (160, 160), (0.0,) * 3, (1.0,) * 3, 'Resize', True, 'c').to_json()
    torch.jit.save(module, str(path), _extra_files={METADATA: json.dumps(metadata)})


def write_program(path: Path) -> None:
    """A program of torch.export, with a pickle among its example inputs, or a size whose computation runs a command."""
    batch = {0: torch.export.Dim('batch', min=1)}
    program = torch.export.export(torch.nn.ReLU(), (torch.zeros(2, 3),), dynamic_shapes=(batch,), strict=False)
    torch.export.save(program, 'whole.pt2')
    torch.save(Command(), 'inputs.pt')
    code = json.dumps("__import__('os').system('touch marker')").encode()
    with zipfile.ZipFile('whole.pt2') as source, zipfile.ZipFile(path, 'w') as file:
        for name in source.namelist():
            content = source.read(name)
            if path.stem == 'pickle':
                content = Path('inputs.pt').read_bytes() if 'sample_inputs' in name else content
            else:
                content = re.sub(rb'("expr_str": ?)"[^"]*"', lambda match: match[1] + code, content)
            file.writestr(name, content)


def write_onnx(path: Path) -> None:
    """ONNX whose weights are another file."""
    import onnx

    weights = onnx.TensorProto(name='w', data_type=1, dims=[1], data_location=onnx.TensorProto.EXTERNAL)
    weights.external_data.add(key='location', value='/etc/passwd')
    path.write_bytes(onnx.helper.make_model(onnx.helper.make_graph([], 'g', [], [], [weights])).SerializeToString())


def write_graph(path: Path) -> None:
    """A frozen graph with a constant that repeats one number."""
    from tensorboard.compat.proto.graph_pb2 import GraphDef

    graph = GraphDef()
    tensor = graph.node.add(name='a', op='Const').attr['value'].tensor
    tensor.dtype, tensor.float_val[:] = 1, [1.0]
    tensor.tensor_shape.dim.add(size=2**30)
    graph.node.add(name='a/read', op='Identity', input=['a'])
    path.write_bytes(graph.SerializeToString())


def write_zeros(path: Path) -> None:
    """2 GiB of zeros in a zip file, as NumPy and PyTorch would name them."""
    name = 'a.npy' if path.suffix == '.npz' else 'a/data.pkl'
    archive = zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED, compresslevel=1)
    with archive, archive.open(name, 'w', force_zip64=True) as out:
        np.lib.format.write_array_header_1_0(out, dict(descr='|u1', fortran_order=False, shape=(2**31,)))
        for _ in range(2**7):
            out.write(bytes(2**24))


def write_training(path: Path) -> None:
    """The folder of a training that names and links to files outside of it."""
    for folder in ('report', 'log/vis_data'):
        (path / folder).mkdir(parents=True)
    (path / 'log/vis_data/scalars.json').write_bytes(b'{"loss": 1.0, "lr": 1.0, "iter": 1, "epoch": 1, "step": 1}\n')
    for link in ('a.py', 'report/link.jpg'):
        (path / link).symlink_to(Path('secret').resolve())
    names = ('../../secret', str(Path('secret').resolve()), 'link.jpg')
    augmented = [dict(bare=name, image='a') for name in names]
    (path / 'report/run.json').write_text(json.dumps(dict(augmented=augmented)), encoding='utf-8')


KINDS: dict[str, tuple[tuple[str, ...], Callable]] = {
    'pickle.pth': (CHECKPOINT, lambda path: torch.save(dict(state_dict=Command()), path)),
    'zeros.pth': (CHECKPOINT, write_zeros),
    'view.pth': (CHECKPOINT, lambda path: torch.save(dict(state_dict=dict(a=torch.ones(1).expand(2**30))), path)),
    'script.torchscript': (EXPORTED, write_script),
    'pickle.pt2': (EXPORTED, write_program),
    'size.pt2': (EXPORTED, write_program),
    'elsewhere.onnx': (EXPORTED, write_onnx),
    'zeros.npz': (WEIGHTS, write_zeros),
    'constant.pb': (WEIGHTS, write_graph),
    'map.pbtxt': (('convert_weights.py good.pth out.pth --as ssdlite_mobilenetv2 --label-map {}',),
                  lambda path: path.write_bytes(b'item { name: "' + b'\\"' * 10**5)),
    'call.yaml': (CONFIGS, lambda path: path.write_bytes(b"a: !!python/object/apply:os.system ['touch marker']")),
    'deep.json': ((*CONFIGS, 'check_dataset.py {} --images .'), lambda path: path.write_bytes(b'[' * 10**6)),
    'training': (('report.py {}',), write_training),
}  # fmt: skip


def attempt(command: str) -> tuple[int, str, int]:
    """The status of a tool in a process of its own, what it printed, and the most memory it took, in MiB."""
    process = os.fork()
    if process == 0:
        log = os.open('log', os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for stream in (1, 2):
            os.dup2(log, stream)
        sys.argv, status = command.split(), 70
        try:
            runpy.run_path(str(TOOLS / sys.argv[0]), run_name='__main__')
        except SystemExit as end:
            status = int(end.code or 0)
        finally:  # nothing of this process's own is cleaned up
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    _, status, used = os.wait4(process, 0)
    return (
        os.waitstatus_to_exitcode(status),
        Path('log').read_text(encoding='utf-8', errors='replace'),
        used.ru_maxrss // 1024,
    )


def harm(name: str, status: int, text: str) -> str:
    """What went wrong; empty if nothing did."""
    if Path('marker').exists():
        Path('marker').unlink()
        return 'MARKER'
    if name == 'training':
        page = Path(name, 'report.html').read_text(encoding='utf-8', errors='replace') if status == 0 else ''
        return '' if page and 'a file of the user' not in page and 'data:image/jpeg' not in page else 'SECRET'
    refused = status == 2 and 'Traceback' not in text and name in text.rpartition('error: ')[2]
    return '' if refused else f'STATUS {status}'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--kinds', nargs='+', choices=KINDS, default=list(KINDS), help='files to try (default: all)')
    args = parser.parse_args()
    torch.set_num_threads(1)
    for module in MODULES:
        importlib.import_module(module)
    with tempfile.TemporaryDirectory(prefix='foreign_files-') as folder:
        os.chdir(folder)
        make_demo_data('data/mixdet_demo', {'train': 8, 'val': 4})
        Path('good.py').write_text(CONFIG, encoding='utf-8')
        Path('secret').write_bytes(SECRET)
        Path('image.png').write_bytes(cv2.imencode('.png', np.zeros((32, 32, 3), np.uint8))[1].tobytes())
        init_default_scope('mmdet')
        torch.save(dict(state_dict=MODELS.build(load_config('good.py').model).state_dict()), 'good.pth')
        usual = attempt('report.py nothing')[2]
        KINDS['pickle.pth'][1](Path('control.pth'))
        attempt('test.py good.py control.pth --unsafe-load')
        if not Path('marker').exists():
            sys.exit('the command of pickle.pth would not run even if it were trusted: the drill shows nothing')
        Path('marker').unlink()
        doors, failures, peak = 0, 0, 0
        for name in args.kinds:
            KINDS[name][1](Path(name))
            for door in KINDS[name][0]:
                status, text, memory = attempt(door.format(name))
                found = harm(name, status, text) or ('MEMORY' if memory > usual + SPREAD else '')
                doors, failures, peak = doors + 1, failures + bool(found), max(peak, memory)
                print(f'{found or "held":8} {memory:6} MiB  {door.format(name)}', flush=True)
                if found:
                    print(text[-600:])
        os.chdir('/')
    print(
        f'{doors} doors, {len(args.kinds)} kinds of file; did harm: {failures}; most memory: {peak} MiB, of which '
        f'{usual} MiB without a file'
    )
    sys.exit(failures > 0)


if __name__ == '__main__':
    run_tool(main)
