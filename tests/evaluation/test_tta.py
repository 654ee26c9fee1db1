import pytest
import torch
from helpers import ROOT, tiny_detector
from mmdet.structures import DetDataSample
from mmengine.config import Config, ConfigDict

from mixdet.evaluation.tta import mirror_in_test
from mixdet.registry import MODELS, TRANSFORMS


def demo_config():
    return Config.fromfile(ROOT / 'configs/demo/ssdlite_mixnet-s_1xb8-12e_demo.py')


def test_the_pipeline_gives_the_image_and_its_mirror_image(tmp_path):
    import numpy as np
    from PIL import Image

    cfg = demo_config()
    before = cfg.test_dataloader.dataset.pipeline[-1].meta_keys
    mirror_in_test(cfg)
    assert cfg.model.type == 'DetTTAModel' and cfg.model.module.type == 'mixdet.SSDLite'
    assert cfg.model.tta_cfg.nms == cfg.model.module.test_cfg.nms
    assert cfg.val_dataloader.dataset.pipeline[-1].meta_keys == before  # validation while training stays as it is

    pixels = np.random.default_rng(0).integers(0, 256, (80, 120, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / 'a.png')
    data = dict(img_path=str(tmp_path / 'a.png'), img_id=1, instances=[])
    for step in cfg.test_dataloader.dataset.pipeline:
        with TRANSFORMS.switch_scope_and_registry('mmdet') as registry:
            data = registry.build(step)(data)
    plain, mirrored = data['inputs']
    assert torch.equal(plain.flip(-1), mirrored) and not torch.equal(plain, mirrored)
    assert [sample.flip for sample in data['data_samples']] == [False, True]


def test_detections_of_a_mirrored_image_are_mirrored():
    model = tiny_detector()
    for weight in model.parameters():
        if weight.dim() > 1:  # as they are initialised, all scores are the same
            torch.nn.init.kaiming_normal_(weight)
    merge = ConfigDict(nms=dict(type='nms', iou_threshold=0.6), max_per_img=20)
    tta = MODELS.build(dict(type='DetTTAModel', tta_cfg=merge, module=model)).eval()
    torch.manual_seed(0)
    image = torch.randint(0, 256, (3, 96, 96), dtype=torch.uint8)
    meta = dict(img_id=0, img_path='', ori_shape=(96, 96), img_shape=(96, 96), scale_factor=(1.0, 1.0))

    def detect(image):
        views = [(image, dict(flip=False, flip_direction=None)), (image.flip(-1), dict(flip=True))]
        views[1][1]['flip_direction'] = 'horizontal'
        samples = [DetDataSample(metainfo={**meta, **flip}) for _, flip in views]
        with torch.no_grad():
            (found,) = tta.test_step(dict(inputs=[[v] for v, _ in views], data_samples=[[s] for s in samples]))
        return found.pred_instances

    there, back = detect(image), detect(image.flip(-1))
    assert len(there) == len(back) == 20
    assert len(set(there.scores.tolist())) > 15
    torch.testing.assert_close(there.scores, back.scores)
    mirrored = back.bboxes.clone()
    mirrored[:, 0::2] = 96 - back.bboxes[:, [2, 0]]
    torch.testing.assert_close(there.bboxes, mirrored, atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda cfg: cfg.test_dataloader.dataset.pipeline.pop(), 'must end in PackDetInputs'),
        (lambda cfg: cfg.model.test_cfg.pop('nms'), 'has no nms to merge with'),
    ],
)
def test_what_cannot_be_mirrored_is_named(change, message):
    cfg = demo_config()
    cfg.test_dataloader = ConfigDict(cfg.test_dataloader.to_dict())
    change(cfg)
    with pytest.raises(ValueError, match=message):
        mirror_in_test(cfg)


def test_every_wrapped_data_set_is_mirrored():
    cfg = demo_config()
    repeated = dict(type='RepeatDataset', times=2, dataset=demo_config().test_dataloader.dataset)
    cfg.test_dataloader.dataset = dict(type='ConcatDataset', datasets=[cfg.test_dataloader.dataset, repeated])
    mirror_in_test(cfg)
    first, second = cfg.test_dataloader.dataset.datasets
    assert first.pipeline[-1].type == second.dataset.pipeline[-1].type == 'TestTimeAug'
