from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mmengine.logging import MMLogger
from tiny_training import TinyDataset, config, train
from torch import nn

from mixdet.engine.class_names import ClassNamesHook, check_evaluated, class_difference, named_classes, stored_classes
from mixdet.errors import UserError

CLASSES = ('disc', 'square', 'star')


@pytest.fixture
def warnings(monkeypatch):
    """The warnings that are logged."""
    found = []
    monkeypatch.setattr(MMLogger, 'warning', lambda self, message: found.append(message))
    return found


@pytest.mark.parametrize(
    ('now', 'text', 'moved'),
    [
        (('square', 'disc', 'star'), "are in another order than in x: class 0 is 'disc', not 'square' (2 of 3", True),
        (('disc', 'ring', 'square'), "are in another order than in x: class 1 is 'square', not 'ring' (2 of 3", True),
        (('SQUARE', 'Disc', 'star'), "are in another order than in x: class 0 is 'disc', not 'SQUARE' (2 of 3", True),
        (('Disc', 'square', 'star '), "are spelt otherwise than in x: class 0 is 'disc', not 'Disc' (2 of 3", False),
        (('disc', 'block', 'Star'), "have other names than in x: class 1 is 'square', not 'block' (2 of 3", False),
        (('disc', 'star'), 'are disc, square, star, not disc, star as in x', False),
        (tuple('abcdefg'), 'are disc, square, star, not a, b, c, d, e, ... (7) as in x', False),
    ],
)
def test_how_classes_differ(now, text, moved):
    found = class_difference(CLASSES, now, 'x')
    assert found.text.startswith(f'its classes {text}') and found.moved == moved


@given(st.permutations('abcdef'))
def test_any_other_order_is_noticed(now):
    found = class_difference('abcdef', now, 'x')
    assert (found is None) == (list(now) == list('abcdef')) and (found is None or found.moved)


def test_punctuation_alone_may_tell_classes_apart():
    assert class_difference(('a b', 'a_b'), ('a_b', 'a b'), 'x').moved
    assert not class_difference(('$', '#'), ('$', '%'), 'x').moved


def test_a_file_without_names_says_nothing(warnings):
    for checkpoint in (
        {},
        dict(meta=None),
        dict(meta={}),
        dict(meta=dict(dataset_meta='a')),
        dict(meta=dict(classes=3)),
    ):
        assert stored_classes(checkpoint) == ()
    assert class_difference((), CLASSES, 'x') is class_difference(CLASSES, (), 'x') is None
    check_evaluated((), CLASSES, 'a.pth', 'x')
    assert not warnings


def test_names_as_others_store_them():
    assert stored_classes(dict(meta=dict(CLASSES=['cat', 'dog']))) == ('cat', 'dog')  # MMDetection 2
    assert stored_classes(dict(meta=dict(CLASSES=None, dataset_meta=dict(classes='cat')))) == ('cat',)
    assert named_classes(dict(classes=(1, 2))) == ('1', '2') and named_classes(None) == ()


def runner_of(classes, part='test', model=None, **state):
    loader = SimpleNamespace(dataset=SimpleNamespace(metainfo=dict(classes=classes)))
    loops = {f'_{part}_loop': SimpleNamespace(dataloader=loader), f'{part}_dataloader': loader}
    return SimpleNamespace(
        **{'_resume': False, '_load_from': 'a.pth', 'model': model or nn.Linear(1, 1), **loops, **state}
    )


def checkpoint_of(classes):
    return dict(meta=dict(dataset_meta=dict(classes=classes)))


def test_an_evaluation_with_swapped_labels_is_refused(warnings):
    hook = ClassNamesHook()
    with pytest.raises(
        UserError, match=r"^checkpoint a.pth: its classes are in another order .*'disc'.*'star'.*--classes"
    ):
        hook.after_load_checkpoint(runner_of(CLASSES[::-1]), checkpoint_of(CLASSES))
    hook.after_load_checkpoint(runner_of(CLASSES[::-1], _resume=True), checkpoint_of(CLASSES))
    hook.after_load_checkpoint(runner_of(CLASSES), checkpoint_of(CLASSES))
    hook.after_load_checkpoint(SimpleNamespace(_resume=False), checkpoint_of(CLASSES))  # no loop is built
    assert not warnings
    hook.after_load_checkpoint(runner_of(('Disc', *CLASSES[1:])), checkpoint_of(CLASSES))
    assert len(warnings) == 1 and "class 0 is 'disc', not 'Disc' (1 of 3 differ); each detection counts" in warnings[0]


def test_detectors_that_are_told_their_classes_have_none_of_their_own():
    model = nn.Linear(1, 1)
    model.language_model = nn.Linear(1, 1)
    ClassNamesHook().after_load_checkpoint(runner_of(CLASSES[::-1], model=model), checkpoint_of(CLASSES))


def test_an_exported_detector_knows_its_classes():
    model = nn.Linear(1, 1)
    ClassNamesHook().before_test(runner_of(CLASSES, model=model))
    model.dataset_meta = dict(classes=CLASSES)
    ClassNamesHook().before_test(runner_of(CLASSES, model=model))
    with pytest.raises(UserError, match='Linear: its classes are in another order than in test_dataloader'):
        ClassNamesHook().before_test(runner_of(CLASSES[::-1], model=model))


def test_the_file_of_an_init_cfg_is_compared_unless_it_is_that_of_a_backbone(tmp_path, warnings):
    path = str(tmp_path / 'a.pth')
    torch.save(dict(checkpoint_of(CLASSES), state_dict={}), path)
    model = nn.ModuleDict(dict(backbone=nn.Linear(1, 1), bbox_head=nn.Linear(1, 1)))
    for part, init, load_from, expected in (
        (model, dict(type='Pretrained', checkpoint=path), None, 1),
        (model.bbox_head, [dict(type='Normal'), dict(type='Pretrained', checkpoint=path)], None, 1),
        (model.backbone, dict(type='Pretrained', checkpoint=path), None, 0),
        (model, dict(type='Pretrained', checkpoint='torchvision://resnet50'), None, 0),
        (model, dict(type='Pretrained', checkpoint=path), 'b.pth', 0),
    ):
        part.init_cfg = init
        warnings.clear()
        ClassNamesHook().before_train(runner_of(CLASSES[::-1], 'train', model, _load_from=load_from))
        assert len(warnings) == expected and all(text.startswith(f'checkpoint {path}: its') for text in warnings)
        part.init_cfg = None


def test_a_training_begins_with_weights_for_other_classes(tmp_path, monkeypatch, warnings):
    """In any config: with MMEngine's Runner and the hook."""
    monkeypatch.setattr(TinyDataset, 'METAINFO', dict(classes=('a', 'b')))
    path = train(config(tmp_path / 'first'), kill_at=4).work_dir + '/iter_3.pth'
    assert stored_classes(torch.load(path, weights_only=False)) == ('a', 'b')
    for classes, expected in ((('a', 'b'), 0), (('b', 'a'), 1), (('a', 'b', 'c'), 0)):
        monkeypatch.setattr(TinyDataset, 'METAINFO', dict(classes=classes))
        cfg = config(tmp_path / '-'.join(classes))
        cfg.load_from, cfg.custom_hooks = path, [dict(type='mixdet.ClassNamesHook')]
        warnings.clear()
        train(cfg, kill_at=0)
        found = [text for text in warnings if 'classes' in text]
        assert len(found) == expected
        assert not found or found[0] == (
            f"checkpoint {path}: its classes are in another order than in train_dataloader: class 0 is 'a', not 'b' "
            '(2 of 2 differ); the training begins with weights for those classes'
        )
