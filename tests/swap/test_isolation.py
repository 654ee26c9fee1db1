import os
import time

from mixdet.swap.isolation import FAILS, RUNS, _in_a_process, run_isolated, shorten_reason

HEAD = dict(type='SSDHead', num_classes=3, in_channels=(24,), anchor_generator=dict(
    type='SSDAnchorGenerator', scale_major=False, input_size=300, strides=[8], ratios=[[2]],
    basesize_ratio_range=(0.2, 0.9),
))  # fmt: skip
DETECTOR = dict(
    type='SingleStageDetector', backbone=dict(type='mixdet.MixNet', out_indices=(0,)), bbox_head=HEAD,
    test_cfg=dict(score_thr=0.5, nms=dict(type='nms', iou_threshold=0.5), max_per_img=5),
)  # fmt: skip


def test_the_outcome_of_a_detector():
    assert run_isolated(DETECTOR, 120) == (RUNS, '')
    status, reason = run_isolated(dict(DETECTOR, bbox_head=dict(HEAD, in_channels=(8,))), 120)
    assert status != RUNS and 'Error' in reason
    status, reason = run_isolated(dict(DETECTOR, backbone=dict(type='NoNetwork')), 120)
    assert status == FAILS and 'NoNetwork' in reason


def test_a_detector_that_hangs_or_dies_ends_alone():
    assert _in_a_process(lambda model, pipe: time.sleep(60), {}, 1) == (FAILS, 'no result within 1 s')
    assert _in_a_process(lambda model, pipe: os._exit(3), {}, 20) == (FAILS, 'the process ended without a result')


def test_reasons_name_no_folder_of_the_machine():
    text = 'failed at "/build/a-1/ops/roi_align.cpp":138, mmdet/models 3/4 of /etc/x.py'
    assert shorten_reason(text) == 'failed at "roi_align.cpp":138, mmdet/models 3/4 of x.py'
