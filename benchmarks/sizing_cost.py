"""What sizing adds to one checkout, beside a gevent queue's get and put.

python -m benchmarks.sizing_cost
"""

from __future__ import annotations

import time

from gevent.queue import LifoQueue

from geventpool.sizing import SizingPolicy, adaptive, fixed, poisson

from .measure import Sample, Scale, interleave, spread, statement
from .result import Section
from .run import Serve, main

QUEUE, CLOCK = "queue", "clock"


def measure(scale: Scale, _serve: Serve) -> list[Section]:
    """Each policy, without the two readings of the clock that a checkout needs anyhow."""
    queue: LifoQueue[int] = LifoQueue()
    queue.put(1)
    samples = {
        QUEUE: statement("put(get())", get=queue.get, put=queue.put),
        CLOCK: statement("clock(); clock()", clock=time.monotonic),
    }
    policies = [repr(policy) for policy in (adaptive(), poisson(), fixed())]
    for name, policy in zip(policies, (adaptive(), poisson(), fixed()), strict=True):
        samples[name] = _of(policy)
    times = interleave(samples, scale.rounds, scale.seconds)
    figures = []
    for name in policies:
        rounds = zip(times[name], times[CLOCK], times[QUEUE], strict=True)
        own = [(policy - clock) / unit for policy, clock, unit in rounds]
        figures.append(spread(f"{name} / LifoQueue get and put", own))
    return [
        Section(
            "What sizing adds to one checkout",
            "What the pool tells its policy when a connection is lent and returned, without the two "
            "readings of the clock, beside a get and a put of gevent's compiled queue.",
            figures,
        )
    ]


def _of(policy: SizingPolicy) -> Sample:
    text = "took(clock(), 1); fell(clock(), 0)"
    return statement(text, clock=time.monotonic, took=policy.took, fell=policy.fell)


if __name__ == "__main__":
    main(measure)
