"""PyTorch's exported programs."""

import io
import json
from pathlib import Path

import torch

from mixdet.deploy.exportable import NMS_STEPS
from mixdet.deploy.formats.base import FP16, FP32, Format, Job, Opened
from mixdet.deploy.formats.torchscript import METADATA, torch_runner


def write(job: Job, path: Path) -> None:
    """Export the network as a graph of PyTorch's operators."""
    if job.precision == FP16:
        job.network.halve()
    batch = ({0: torch.export.Dim('batch', min=1)},) if job.dynamic_batch else None
    program = torch.export.export(job.network, (job.example,), dynamic_shapes=batch, strict=False)
    content = io.BytesIO()
    torch.export.save(program, content, extra_files={METADATA: json.dumps(job.metadata.to_json())})
    path.write_bytes(content.getbuffer())  # PyTorch's own writing to a full disk ends the process


def open_file(path: Path, threads: int) -> Opened:
    """The program, which takes the threads of PyTorch."""
    extra = {METADATA: ''}
    program = torch.export.load(path, extra_files=extra).module()
    return Opened(torch_runner(program, threads), json.loads(extra[METADATA]))


FORMAT = Format(
    name='torch-export',
    suffix='.pt2',
    write=write,
    open_file=open_file,
    runtime='torch',
    precisions=(FP32, FP16),
    nms=NMS_STEPS,
    danger='is a program, not only weights',
    metadata_inside=True,
    dynamic_batch=True,
    minimum_torch='2.6',
)
