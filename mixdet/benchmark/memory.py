"""How much memory PyTorch takes for a piece of work."""

from collections.abc import Callable

from torch.profiler import ProfilerActivity, profile


def peak(work: Callable[[], object]) -> int:
    """The most bytes alive at one time during ``work()``, beyond those alive before it.

    Counted are PyTorch's own allocations on the CPU as its profiler reports them: activations, gradients and what
    operators take for themselves. Not counted are weights, optimiser state and inputs that were there before, the
    scratch memory of libraries (oneDNN), the interpreter, and what the system's allocator holds back. Deterministic,
    unlike the size of the process. ``work`` is called once beforehand.
    """
    work()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as run:
        work()
    events = [event for event in run.profiler.kineto_results.events() if event.name() == '[memory]']
    events.sort(key=_time)
    alive = most = 0
    for event in events:
        alive += event.nbytes()
        most = max(most, alive)
    return most


def _time(event) -> int:
    return event.start_ns() if hasattr(event, 'start_ns') else event.start_us()
