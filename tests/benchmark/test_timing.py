import time

import torch

from mixdet.benchmark.timing import time_in_turns


def test_runs_take_turns_and_are_summed_up():
    order = []

    def work():
        order.append('work')
        torch.randn(64, 64) @ torch.randn(64, 64)

    timings = time_in_turns(
        {'work': work, 'wait': lambda: (order.append('wait'), time.sleep(0.002))}, 0.0, rounds=5, warmup=2
    )
    assert order == ['work', 'wait'] * 7
    assert timings['wait'].low <= timings['wait'].wall <= timings['wait'].high
    # waiting is time on the clock, not of the processor
    assert timings['wait'].wall >= 2 and timings['wait'].cpu < 2
