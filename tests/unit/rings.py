"""Greenlets that wait for each other."""

from __future__ import annotations

import gevent

from geventpool import ConnectionPool, PoolDeadlock
from geventpool.testing import FakeClock


def nest_all(
    pool: ConnectionPool, clock: FakeClock, greenlets: int, seconds: float
) -> list[PoolDeadlock]:
    """So many hold one connection, and then want a second one; who is refused within the seconds."""
    holding: list[int] = []
    errors: list[PoolDeadlock] = []

    def nest() -> None:
        with pool.connection():
            holding.append(1)
            while len(holding) < greenlets:
                gevent.sleep(0)
            try:
                with pool.connection():
                    pass
            except PoolDeadlock as error:
                errors.append(error)

    nesting = [gevent.spawn(nest) for _ in range(greenlets)]
    for _ in range(10):
        gevent.sleep(0)
    clock.advance(seconds)
    assert all(one.successful() for one in nesting)
    return errors
