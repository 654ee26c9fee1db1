"""ncnn: a folder with ``model.param`` and ``model.bin``, made by pnnx. NMS is outside."""

import shutil
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from mixdet.deploy.formats.base import FP16, FP32, Format, Job, Opened, Outputs
from mixdet.errors import UserError

MODEL, WEIGHTS = 'model.param', 'model.bin'
BLOBS = ('in0', 'out0', 'out1')  # image; boxes, scores


def write(job: Job, path: Path) -> None:
    """Convert the traced network with pnnx; fp16 stores the weights in float16."""
    import pnnx

    with TemporaryDirectory() as folder:
        source = Path(folder, 'source.pt')
        torch.jit.trace(job.network, job.example, check_trace=False).save(str(source))
        files = {name: Path(folder, name) for name in (MODEL, WEIGHTS)}
        shape = ','.join(map(str, job.example.shape))
        command = [
            pnnx.EXEC_PATH, source, f'inputshape=[{shape}]', f'ncnnparam={files[MODEL]}', f'ncnnbin={files[WEIGHTS]}',
            f'fp16={int(job.precision == FP16)}',
        ]  # fmt: skip
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors='replace')
        if done.returncode or not all(file.is_file() for file in files.values()):
            last = ['no output', *done.stdout.splitlines(), *done.stderr.splitlines()][-1]
            raise UserError(f'--format ncnn: pnnx failed with status {done.returncode}: {last}')
        for name, file in files.items():
            shutil.copyfile(file, path / name)


def open_file(path: Path, threads: int) -> Opened:
    """The network; ncnn takes one image at a time."""
    import ncnn

    net = ncnn.Net()
    net.opt.num_threads = threads
    net.opt.use_vulkan_compute = False
    for load, name in ((net.load_param, MODEL), (net.load_model, WEIGHTS)):
        if load(str(path / name)):
            raise UserError(f'{path / name} cannot be loaded by ncnn; export it again')

    def run(images: np.ndarray) -> Outputs:
        rows = []
        for image in images:
            extractor = net.create_extractor()
            extractor.input(BLOBS[0], ncnn.Mat(np.ascontiguousarray(image)))
            rows.append([np.array(extractor.extract(name)[1]) for name in BLOBS[1:]])
        return tuple(np.stack(parts) for parts in zip(*rows))

    return Opened(run, None)


FORMAT = Format(
    name='ncnn',
    suffix='.ncnn',
    write=write,
    open_file=open_file,
    runtime='ncnn',
    extra='ncnn',
    packages=('pnnx', 'ncnn'),
    precisions=(FP32, FP16),
    is_folder=True,
    danger='is for a reader that checks little, ncnn, in which a crafted file can do harm',
)
