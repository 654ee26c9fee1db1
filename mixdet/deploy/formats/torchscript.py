"""TorchScript: a program that PyTorch runs, from Python or C++."""

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mixdet.deploy.exportable import NMS_STEPS
from mixdet.deploy.formats.base import FP16, FP32, Format, Inference, Job, Opened, Outputs

METADATA = 'mixdet.json'  # the extra file that holds the metadata in PyTorch's formats


def write(job: Job, path: Path) -> None:
    """Trace the network; files accept batches of any size."""
    if job.precision == FP16:
        job.network.halve()
    program, content = torch.jit.trace(job.network, job.example, check_trace=False), io.BytesIO()
    torch.jit.save(program, content, _extra_files={METADATA: json.dumps(job.metadata.to_json())})
    path.write_bytes(content.getbuffer())  # PyTorch's own writing to a full disk ends the process


def open_file(path: Path, threads: int) -> Opened:
    """The program, which takes the threads of PyTorch."""
    extra = {METADATA: ''}
    program = torch.jit.load(str(path), map_location='cpu', _extra_files=extra)
    return Opened(torch_runner(program, threads), json.loads(extra[METADATA]))


def torch_runner(program: Callable[[Tensor], tuple[Tensor, ...]], threads: int) -> Inference:
    """A program of PyTorch as a function of arrays."""

    def run(images: np.ndarray) -> Outputs:
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        with torch.no_grad():
            return tuple(output.numpy() for output in program(torch.from_numpy(images)))

    return run


FORMAT = Format(
    name='torchscript',
    suffix='.torchscript',
    write=write,
    open_file=open_file,
    runtime='torch',
    precisions=(FP32, FP16),
    nms=NMS_STEPS,
    danger='is a program, not only weights',
    metadata_inside=True,
    dynamic_batch=True,
)
