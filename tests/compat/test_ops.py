"""The substitutes for mmcv's operators, against their definitions and against mmcv's compiled ones."""

import importlib.util
import os
import subprocess
import sys
import zipfile

import pytest
import torch
from helpers import ROOT, shared_path
from hypothesis import given, settings
from hypothesis import strategies as st

from mixdet.compat import mmcv_ops, ops
from mixdet.compat.stack import installed_version


@pytest.fixture(scope='session')
def compiled_mmcv(tmp_path_factory):
    """Folder of mmcv with its compiled operators, unpacked from the wheel."""
    if sys.version_info[:2] != (3, 11):
        pytest.skip('the wheel is for Python 3.11')
    folder = tmp_path_factory.mktemp('mmcv')
    with zipfile.ZipFile(shared_path('wheels', 'mmcv-2.1.0-cp311-cp311-linux_x86_64.whl')) as wheel:
        wheel.extractall(folder)
    return folder


@pytest.fixture(scope='session')
def compiled(compiled_mmcv):
    (library,) = (compiled_mmcv / 'mmcv').glob('_ext.*.so')
    spec = importlib.util.spec_from_file_location('_ext', library)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def random_boxes(count, seed, extent=100.0, digits=None):
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=generator) * extent
    boxes = torch.cat([corner, corner + torch.rand(count, 2, generator=generator) * extent / 2], 1)
    scores = torch.rand(count, generator=generator)
    return (boxes, scores) if digits is None else (boxes.round(decimals=0), scores.round(decimals=digits))


def greedy(boxes, scores, threshold, offset):
    """Non-maximum suppression by its definition."""
    left, keep = scores.sort(0, descending=True)[1], []
    while len(left):
        best, left = left[0], left[1:]
        keep.append(int(best))
        a, b = boxes[best], boxes[left]
        sides = (torch.minimum(a[2:], b[:, 2:]) - torch.maximum(a[:2], b[:, :2]) + offset).clamp(min=0)
        inter = sides.prod(1)
        overlap = inter / ((a[2:] - a[:2] + offset).prod() + (b[:, 2:] - b[:, :2] + offset).prod(1) - inter)
        left = left[~(overlap > threshold)]
    return keep


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.integers(0, 60), st.integers(0, 2**16), st.sampled_from([0.0, 0.3, 0.5, 0.9]), st.integers(0, 1),
    st.sampled_from([10.0, 100.0, 3000.0]),
)  # fmt: skip
def test_nms_is_greedy_suppression(count, seed, threshold, offset, extent):
    boxes, scores = random_boxes(count, seed, extent)
    assert ops.nms(boxes, scores, threshold, offset).tolist() == greedy(boxes, scores, threshold, offset)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(st.integers(200, 900), st.integers(0, 2**16))
def test_nms_in_blocks_is_nms(count, seed):
    boxes, scores = random_boxes(count, seed, extent=300.0)
    keep = ops.nms(boxes, scores, 0.5, 0)
    assert keep.tolist() == greedy(boxes, scores, 0.5, 0) and count > len(keep) > 0


@pytest.mark.parametrize('count', [1, 50, 1000, 5000])
@pytest.mark.parametrize('threshold', [0.45, 0.7])
@pytest.mark.parametrize('digits', [None, 2])
def test_nms_equals_compiled_mmcv(compiled, count, threshold, digits):
    """Bit for bit, also with equal scores and IoUs at the threshold (digits)."""
    boxes, scores = random_boxes(count, seed=count, extent=400.0, digits=digits)
    boxes[:, ::2] += torch.arange(count)[:, None] % 7 * 1000.0  # seven classes, moved apart as batched_nms does
    for offset in (0, 1):
        expected = compiled.nms(boxes, scores, iou_threshold=threshold, offset=offset)
        assert torch.equal(ops.nms(boxes, scores, threshold, offset), expected)


