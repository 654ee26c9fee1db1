import pytest
import torch
from mmcv.cnn import build_conv_layer

from mixdet.layers import Conv2dSame
from mixdet.layers.padding import check_padding, same_padding


def test_same_padding_is_tensorflows():
    # (size, kernel, stride) -> before, after, from the TensorFlow documentation's formula
    assert same_padding(320, 3, 2, 1) == (0, 1)
    assert same_padding(320, 5, 2, 1) == (1, 2)
    assert same_padding(320, 7, 2, 1) == (2, 3)
    assert same_padding(75, 3, 2, 1) == (1, 1)
    assert same_padding(19, 3, 1, 2) == (2, 2)
    assert same_padding(9, 1, 3, 1) == (0, 0)  # the last two pixels are not read


@pytest.mark.parametrize('size', [(8, 8), (7, 9), (1, 2)])
@pytest.mark.parametrize('stride', [(1, 1), (2, 2), (3, 3), (1, 2), (3, 1)])
@pytest.mark.parametrize('dilation', [(1, 1), (1, 2)])
def test_convolution_pads_what_the_formula_says(size, stride, dilation):
    conv = Conv2dSame(3, 4, (5, 3), stride=stride, dilation=dilation)
    x = torch.randn(1, 3, *size)
    top, bottom = same_padding(size[0], 5, stride[0], dilation[0])
    left, right = same_padding(size[1], 3, stride[1], dilation[1])
    padded = torch.zeros(1, 3, size[0] + top + bottom, size[1] + left + right)
    padded[:, :, top : top + size[0], left : left + size[1]] = x
    expected = torch.nn.functional.conv2d(padded, conv.weight, conv.bias, stride=stride, dilation=dilation)
    assert conv(x).shape[2:] == (-(-size[0] // stride[0]), -(-size[1] // stride[1]))
    torch.testing.assert_close(conv(x), expected)


def test_stands_in_for_conv2d_in_configs():
    conv = build_conv_layer(dict(type='mixdet.Conv2dSame'), 3, 4, 3, stride=2, padding=1, bias=False)
    assert isinstance(conv, Conv2dSame) and conv.padding == (0, 0) and conv.bias is None


def test_other_paddings_are_refused():
    assert check_padding('same') == 'same'
    with pytest.raises(ValueError, match="padding='valid': must be"):
        check_padding('valid')
