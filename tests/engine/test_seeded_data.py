import pickle
import random

import numpy as np
import pytest
import torch
from torch.utils.data import BatchSampler, DataLoader, Dataset, RandomSampler

from mixdet.engine.randomness import rng_state
from mixdet.engine.seeded_data import EndlessBatches, SeededDataset, SeededLoader


class Draws(Dataset):
    """Each sample: its index and a number from each generator."""

    pipeline = 'old'

    def __getitem__(self, index):
        return [index, random.random(), np.random.rand(), torch.rand(()).item()]

    def __len__(self):
        return 10


def loader(workers=0, **options):
    made = DataLoader(Draws(), 3, shuffle=True, num_workers=workers, collate_fn=list, **options)
    return SeededLoader(made, (7, 0))


def test_workers_change_nothing_and_epochs_do():
    def passes(made):
        result = []
        for made.batch_sampler.epoch in range(2):
            result.append(list(made))
        return result

    first, second = passes(loader())
    assert first != second and len(first) == 4
    assert sorted(sample[0] for batch in first for sample in batch) == list(range(10))
    assert passes(loader(2)) == passes(loader(2, persistent_workers=True)) == [first, second]


def test_a_pass_that_begins_later_has_the_same_batches():
    made = loader()
    whole = list(made)
    made.batch_sampler.skip = 3
    assert list(made) == whole[3:] and list(made) == whole


def test_the_generators_of_the_process_are_left_alone():
    before = rng_state()
    for _ in loader():
        pass
    after = rng_state()
    assert before['python'] == after['python'] and torch.equal(before['torch'], after['torch'])
    assert torch.equal(before['numpy'][1], after['numpy'][1])


def test_the_data_set_is_reached_through_its_wrapper():
    wrapped = SeededDataset(Draws())
    wrapped.pipeline = 'new'  # as MMDetection's PipelineSwitchHook does
    assert wrapped.dataset.pipeline == 'new' and len(pickle.loads(pickle.dumps(wrapped))) == 10
    with pytest.raises(AttributeError):
        wrapped.missing  # noqa: B018


def test_an_endless_loader_goes_on_where_it_stopped():
    def endless(done, dropped):
        sampler = BatchSampler(RandomSampler(range(10)), 3, drop_last=False)
        made = DataLoader(Draws(), batch_sampler=sampler, collate_fn=list)
        return EndlessBatches(SeededLoader(made, (7, 0), endless=True), done, dropped)

    whole = [batch for batch, _ in zip(endless(0, 0), range(11))]
    later = endless(6, 6)  # as MMEngine's loop goes past them
    assert [next(later) for _ in range(11)] == [None] * 6 + whole[6:]
    later = endless(6, 6)  # as the loop of onedl-mmengine does
    later.skip_iter(6)
    assert [next(later) for _ in range(5)] == whole[6:]
    later = endless(6, 0)  # and with fast_forward_on_resume=True
    assert [next(later) for _ in range(5)] == whole[6:]