def roi_case(seed=0):
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(2, 5, 13, 17, generator=generator)
    boxes, _ = random_boxes(24, seed, extent=90.0)
    boxes[:3] -= 30  # partly or wholly outside
    boxes[3, 2:] = boxes[3, :2]  # empty
    boxes[4] = torch.tensor([-500.0, -500, -400, -400])
    return features, torch.cat([torch.arange(24).float()[:, None] % 2, boxes], 1)


@pytest.mark.parametrize('aligned', [True, False])
@pytest.mark.parametrize('sampling_ratio', [0, 1, 2])
def test_roi_align_equals_compiled_mmcv(compiled, sampling_ratio, aligned):
    features, rois = roi_case()
    settings_ = dict(
        aligned_height=3,
        aligned_width=4,
        spatial_scale=0.125,
        sampling_ratio=sampling_ratio,
        pool_mode=1,
        aligned=aligned,
    )
    upstream = torch.randn(24, 5, 3, 4, generator=torch.Generator().manual_seed(1))
    results = []
    for module in (ops, compiled):
        output, gradient = features.new_zeros(24, 5, 3, 4), torch.zeros_like(features)
        empty = features.new_zeros(0)
        module.roi_align_forward(features, rois, output, empty, empty, **settings_)
        module.roi_align_backward(upstream, rois, empty, empty, gradient, **settings_)
        results.append((output, gradient))
    assert results[0][0].abs().sum() > 0
    for ours, theirs in zip(*results):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=2e-5)


def test_roi_align_of_a_linear_ramp_is_its_value_at_the_bin_centres():
    ramp = torch.arange(16.0).expand(1, 1, 16, 16).contiguous()
    output = torch.zeros(1, 1, 2, 2)
    empty = torch.zeros(0)
    ops.roi_align_forward(ramp, torch.tensor([[0.0, 4, 4, 12, 12]]), output, empty, empty, 2, 2, 1.0, 2, 1, True)
    assert output[0, 0].tolist() == [[5.5, 9.5], [5.5, 9.5]]


def test_max_pooling_says_what_it_needs():
    with pytest.raises(NotImplementedError, match="pool_mode='max' needs an mmcv with compiled"):
        ops.roi_align_forward(*roi_case(), torch.zeros(24, 5, 2, 2), None, None, 2, 2, 1.0, 2, 0, True)


def test_other_operators_say_what_they_need():
    if mmcv_ops.has_compiled_ops():
        pytest.skip('mmcv is compiled here')
    from mmcv.ops import deform_conv2d

    with pytest.raises(NotImplementedError, match="operator 'deform_conv_forward' needs an mmcv with compiled"):
        deform_conv2d(torch.zeros(1, 1, 5, 5), torch.zeros(1, 18, 3, 3), torch.zeros(1, 1, 3, 3))


PROBE = """
import torch
import mixdet
from mixdet.compat.mmcv_ops import has_compiled_ops
from mmengine.registry import init_default_scope
from helpers import detector_batch, tiny_detector
import mmcv._ext
init_default_scope('mmdet')
model = tiny_detector().eval()
with torch.no_grad():
    found = model.test_step(detector_batch())[0].pred_instances
print(has_compiled_ops(), mmcv._ext.__spec__.loader.__class__.__name__, len(found), found.bboxes.double().sum().item())
"""


def test_compiled_mmcv_is_used_and_detects_the_same(compiled_mmcv):
    if not installed_version('mmdet').startswith('3.3'):
        pytest.skip('the wheel is for mmdet 3.3')
    outputs = []
    for first in ([str(compiled_mmcv)], []):
        path = os.pathsep.join([*first, str(ROOT), str(ROOT / 'tests')])
        done = subprocess.run(
            [sys.executable, '-c', PROBE], env={**os.environ, 'PYTHONPATH': path}, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        outputs.append(done.stdout.splitlines()[-1].split())
    with_compiled, without = outputs
    assert with_compiled[:2] == ['True', 'ExtensionFileLoader']
    if not mmcv_ops.has_compiled_ops():
        assert without[0] == 'False'
    assert with_compiled[2:] == without[2:]
