"""What sizing adds to one checkout, against a gevent queue's get and put in the same process.

    python benchmarks/sizing_cost.py

Prints the median time of requested + rose + fell for each policy, and its ratio to a get and a put
of `gevent.queue.LifoQueue`. Rounds are interleaved, so that a drift of the machine meets all alike.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

from gevent.queue import LifoQueue

from geventpool.sizing import SizingPolicy, adaptive, fixed, poisson

ROUNDS = 41
CHECKOUTS = 5_000


def of_policy(policy: SizingPolicy) -> float:
    """Seconds of one checkout's bookkeeping: the time passes as in real use."""
    clock = time.monotonic
    started = time.perf_counter()
    for _ in range(CHECKOUTS):
        now = clock()
        policy.requested(now)
        policy.rose(now, 1)
        policy.fell(clock(), 0)
    return (time.perf_counter() - started) / CHECKOUTS


def of_clock() -> float:
    """The loop of `of_policy` without the policy."""
    clock = time.monotonic
    started = time.perf_counter()
    for _ in range(CHECKOUTS):
        clock()
        clock()
    return (time.perf_counter() - started) / CHECKOUTS


def of_queue(queue: LifoQueue[int]) -> float:
    """Seconds of one get and one put."""
    started = time.perf_counter()
    for _ in range(CHECKOUTS):
        queue.put(queue.get())
    return (time.perf_counter() - started) / CHECKOUTS


def main() -> None:
    """Measures and prints."""
    queue: LifoQueue[int] = LifoQueue()
    queue.put(1)
    subjects: dict[str, Callable[[], float]] = {"queue": lambda: of_queue(queue), "clock": of_clock}
    for policy in (adaptive(), poisson(), fixed()):
        subjects[repr(policy)] = lambda policy=policy: of_policy(policy)  # type: ignore[misc]
    times: dict[str, list[float]] = {name: [] for name in subjects}
    for _ in range(ROUNDS):
        for name, subject in subjects.items():
            times[name].append(subject())
    median = {name: statistics.median(seen) for name, seen in times.items()}
    clock, baseline = median.pop("clock"), median.pop("queue")
    print(f"LifoQueue get + put: {baseline * 1e6:.2f} µs")
    for name, seconds in median.items():
        own = seconds - clock
        print(f"{name}: {own * 1e6:.2f} µs, {own / baseline:.2f} of the queue")


if __name__ == "__main__":
    main()
