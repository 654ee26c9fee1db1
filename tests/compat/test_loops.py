from mixdet.compat.loops import begin_at_epoch_start, begin_within_epoch, count_iterations_from, first_iteration


class Loop:
    def __init__(self):
        self.seen = []

    def run_iter(self, idx, data_batch):
        self.seen.append(idx)


def test_batches_are_numbered_from_the_first_one_on():
    loop = Loop()
    begin_at_epoch_start(loop)
    begin_within_epoch(loop, 3)
    loop.run_iter(0, None)
    loop.run_iter(1, None)
    begin_at_epoch_start(loop)
    loop.run_iter(0, None)
    assert loop.seen == [3, 4, 0]


class Counted:
    _max_iters, max_epochs, dataloader = 12, 3, range(4)
    max_iters = property(lambda self: self._max_iters)


def test_iterations_are_counted_from_where_the_first_epoch_would_have_begun():
    loop = Counted()
    assert first_iteration(loop) == 0
    count_iterations_from(loop, -2)
    assert loop.max_iters == 10 and first_iteration(loop) == -2
