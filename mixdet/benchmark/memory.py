"""How much memory PyTorch takes for a piece of work."""

from collections.abc import Callable
from typing import Any

from torch.profiler import ProfilerActivity, profile


def peak_memory(work: Callable[[], object]) -> int:
    """The most bytes allocated at any time during ``work()``, beyond those allocated before it.

    Counted are PyTorch's own allocations on the CPU as its profiler reports them: activations, gradients and the
    temporary tensors of operators. Not counted are weights, optimizer state and inputs that exist before, the
    scratch memory of libraries (oneDNN), the interpreter, and memory that the system's allocator keeps. Unlike the
    size of the process the figure is deterministic. ``work`` is called once beforehand.
    """
    work()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        work()
    assert profiled.profiler is not None
    events = [event for event in profiled.profiler.kineto_results.events() if event.name() == '[memory]']
    events.sort(key=_start_time)
    allocated = most = 0
    for event in events:
        allocated += event.nbytes()
        most = max(most, allocated)
    return most


def _start_time(event: Any) -> int:
    return event.start_ns() if hasattr(event, 'start_ns') else event.start_us()
