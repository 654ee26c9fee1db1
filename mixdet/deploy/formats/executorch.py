"""ExecuTorch: PyTorch's own runtime for phones, as a .pte file whose network XNNPACK computes."""

from pathlib import Path

import numpy as np
import torch

from mixdet.deploy.formats.base import FP32, INT8, OUTPUTS, Format, Job, Opened, Outputs
from mixdet.deploy.pt2e import quantized
from mixdet.errors import UserError, first_line

METHOD = 'forward'
MARK = b'ET'  # of the format, with two digits of its version, from the fifth byte on


def write(job: Job, path: Path) -> None:
    """Lower the exported program to XNNPACK; for int8, quantise it before."""
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    network: torch.nn.Module = job.network
    if job.precision == INT8:
        network = quantized(job.network, job.example, job.calibration)
    program = torch.export.export(network, (job.example,), strict=False)
    try:
        lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
    except AssertionError as error:  # 1.5.1 finds cycles in 8 bits where mixed convolutions share an input
        raise UserError(
            f'--format executorch cannot lower this network in {job.precision} ({first_line(error)}); use tflite'
        ) from error
    path.write_bytes(lowered.to_executorch().buffer)


def open_file(path: Path, threads: int) -> Opened:
    """The program, on that many threads."""
    import executorch.runtime  # noqa: F401  (its lack is said first)

    content = path.read_bytes()
    if content[4:6] != MARK:  # the runtime ends the process when it is given an empty file
        raise ValueError('it is no program of ExecuTorch')
    return Opened(_Program(content, threads), None)


class _Program:
    """A program as a function.

    All programs of a process share a pool of threads. Those that were loaded before it is made anew, for another number
    of threads, must not run again: XNNPACK would use the old one, whose memory is gone. They are loaded again.

    Raises ValueError if its inputs and outputs are not those of ``write``.
    """

    pools = 0  # that have been made

    def __init__(self, content: bytes, threads: int) -> None:
        self._content, self._threads = content, threads
        self._load()

    def _load(self) -> None:
        from executorch.extension.pybindings import portable_lib
        from executorch.runtime import Runtime

        if portable_lib._threadpool_get_thread_count() != self._threads:
            portable_lib._unsafe_reset_threadpool(self._threads)
            _Program.pools += 1
        self._pool = _Program.pools
        self._method = Runtime.get().load_program(self._content).load_method(METHOD)
        inputs, outputs = self._method.metadata.num_inputs(), self._method.metadata.num_outputs()
        if (inputs, outputs) != (1, len(OUTPUTS[False])):
            raise ValueError('it has other inputs or outputs')

    def __call__(self, images: np.ndarray) -> Outputs:
        if self._pool != _Program.pools:
            self._load()
        # copies, as the next call uses the memory again
        return tuple(output.numpy().copy() for output in self._method.execute([torch.from_numpy(images)]))


FORMAT = Format(
    name='executorch',
    suffix='.pte',
    write=write,
    open_file=open_file,
    runtime='executorch',
    extra='executorch',
    packages=('executorch', 'torchao'),
    precisions=(FP32, INT8),  # in fp16 its weights stay in float32, while it computes with 11 bits
    danger='is for a runtime in which a crafted file may reach the memory of the process',
    minimum_torch='2.6',
    mixconv='export-split',  # as in LiteRT, which uses XNNPACK too
)
