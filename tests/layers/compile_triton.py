"""Compile the kernels for an NVIDIA GPU of compute capability 8.0, which need not be present.

The argument is the element type, such as fp32 or bf16. Prints a line for each kernel and layout.
"""

import importlib.util
import sys
from pathlib import Path

import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

SIZES = ('src_h', 'src_w', 'out_h', 'out_w', 'top', 'left', 'pixels', 'share')
TENSORS = ('src', 'weight', 'bias', 'out', 'grad')

# loaded as a file, because importing mixdet would import PyTorch
path = Path(__file__).parents[2] / 'mixdet/layers/triton_kernels.py'
spec = importlib.util.spec_from_file_location('triton_kernels', path)
kernels = importlib.util.module_from_spec(spec)
spec.loader.exec_module(kernels)


def compile_for_gpu(kernel, dtype, channels_last, **constants):
    constants['SUM'] = tl.float64 if dtype == 'fp64' else tl.float32
    for name in kernel.arg_names:
        if name.endswith('stride_c' if channels_last else 'stride_w'):
            constants[name] = 1
    types = {name: f'*{dtype}' for name in TENSORS}
    types['partial'] = f'*{constants["SUM"].name}'
    signature = {name: 'constexpr' if name in constants else types.get(name, 'i32') for name in kernel.arg_names}
    # what Triton finds for tensors of the usual sizes
    aligned = {
        (i,): [['tt.divisibility', 16]]
        for i, name in enumerate(kernel.arg_names)
        if name not in constants and name not in SIZES
    }
    indices = {(kernel.arg_names.index(name),): value for name, value in constants.items()}
    compiled = triton.compile(ASTSource(kernel, signature, indices, aligned), target=GPUTarget('cuda', 80, 32))
    assert compiled.asm['cubin']
    loads = 'vector loads' if '.v4.b32' in compiled.asm['ptx'] else 'single loads'
    print(kernel.__name__, dtype, 'channels_last' if channels_last else 'NCHW', loads)


taps = dict(KERNEL_H=5, KERNEL_W=5, STRIDE_H=2, STRIDE_W=2, DILATION_H=1, DILATION_W=1)
for channels_last in (False, True):
    dtype, block = sys.argv[1], dict(BLOCK_P=32, BLOCK_C=32)
    convolve = (kernels.convolve, dtype, channels_last)
    compile_for_gpu(*convolve, **taps, **block, TRANSPOSED=False, BIAS=True, ACTIVATION='relu6')
    compile_for_gpu(*convolve, **taps, **block, TRANSPOSED=True, BIAS=False, ACTIVATION='none')
    compile_for_gpu(kernels.weight_gradient, dtype, channels_last, **taps, BLOCK_T=32, BLOCK_P=4, BLOCK_C=32)
