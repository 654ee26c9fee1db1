"""Triton kernels of one group of a mixed convolution; import them through :mod:`mixdet.layers.triton_ops`.

Tensors are addressed by their strides, so any memory format and any slice of channels is read and written in place. A
program computes a block of ``BLOCK_C`` channels times ``BLOCK_P`` pixels and sums in the type ``SUM``. Rows and columns
are called y and x, the zero padding before the first of them ``top`` and ``left``. Pixels are a block's last axis:
Triton then has neighbouring threads read neighbouring pixels in NCHW, and neighbouring channels if their stride is 1.
"""

import triton
import triton.language as tl

# no type annotations but those that Triton reads
_SIZES = ['src_h', 'src_w', 'out_h', 'out_w', 'top', 'left']  # not recompiled for each value


@triton.jit(do_not_specialize=_SIZES)
def convolve(  # type: ignore[no-untyped-def]
    src, weight, bias, out, channels, src_h, src_w, out_h, out_w, top, left,
    src_stride_n, src_stride_c, src_stride_h, src_stride_w, out_stride_n, out_stride_c, out_stride_h, out_stride_w,
    KERNEL_H: tl.constexpr, KERNEL_W: tl.constexpr, STRIDE_H: tl.constexpr, STRIDE_W: tl.constexpr,
    DILATION_H: tl.constexpr, DILATION_W: tl.constexpr, TRANSPOSED: tl.constexpr, BIAS: tl.constexpr,
    ACTIVATION: tl.constexpr, SUM: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """The convolution of ``src``; with ``TRANSPOSED`` the input's gradient, where ``src`` is the output's gradient.

    Grid: blocks of pixels of an image of ``out``, blocks of channels, images.
    """
    pixel = tl.program_id(0) * BLOCK_P + tl.arange(0, BLOCK_P)[None, :]
    channel = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)[:, None]
    image = tl.program_id(2).to(tl.int64)
    out_y = pixel // out_w
    out_x = pixel % out_w
    wanted = (out_y < out_h) & (channel < channels)
    src += image * src_stride_n + channel * src_stride_c
    weight += channel * (KERNEL_H * KERNEL_W)
    if TRANSPOSED:
        first_y = out_y + top
        first_x = out_x + left
    else:
        first_y = out_y * STRIDE_H - top
        first_x = out_x * STRIDE_W - left
    total = tl.full([BLOCK_C, BLOCK_P], 0, SUM)
    for i in range(KERNEL_H):
        if TRANSPOSED:
            y = first_y - i * DILATION_H
            in_row = wanted & (y >= 0) & (y % STRIDE_H == 0)
            y = y // STRIDE_H
        else:
            y = first_y + i * DILATION_H
            in_row = wanted & (y >= 0)
        in_row = in_row & (y < src_h)
        row = src + y * src_stride_h
        # only the columns are unrolled: all 81 taps of a 9x9 kernel would take long to compile
        for j in tl.static_range(KERNEL_W):
            if TRANSPOSED:
                x = first_x - j * DILATION_W
                there = in_row & (x >= 0) & (x % STRIDE_W == 0)
                x = x // STRIDE_W
            else:
                x = first_x + j * DILATION_W
                there = in_row & (x >= 0)
            value = tl.load(row + x * src_stride_w, mask=there & (x < src_w), other=0)
            tap = tl.load(weight + i * KERNEL_W + j, mask=channel < channels, other=0)
            total += value.to(SUM) * tap.to(SUM)
    if BIAS:
        total += tl.load(bias + channel, mask=channel < channels, other=0).to(SUM)
    # not tl.maximum and tl.minimum, which swallow NaN
    if ACTIVATION != 'none':
        total = tl.where(total < 0, 0, total)
    if ACTIVATION == 'relu6':
        total = tl.where(total > 6, 6, total)
    out += image * out_stride_n + channel * out_stride_c + out_y * out_stride_h + out_x * out_stride_w
    tl.store(out, total.to(out.dtype.element_ty), mask=wanted)


@triton.jit(do_not_specialize=[*_SIZES, 'pixels', 'share'])
def weight_gradient(  # type: ignore[no-untyped-def]
    grad, src, partial, channels, src_h, src_w, out_h, out_w, top, left, pixels, share,
    grad_stride_n, grad_stride_c, grad_stride_h, grad_stride_w, src_stride_n, src_stride_c, src_stride_h, src_stride_w,
    KERNEL_H: tl.constexpr, KERNEL_W: tl.constexpr, STRIDE_H: tl.constexpr, STRIDE_W: tl.constexpr,
    DILATION_H: tl.constexpr, DILATION_W: tl.constexpr, SUM: tl.constexpr,
    BLOCK_T: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Partial sums of the weight gradient: row i of ``partial`` sums over the i-th ``share`` pixels of the output.

    The output has ``pixels`` (N * H' * W') in all. ``BLOCK_T`` holds all taps of the kernel. Grid: blocks of channels,
    shares. No program adds to another's sum, so the result does not depend on their order.
    """
    tap = tl.arange(0, BLOCK_T)[:, None, None]
    channel = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)[None, :, None]
    src += channel * src_stride_c
    grad += channel * grad_stride_c
    from_top = (tap // KERNEL_W) * DILATION_H - top
    from_left = (tap % KERNEL_W) * DILATION_W - left
    first = tl.program_id(1) * share
    sums = tl.full([BLOCK_T, BLOCK_C, BLOCK_P], 0, SUM)
    for start in range(first, first + share, BLOCK_P):
        pixel = start + tl.arange(0, BLOCK_P)[None, None, :]
        wanted = (pixel < pixels) & (channel < channels)
        image = (pixel // (out_h * out_w)).to(tl.int64)
        out_y = pixel // out_w % out_h
        out_x = pixel % out_w
        upstream = tl.load(
            grad + image * grad_stride_n + out_y * grad_stride_h + out_x * grad_stride_w, mask=wanted, other=0
        )
        y = out_y * STRIDE_H + from_top
        x = out_x * STRIDE_W + from_left
        there = wanted & (y >= 0) & (x >= 0) & (y < src_h) & (x < src_w) & (tap < KERNEL_H * KERNEL_W)
        value = tl.load(src + image * src_stride_n + y * src_stride_h + x * src_stride_w, mask=there, other=0)
        sums += upstream.to(SUM) * value.to(SUM)
    total = tl.sum(sums, axis=2)
    tap = tl.arange(0, BLOCK_T)[:, None]
    channel = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)[None, :]
    partial += (tl.program_id(1) * channels + channel) * (KERNEL_H * KERNEL_W) + tap
    tl.store(partial, total, mask=(channel < channels) & (tap < KERNEL_H * KERNEL_W))


# whether kernels run in Triton's interpreter, on a CPU: TRITON_INTERPRET=1 was set when Triton was imported
INTERPRETED = not any(isinstance(function, triton.JITFunction) for function in (convolve, tl.sum))
