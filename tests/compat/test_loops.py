from mixdet.compat.loops import begin_at_epoch_start, begin_within_epoch


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
