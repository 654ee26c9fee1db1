"""ExecuTorch: PyTorch's own runtime for phones, as a .pte file whose network XNNPACK computes."""

from pathlib import Path

import numpy as np
import torch

from mixdet.deploy.formats.base import FP16, INT8, OUTPUTS, PRECISIONS, Format, Job, Opened, Outputs
from mixdet.deploy.pt2e import quantized

METHOD = 'forward'


def write(job: Job, path: Path) -> None:
    """Lower the exported program to XNNPACK; for int8, quantise it before."""
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    network: torch.nn.Module = job.network
    if job.precision == FP16:
        job.network.halve()
    elif job.precision == INT8:
        network = quantized(job.network, job.example, job.calibration)
    program = torch.export.export(network, (job.example,), strict=False)
    lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
    path.write_bytes(lowered.to_executorch().buffer)


def open_file(path: Path, threads: int) -> Opened:
    """The program, on as many threads as all programs of this process have."""
    from executorch.extension.pybindings import portable_lib
    from executorch.runtime import Runtime

    method = Runtime.get().load_program(path.read_bytes()).load_method(METHOD)
    if method is None or len(OUTPUTS[False]) != method.metadata.num_outputs() or method.metadata.num_inputs() != 1:
        raise ValueError('it has other inputs or outputs')

    def run(images: np.ndarray) -> Outputs:
        if portable_lib._threadpool_get_thread_count() != threads:
            portable_lib._unsafe_reset_threadpool(threads)
        # copies, as the next call uses the memory again
        return tuple(output.numpy().copy() for output in method.execute([torch.from_numpy(images)]))

    return Opened(run, None)


FORMAT = Format(
    name='executorch',
    suffix='.pte',
    write=write,
    open=open_file,
    runtime='executorch',
    extra='executorch',
    packages=('executorch', 'torchao'),
    precisions=PRECISIONS,
    minimum_torch='2.6',
)
