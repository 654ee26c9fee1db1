import torch

from mixdet.benchmark.memory import peak_memory

MIB = 2**20


def mebibytes(count):
    return torch.zeros(count * MIB // 4)


def test_counts_what_is_alive_at_one_time():
    before = mebibytes(50)

    def work():
        a = mebibytes(3)
        b = mebibytes(2)
        del a
        c = mebibytes(2)
        return before.sum() + b.sum() + c.sum()

    # 3 + 2, then 2 + 2; a few bytes for the sums
    assert 5 * MIB <= peak_memory(work) < 5 * MIB + 1024


def test_counts_what_an_operator_takes_for_itself():
    x = torch.randn(1, 8, 64, 64, dtype=torch.float64)
    weight = torch.randn(8, 8, 3, 3, dtype=torch.float64)
    # not oneDNN's in float64: PyTorch writes out the nine pixels of every position
    assert peak_memory(lambda: torch.nn.functional.conv2d(x, weight, padding=1)) >= (1 + 9) * x.nbytes
