import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mixdet.ssdlite import SSDLiteAnchorGenerator

# width x height in px at 320, from the TF Object Detection API
FIRST = [(32, 32), (90.510, 45.255), (45.255, 90.510)]
SECOND = [
    (112, 112), (158.392, 79.196), (79.196, 158.392), (193.990, 64.663), (64.660, 193.999), (133.866, 133.866),
]  # fmt: skip
LAST = [
    (304, 304), (429.921, 214.960), (214.960, 429.921), (526.543, 175.514), (175.506, 526.570), (311.897, 311.897),
]  # fmt: skip


def sizes(boxes):
    return (boxes[:, 2:] - boxes[:, :2]).tolist()


def test_boxes_at_320_are_tensorflows():
    grids = [(20, 20), (10, 10), (5, 5), (3, 3), (2, 2), (1, 1)]
    priors = SSDLiteAnchorGenerator().grid_priors(grids, image_size=(320, 320))
    assert sum(map(len, priors)) == 2034
    for boxes, expected in ((priors[0][:3], FIRST), (priors[1][:6], SECOND), (priors[5], LAST)):
        for size, wanted in zip(sizes(boxes), expected):
            assert size == pytest.approx(wanted, abs=1e-3)
    centres = (priors[1][:, :2] + priors[1][:, 2:]) / 2
    assert centres[0].tolist() == pytest.approx([16, 16])
    assert centres[6].tolist() == pytest.approx([48, 16])  # the next cell of the row
    assert centres[60].tolist() == pytest.approx([16, 48])  # the next row
    assert priors[5][0].tolist() == pytest.approx([8, 8, 312, 312])


def test_count_at_300():
    grids = [(19, 19), (10, 10), (5, 5), (3, 3), (2, 2), (1, 1)]
    priors = SSDLiteAnchorGenerator().grid_priors(grids, image_size=(300, 300))
    assert sum(map(len, priors)) == 1917
    assert ((priors[0][:3, :2] + priors[0][:3, 2:]) / 2).flatten().tolist() == pytest.approx([300 / 38] * 6)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.integers(2, 8), st.integers(64, 800), st.integers(64, 800))
def test_any_size_and_number_of_levels(levels, height, width):
    generator = SSDLiteAnchorGenerator(num_levels=levels)
    grids = [(-(-height // (16 << i)), -(-width // (16 << i))) for i in range(levels)]
    priors = generator.grid_priors(grids, image_size=(height, width), dtype=torch.float64)
    assert generator.num_base_priors == [3] + [6] * (levels - 1)
    for boxes, (rows, columns), count in zip(priors, grids, generator.num_base_priors):
        assert boxes.shape == (rows * columns * count, 4)
        centres = (boxes[:, :2] + boxes[:, 2:]) / 2
        assert centres.min() > 0 and (centres < torch.tensor([width, height])).all()
        torch.testing.assert_close(centres.mean(0), torch.tensor([width / 2, height / 2], dtype=torch.float64))
    squares = [boxes[0] for boxes in priors]
    assert all(side == pytest.approx(box[3] - box[1]) for box in squares for side in [box[2] - box[0]])
    assert squares[-1][2] - squares[-1][0] == pytest.approx(0.95 * min(height, width))


def test_needs_as_many_feature_maps_as_levels():
    with pytest.raises(ValueError, match='2 feature maps'):
        SSDLiteAnchorGenerator().grid_priors([(4, 4), (2, 2)], image_size=(64, 64))
    with pytest.raises(ValueError, match='num_levels=1'):
        SSDLiteAnchorGenerator(num_levels=1)
