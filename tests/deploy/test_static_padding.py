import torch
from mmcv.cnn.bricks.conv2d_adaptive_padding import Conv2dAdaptivePadding
from torch import nn

from mixdet.deploy.static_padding import use_own_padding
from mixdet.layers import Conv2dSame


def same(*arguments, **options):
    torch.manual_seed(0)
    return nn.Sequential(Conv2dSame(4, 4, 3, *arguments, groups=2, **options), Conv2dAdaptivePadding(4, 4, 5, 2))


def test_equal_sides_are_padded_by_the_convolution():
    network, images = same(2), torch.randn(2, 4, 9, 13)
    expected = network(images)
    use_own_padding(network, images[:1])
    assert [type(conv) for conv in network] == [nn.Conv2d, nn.Conv2d]
    assert [conv.padding for conv in network] == [(1, 1), (2, 2)] and network[0].groups == 2
    torch.testing.assert_close(network(images), expected)


def test_sides_that_differ_stay_as_they_are():
    network, images = same(2, bias=False), torch.randn(1, 4, 8, 9)
    expected = network(images)
    use_own_padding(network, images)
    assert isinstance(network[0], Conv2dSame) and type(network[1]) is Conv2dAdaptivePadding  # of 4 px
    assert torch.equal(network(images), expected)


def test_dilation_counts():
    network, images = same(dilation=2), torch.randn(1, 4, 9, 9)
    expected = network(images)
    use_own_padding(network, images)
    assert network[0].padding == (2, 2)
    torch.testing.assert_close(network(images), expected)


def test_a_convolution_that_pads_inputs_differently_stays():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = Conv2dSame(4, 4, 3, 2)

        def forward(self, x):
            return self.conv(x), self.conv(x[..., 1:, 1:])

    network, images = Twice(), torch.randn(1, 4, 9, 9)
    use_own_padding(network, images)
    assert isinstance(network.conv, Conv2dSame)
