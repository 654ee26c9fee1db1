"""Mixed convolutions for property tests."""

from hypothesis import assume
from hypothesis import strategies as st


@st.composite
def mixconv_arguments(draw, sizes=(1, 3, 5, 7, 9)):
    """Arguments of a ``MixConv2d`` that are possible, with kernels of ``sizes``."""
    size = st.sampled_from(sizes)
    kernels = draw(st.lists(st.one_of(size, st.tuples(size, size)), min_size=1, max_size=4))
    channels = draw(st.integers(len(kernels), 12))
    split = draw(st.sampled_from(['equal', 'exponential', 'list']))
    if split == 'list':
        split = draw(channel_lists(channels, len(kernels)))
    elif split == 'exponential':
        assume(channels >> (len(kernels) - 1) >= 1)
    return dict(
        in_channels=channels,
        out_channels=channels * draw(st.integers(1, 3)),
        kernel_size=kernels,
        stride=draw(st.sampled_from([1, 2, (1, 2), (2, 1), 3])),
        padding=draw(st.sampled_from(['symmetric', 'same'])),
        dilation=draw(st.integers(1, 2)),
        bias=draw(st.booleans()),
        split=split,
        dilated=draw(st.booleans()),
    )


@st.composite
def channel_lists(draw, channels, groups):
    """``groups`` positive integers that add up to ``channels``."""
    cuts = []
    if groups > 1:
        cuts = draw(st.sets(st.integers(1, channels - 1), min_size=groups - 1, max_size=groups - 1))
    bounds = [0, *sorted(cuts), channels]
    return [b - a for a, b in zip(bounds, bounds[1:])]
