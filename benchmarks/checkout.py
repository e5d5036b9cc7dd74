"""`pool.connect().close()`: what a pool for SQLAlchemy costs a program that does nothing else.

python -m benchmarks.checkout
"""

from __future__ import annotations

import gevent
from sqlalchemy.pool import Pool

from .fakes import FIFO, OURS, Plain, Silent, open_all, sqlalchemy_pools
from .measure import Sample, Scale, interleave, ratio, statement
from .result import Section
from .run import Serve, main

TARGET, STRETCH = 0.60, 0.35
OF_UNKNOWN = 0.75


def measure(scale: Scale, _serve: Serve) -> list[Section]:
    """With one connection open, with five, and with a DBAPI that geventpool does not know."""
    return [
        _compare(
            scale,
            "One checkout through SQLAlchemy, one connection open",
            "PyMySQL's connection class over a socket that nobody talks through, so that statistics, "
            "sizing, holders and liveness all do what they do with a server; the rollback on return of "
            "the others costs them nothing here.",
            Silent,
            1,
            (TARGET, STRETCH),
        ),
        _compare(
            scale,
            "One checkout through SQLAlchemy, five connections open",
            "The same with five idle: the cleaner is armed and the lower levels are counted.",
            Silent,
            5,
            (TARGET, STRETCH),
        ),
        _compare(
            scale,
            "One checkout through SQLAlchemy, an unknown DBAPI",
            "Nothing tells whether a transaction is open, so that a rollback is sent, through SQLAlchemy's"
            " dialect and a method that notes who is in it; and there is no socket to watch.",
            Plain,
            1,
            (OF_UNKNOWN, None),
        ),
    ]


def _compare(
    scale: Scale,
    title: str,
    note: str,
    creator: type,
    count: int,
    limits: tuple[float, float | None],
) -> Section:
    pools = sqlalchemy_pools(creator)
    samples = {
        name: _sample(pool, 1 if name in ("NullPool", "StaticPool") else count)
        for name, pool in pools.items()
    }
    times = interleave(samples, scale.rounds, scale.seconds)
    figures = [
        ratio(times, OURS, name, *(limits if name.startswith("QueuePool") else ()))
        for name in pools
        if name != OURS
    ]
    ladder = {name: ratio(times, name, FIFO) for name in pools}
    for pool in pools.values():
        pool.dispose()
    return Section(
        title,
        note,
        figures,
        plot={
            "ladder": {name: [one.value, one.low, one.high] for name, one in ladder.items()},
            "unit": f"cost of connect().close(), {FIFO} = 1",
        },
    )


def _sample(pool: Pool, count: int) -> Sample:
    timed = statement("connect().close()", connect=pool.connect)

    def sample(times: int) -> float:
        gevent.sleep(0)  # the hub closes what has fallen due meanwhile
        open_all(pool, count)
        return timed(times)

    return sample


if __name__ == "__main__":
    main(measure)
