import pytest
from helpers import ROOT
from mmengine.config import Config
from mmengine.evaluator import BaseMetric

from mixdet.engine.config import load_config
from mixdet.engine.validation import check_evaluators, check_validation, without_validation
from mixdet.errors import UserError

COCO = dict(type='mixdet.CocoMetric', ann_file='a.json')
VOC = dict(type='VOCMetric', metric='mAP')


class Nameless(BaseMetric):
    def process(self, data_batch, data_samples):
        pass

    def compute_metrics(self, results):
        return {}


def config(evaluator=COCO, save_best='coco/bbox_mAP', **changes):
    hooks = dict(checkpoint=dict(type='mixdet.CheckpointHook', save_best=save_best))
    parts = dict(val_dataloader=dict(dataset={}), val_cfg=dict(type='ValLoop'), val_evaluator=evaluator)
    return Config({**parts, 'default_hooks': hooks, **changes})


@pytest.mark.parametrize(
    ('evaluator', 'save_best'),
    [
        (COCO, 'coco/bbox_mAP'),
        (COCO, ['coco/bbox_mAP_50', 'coco/bbox_AR@100']),
        (COCO, 'coco/traffic/light_precision'),
        (COCO, 'auto'),
        (COCO, None),
        (dict(COCO, metric=['bbox', 'segm']), 'coco/segm_mAP'),
        (dict(COCO, prefix='mine'), 'mine/bbox_mAP'),
        (dict(COCO, metric='proposal'), 'coco/AR@1000'),
        (dict(type='CocoMetric', metric='bbox'), 'coco/bbox_mAP'),
        (VOC, 'pascal_voc/mAP'),
        (VOC, 'pascal_voc/AP50'),
        ([COCO, VOC], 'pascal_voc/mAP'),
        ([COCO, dict(type=Nameless)], 'anything'),
        (dict(type='NoSuchMetric'), 'anything'),
        (dict(type='LVISMetric'), 'lvis/bbox_AP'),
    ],
)
def test_metrics_that_the_evaluator_gives(evaluator, save_best):
    check_validation(config(evaluator, save_best), ('train', 'val'))


@pytest.mark.parametrize(
    ('evaluator', 'save_best', 'cure'),
    [
        (VOC, 'coco/bbox_mAP', "set it to 'pascal_voc/mAP', 'auto' .the first metric. or None"),
        (VOC, ['pascal_voc/mAP', 'pascal_voc/map'], "'pascal_voc/mAP'"),
        (COCO, 'bbox_mAP', "'coco/bbox_mAP'"),
        (COCO, 'coco/bbox_map', "'coco/bbox_mAP'"),
        (COCO, 'coco/segm_mAP', "'coco/bbox_mAP'"),
        (dict(COCO, metric='segm'), 'coco/bbox_mAP', "'coco/segm_mAP'"),
        (dict(COCO, prefix='mine'), 'coco/bbox_mAP', "'mine/bbox_mAP'"),
        (dict(type='LVISMetric'), 'coco/bbox_mAP', "'lvis/...'"),
        ([COCO, VOC], 'voc/mAP', "'coco/bbox_mAP', 'pascal_voc/mAP'"),
    ],
)
def test_a_best_metric_that_is_never_computed_is_named_before_the_training(evaluator, save_best, cure):
    cfg = config(evaluator, save_best)
    with pytest.raises(
        UserError, match=rf'^default_hooks\.checkpoint\.save_best=.*first validation; .*{cure}'
    ) as error:
        check_validation(cfg, ('train', 'val'))
    assert '\n' not in str(error.value)
    check_validation(cfg, ('test',))  # which saves nothing


@pytest.mark.parametrize(
    ('missing', 'message'),
    [
        (['dataloader'], '^val_dataloader is None, but val_cfg and val_evaluator are not; .* --no-validate$'),
        (['cfg', 'evaluator'], '^val_cfg and val_evaluator are None, but val_dataloader is not; .* all three to None'),
    ],
)
def test_half_a_validation_is_named(missing, message):
    cfg = config(**{f'val_{name}': None for name in missing})
    with pytest.raises(UserError, match=message):
        check_validation(cfg, ('train', 'val'))
    with pytest.raises(UserError, match='^test_cfg is None, but test_dataloader and test_evaluator are not; set all'):
        check_validation(Config(dict(test_dataloader={}, test_evaluator={})), ('test',))


def test_without_validation():
    cfg = config(VOC)
    without_validation(cfg)
    assert cfg.val_dataloader is cfg.val_cfg is cfg.val_evaluator is None
    assert cfg.default_hooks.checkpoint.save_best is None
    check_validation(cfg, ('train', 'val'))
    bare = Config(dict(default_hooks=dict(checkpoint=None)))
    without_validation(bare)
    check_validation(bare, ('train', 'val'))


@pytest.mark.parametrize('part', ['val', 'test'])
def test_images_of_voc_have_no_coco_file(part):
    dataset = dict(type='RepeatDataset', dataset=dict(type='VOCDataset'))
    keys = {f'{part}_dataloader': dict(dataset=dataset), f'{part}_cfg': {}}
    message = f"^{part}_evaluator.ann_file='a.json': {part}_dataloader.dataset.dataset is a VOCDataset, .* 'VOCMetric'"
    with pytest.raises(UserError, match=message.replace(" 'VOC", ".*'VOC")):
        check_evaluators(Config({**keys, f'{part}_evaluator': COCO}), (part,))
    check_evaluators(Config({**keys, f'{part}_evaluator': [VOC, dict(type='mixdet.CocoMetric')]}), (part,))


def test_the_template_has_a_switch(tmp_path):
    text = (
        (ROOT / 'configs/custom/ssdlite_mixnet-s_custom.py')
        .read_text()
        .replace("'../_base_", f"'{ROOT}/configs/_base_")
    )
    switched = text.replace("val_ann, val_images = 'annotations/val.json', 'images/'", "val_ann, val_images = None, ''")
    assert switched != text
    for name, content in (('with.py', text), ('without.py', switched)):
        (tmp_path / name).write_text(content)
        cfg = load_config(str(tmp_path / name))
        keys = [f'{part}_{name}' for part in ('val', 'test') for name in ('dataloader', 'cfg', 'evaluator')]
        assert [cfg[key] is None for key in keys] == [name == 'without.py'] * 6
        check_validation(cfg, ('train', 'val'))


def test_a_config_of_data_alone_has_nothing_to_check():
    check_evaluators(Config(dict(val_dataloader=dict(dataset=dict(type='VOCDataset')))), ('train', 'val', 'test'))
    check_evaluators(Config(dict(val_dataloader=None, val_evaluator=None)), ('train', 'val', 'test'))
