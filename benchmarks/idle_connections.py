"""Does a checkout cost more when thousands of connections are open?

python -m benchmarks.idle_connections
"""

from __future__ import annotations

import gevent

from geventpool import ConnectionPool
from geventpool.sqlalchemy import GeventPool

from .fakes import Silent, allow_files, open_all
from .measure import Scale, interleave, ratio, statement
from .result import Section
from .run import Serve, main

FEW, MANY = 5, 5000
# Nothing falls due while it is measured, but all of it is counted.
SETTINGS = {"max_size": MANY, "breakeven": 1e6, "timeout": None}


def measure(scale: Scale, _serve: Serve) -> list[Section]:
    """Raw and through SQLAlchemy; of each idle connection the hub watches the socket."""
    allow_files(3 * MANY)
    samples, pools = {}, []
    for count in (FEW, MANY):
        raw = ConnectionPool(Silent, **SETTINGS)  # type: ignore[arg-type]
        for entry in [raw.core.acquire(None) for _ in range(count)]:
            raw.core.release(entry)
        through = GeventPool(Silent, **SETTINGS)  # type: ignore[arg-type]
        open_all(through, count)
        samples[f"acquire and release, {count}"] = statement(
            "release(acquire(30.0))", acquire=raw.core.acquire, release=raw.core.release
        )
        samples[f"connect().close(), {count}"] = statement(
            "connect().close()", connect=through.connect
        )
        pools += [raw, through]
    gevent.idle()
    times = interleave(samples, scale.rounds, scale.seconds)
    opened = min(pool.stats().idle for pool in pools[2:])
    for pool in pools:
        pool.close()
    return [
        Section(
            f"A checkout with {MANY:,} idle connections",
            f"The last in is the first out, so that one and the same is lent. {opened:,} were open at the "
            "end; all their sockets are watched.",
            [
                ratio(times, f"{what}, {MANY}", f"{what}, {FEW}", 1.1, 1.02)
                for what in ("acquire and release", "connect().close()")
            ],
        )
    ]


if __name__ == "__main__":
    main(measure)
