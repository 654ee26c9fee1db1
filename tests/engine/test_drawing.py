from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmdet.structures.mask import BitmapMasks
from mmengine.structures import InstanceData

from mixdet.engine.drawing import class_color, draw_instances, literal_names

GREY = np.full((200, 300, 3), 128, np.uint8)


def instances(boxes, labels, **more):
    return InstanceData(bboxes=torch.tensor(boxes).float(), labels=torch.tensor(labels), **more)


def colors(image):
    return {tuple(color) for color in image.reshape(-1, 3).tolist()}


@pytest.mark.parametrize('order', [(0, 1), (1, 0)])
def test_the_best_is_on_top(order):
    """Two boxes at the same place: only the colour of the better one is seen, whichever comes first."""
    found = instances([[40, 40, 200, 150]] * 2, [0, 1], scores=torch.tensor([0.9, 0.5]))[list(order)]
    seen = colors(draw_instances(GREY, found, ('nut', 'nut')))
    assert class_color(0) in seen and class_color(1) not in seen


def test_scores_below_the_threshold_are_not_drawn():
    found = instances([[0, 60, 90, 120], [150, 60, 290, 190]], [0, 1], scores=torch.tensor([0.3, 0.29]))
    seen = colors(draw_instances(GREY, found, ('a', 'b'), 0.3))
    assert class_color(0) in seen and class_color(1) not in seen
    assert (draw_instances(GREY, found, ('a', 'b'), 0.5) == GREY).all() and (GREY == 128).all()


@pytest.mark.parametrize('name', [r'$\frac$', '[/x]', 'e\x1b[31m', 'Würfel', 'a\nb', ''])
def test_any_name_can_be_drawn(name):
    drawn = draw_instances(GREY, instances([[-20, -20, 400, 300], [5, 5, 5, 5]], [0, 7]), (name,))
    assert drawn.shape == GREY.shape and class_color(0) in colors(drawn)


def test_blue_first():
    found = instances([[40, 40, 200, 150]], [0])
    blue_first = draw_instances(GREY, found, ('a',), bgr=True)
    assert class_color(0)[::-1] in colors(blue_first) and class_color(0) not in colors(blue_first)
    assert (blue_first[..., ::-1] == draw_instances(GREY, found, ('a',))).all()


@pytest.mark.parametrize('kind', ['tensor', 'bitmaps'])
def test_masks(kind):
    mask = np.zeros((1, 200, 300), bool)
    mask[0, 100:120, 100:120] = True
    masks = torch.from_numpy(mask) if kind == 'tensor' else BitmapMasks(mask.astype(np.uint8), 200, 300)
    drawn = draw_instances(GREY, instances([[90, 90, 130, 130]], [0], masks=masks), ('a',))
    expected = 0.55 * 128 + 0.45 * np.array(class_color(0))
    assert abs(drawn[110, 110] - expected).max() <= 1 and (drawn[160, 200] == 128).all()


def test_colours_of_classes_differ():
    assert len({class_color(label) for label in range(80)}) == 80


def test_names_for_mmdetections_visualizer():
    visualizer = SimpleNamespace(dataset_meta=dict(classes=(r'$\frac$', 'a'), palette=[1]))
    with literal_names(visualizer) as same:
        assert same is visualizer and visualizer.dataset_meta == dict(classes=(r'\$\frac\$', 'a'), palette=[1])
    assert visualizer.dataset_meta['classes'] == (r'$\frac$', 'a')
    with literal_names(SimpleNamespace()) as bare:
        assert not vars(bare)
