from types import SimpleNamespace

import pytest

from mixdet.datasets.wrappers import inner_datasets, transforms_of, unwrap_dataset, wrapped_datasets

A, B, C = (dict(type='CocoDataset', ann_file=f'{name}.json', pipeline=[]) for name in 'abc')
REPEATED = dict(type='RepeatDataset', times=5, dataset=A)
MOSAIC = dict(type='MultiImageMixDataset', dataset=B, pipeline=[dict(type='Mosaic')])
JOINED = dict(type='ConcatDataset', datasets=[REPEATED, MOSAIC, C])


@pytest.mark.parametrize(
    ('dataset', 'expected'),
    [
        (A, [('dataset', A)]),
        (REPEATED, [('dataset.dataset', A)]),
        (MOSAIC, [('dataset.dataset', B)]),
        (
            dict(type='ClassBalancedDataset', dataset=JOINED),
            [('dataset.dataset.datasets.0.dataset', A), ('dataset.dataset.datasets.1.dataset', B),
             ('dataset.dataset.datasets.2', C)],
        ),
        (dict(type='ConcatDataset', datasets=[]), []),
    ],
)  # fmt: skip
def test_innermost_datasets_and_their_places(dataset, expected):
    assert list(wrapped_datasets(dataset)) == expected


def test_places_begin_with_the_given_key():
    assert [key for key, _ in wrapped_datasets(REPEATED, 'train_dataloader.dataset')] == [
        'train_dataloader.dataset.dataset'
    ]


def test_unwrapping_gives_the_first():
    assert unwrap_dataset(A) is A and unwrap_dataset(REPEATED) is A and unwrap_dataset(JOINED) is A
    empty = dict(type='ConcatDataset', datasets=[])
    assert unwrap_dataset(empty) is empty and unwrap_dataset({}) == {}


def test_data_set_objects_inside_others_and_their_transforms():
    """A pipeline is MMEngine's Compose, a list as in ``MultiImageMixDataset``, or there is none."""
    first = SimpleNamespace(pipeline=SimpleNamespace(transforms=[1, 2]))
    second = SimpleNamespace(pipeline=[3], dataset=SimpleNamespace(pipeline=None))
    sliced = SimpleNamespace(_dataset=SimpleNamespace(datasets=[first, second]))
    found = list(inner_datasets(sliced))
    assert [transforms_of(each) for each in found] == [[1, 2], [], [3], [], []] and found[-1] is sliced
    assert transforms_of(first) is first.pipeline.transforms
