import pytest
from mmengine.config import Config

from mixdet.engine.schedule import fit_schedule, misfits

WARM_UP = dict(type='LinearLR', by_epoch=False, begin=0, end=500)


def moved(before, after, *schedulers, key='max_epochs'):
    cfg = Config(dict(train_cfg={key: after}, param_scheduler=[dict(part) for part in schedulers]))
    return fit_schedule(cfg, before), cfg.param_scheduler


def test_a_cosine_ends_with_the_training():
    cosine = dict(type='CosineAnnealingLR', begin=0, T_max=120, end=120)
    changes, parts = moved(120, 50, WARM_UP, cosine)
    assert parts == [WARM_UP, dict(type='CosineAnnealingLR', begin=0, T_max=50, end=50)]
    assert changes == ['param_scheduler.1.end 120 -> 50', 'param_scheduler.1.T_max 120 -> 50']


def test_milestones_keep_their_proportion():
    """MMDetection's schedule 1x made longer is its schedule 2x."""
    step = dict(type='MultiStepLR', begin=0, end=12, milestones=[8, 11], gamma=0.1)
    changes, parts = moved(12, 24, WARM_UP, step)
    assert parts[1] == dict(step, end=24, milestones=[16, 22])
    assert changes[1] == 'param_scheduler.1.milestones [8, 11] -> [16, 22]'


def test_a_warm_up_keeps_its_length_and_what_follows_stays_joined():
    """YOLOX: 5 epochs of warm-up, a cosine, 15 epochs at the end."""
    parts = [
        dict(type='mmdet.QuadraticWarmupLR', begin=0, end=5),
        dict(type='CosineAnnealingLR', begin=5, T_max=285, end=285),
        dict(type='ConstantLR', begin=285, end=300),
    ]
    _, after = moved(300, 100, *parts)
    assert [(part['begin'], part['end']) for part in after] == [(0, 5), (5, 95), (95, 100)]
    _, after = moved(300, 4, *parts)  # shorter than the warm-up
    assert all(part['begin'] < part['end'] for part in after) and after[0]['end'] == 1


def test_a_phase_that_begins_later_stays_in_place():
    """RTMDet's cosine over the second half."""
    _, parts = moved(300, 30, WARM_UP, dict(type='CosineAnnealingLR', begin=150, end=300, T_max=150))
    assert parts[1] == dict(type='CosineAnnealingLR', begin=15, end=30, T_max=15)


def test_iterations():
    warm_up = dict(type='LinearLR', by_epoch=False, begin=0, end=1000)
    poly = dict(type='PolyLR', by_epoch=False, begin=1000, end=90000)
    _, parts = moved(90000, 45000, warm_up, poly, key='max_iters')
    assert parts == [warm_up, dict(poly, end=45000)]


@pytest.mark.parametrize(
    'schedulers',
    [
        (),
        (WARM_UP,),  # in the other unit
        (dict(type='CosineAnnealingLR', T_max=12, end=12),),  # was made for another length
        (dict(type='CosineAnnealingLR', T_max=400, end=400),),
    ],
)
def test_a_schedule_that_was_not_made_for_the_length_is_left_alone(schedulers):
    changes, parts = moved(120, 50, *schedulers)
    assert changes == [] and parts == list(schedulers)


def test_schedules_of_several_optimizers():
    part = dict(type='CosineAnnealingLR', T_max=12, end=12)
    cfg = Config(dict(train_cfg=dict(max_epochs=6), param_scheduler=dict(a=[dict(part)], b=dict(part))))
    assert len(fit_schedule(cfg, 12)) == 4 and cfg.param_scheduler.b.T_max == 6


def test_a_part_without_an_end_ends_with_the_training():
    """MMEngine writes 1e9 for it."""
    endless = dict(type='StepLR', step_size=3, begin=0, end=int(1e9))
    cfg = Config(dict(train_cfg=dict(max_epochs=50), param_scheduler=[endless]))
    assert misfits(cfg) == [] and fit_schedule(cfg, 100) == []


def test_what_lies_after_the_end_is_named():
    cfg = Config(
        dict(
            train_cfg=dict(max_epochs=50),
            param_scheduler=[WARM_UP, dict(type='CosineAnnealingLR', T_max=120), dict(type='StepLR', step_size=99)],
            custom_hooks=[dict(type='PipelineSwitchHook', switch_epoch=280)],
            default_hooks=dict(ema=dict(begin_epoch=3)),
        )
    )
    assert misfits(cfg) == ['param_scheduler.1.T_max=120', 'custom_hooks.0.switch_epoch=280']
    cfg.param_scheduler = dict(type='MultiStepLR', milestones=[40, 50])  # the second is never reached
    cfg.custom_hooks = None
    assert misfits(cfg) == ['param_scheduler.milestones=[40, 50]']
    assert misfits(Config(dict(param_scheduler=cfg.param_scheduler))) == []
