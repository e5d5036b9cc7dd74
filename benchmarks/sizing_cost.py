"""What sizing adds to one checkout, beside the whole of it, and beside a gevent queue's get and put.

python -m benchmarks.sizing_cost
"""

from __future__ import annotations

import time

from gevent.queue import LifoQueue

from geventpool import ConnectionPool
from geventpool.sizing import SizingPolicy, adaptive, fixed, poisson

from .fakes import Silent, bare_core
from .measure import Sample, Scale, Times, interleave, spread, statement
from .result import Figure, Section
from .run import Serve, main

QUEUE, CLOCK = "queue", "clock"
BARE = "acquire and release, no driver"
SILENT = "acquire and release, PyMySQL's class"
SHARE = 0.25


def measure(scale: Scale, _serve: Serve) -> list[Section]:
    """Each policy, without the two readings of the clock that a checkout needs anyhow."""
    queue: LifoQueue[int] = LifoQueue()
    queue.put(1)
    pool = ConnectionPool(Silent)
    cores = {BARE: bare_core(), SILENT: pool.core}
    samples = {
        name: statement("release(acquire(30.0))", acquire=core.acquire, release=core.release)
        for name, core in cores.items()
    }
    samples[QUEUE] = statement("put(get())", get=queue.get, put=queue.put)
    samples[CLOCK] = statement("clock(); clock()", clock=time.monotonic)
    policies = {repr(policy): policy for policy in (adaptive(), poisson(), fixed())}
    for name, policy in policies.items():
        samples[name] = _of(policy)
    times = interleave(samples, scale.rounds, scale.seconds)
    pool.close()
    default = next(iter(policies))
    return [
        Section(
            "What sizing adds to one checkout",
            "What the pool tells its policy when a connection is lent and returned, without the two "
            "readings of the clock, beside the whole of it with that policy, and beside a get and a put "
            "of gevent's compiled queue. `no driver` has handlers that do nothing.",
            [
                *(_share(times, default, whole, SHARE) for whole in (BARE, SILENT)),
                *(_share(times, name, QUEUE) for name in policies),
            ],
        )
    ]


def _share(times: Times, policy: str, unit: str, target: float | None = None) -> Figure:
    rounds = zip(times[policy], times[CLOCK], times[unit], strict=True)
    own = [(mine - clock) / whole for mine, clock, whole in rounds]
    whole = "LifoQueue get and put" if unit == QUEUE else unit
    return spread(f"{policy} / {whole}", own, target)


def _of(policy: SizingPolicy) -> Sample:
    text = "took(clock(), 1); fell(clock(), 0)"
    return statement(text, clock=time.monotonic, took=policy.took, fell=policy.fell)


if __name__ == "__main__":
    main(measure)
