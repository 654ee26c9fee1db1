"""Mixed convolutions for property tests."""

from hypothesis import assume
from hypothesis import strategies as st

ODD = st.sampled_from([1, 3, 5, 7, 9])


@st.composite
def requests(draw):
    """Arguments of a ``MixConv2d`` that is possible."""
    kernels = draw(st.lists(st.one_of(ODD, st.tuples(ODD, ODD)), min_size=1, max_size=4))
    channels = draw(st.integers(len(kernels), 12))
    split = draw(st.sampled_from(['equal', 'exponential', 'list']))
    if split == 'list':
        cuts = sorted(
            draw(
                st.lists(
                    st.integers(1, channels - 1), unique=True, min_size=len(kernels) - 1, max_size=len(kernels) - 1
                )
            )
            if channels > 1
            else []
        )
        assume(len(cuts) == len(kernels) - 1)
        split = [b - a for a, b in zip([0, *cuts], [*cuts, channels])]
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
    )  # fmt: skip
