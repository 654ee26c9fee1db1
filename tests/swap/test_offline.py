import copy
import sys
from types import SimpleNamespace

import pytest

from mixdet.errors import UserError
from mixdet.swap.offline import without_downloads, write_language_model


def test_checkpoints_and_process_groups_go_and_the_users_config_stays():
    model = dict(
        backbone=dict(init_cfg=dict(type='Pretrained', checkpoint='https://x/y.pth'), norm_cfg=dict(type='SyncBN')),
        neck=[dict(init_cfg=dict(type='Xavier', layer='Conv2d')), dict(pretrained='torchvision://resnet50')],
        teacher_ckpt='https://x/teacher.pth',
        encoder=dict(num_cp=6),
    )
    before = copy.deepcopy(model)
    offline = without_downloads(model, None)
    assert offline == dict(
        backbone=dict(init_cfg=None, norm_cfg=dict(type='BN')),
        neck=[dict(init_cfg=dict(type='Xavier', layer='Conv2d')), dict(pretrained=None)],
        teacher_ckpt=None,
        encoder=dict(num_cp=0),
    )
    assert model == before


def test_a_tracker_becomes_its_detector():
    assert without_downloads(dict(tracker=dict(type='T'), detector=dict(type='D')), None) == dict(type='D')
    assert without_downloads(dict(detector=dict(type='D')), None) == dict(detector=dict(type='D'))


def test_the_language_model_is_replaced_where_there_is_one():
    model = dict(language_model=dict(name='bert-base-uncased'), bbox_head=dict(lang_model_name='bert-base-uncased'))
    assert without_downloads(model, '/bert') == dict(
        language_model=dict(name='/bert'), bbox_head=dict(lang_model_name='/bert')
    )
    assert without_downloads(model, None) == model and without_downloads(dict(type='D'), '/bert') == dict(type='D')


@pytest.mark.parametrize('missing', ['transformers', 'transformers.modeling_utils'])
def test_stand_in_for_bert_needs_transformers(tmp_path, monkeypatch, missing):
    monkeypatch.setitem(sys.modules, 'transformers', SimpleNamespace(BertConfig=None, BertModel=None))
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(UserError, match="pip install 'transformers<4.54'"):
        write_language_model(tmp_path)
