"""A burst of callers, when connecting takes much longer than a query."""

from __future__ import annotations

import gevent

from . import books
from .base import Context, Row, Scenario

CALLERS, WARM, MAX_SIZE = 50, 5, 50
CONNECT_TAKES = 0.15
REPEATS = 5


def run(context: Context) -> None:
    took: list[float] = []
    opened: list[int] = []
    repeats = context.pick(REPEATS, REPEATS, 1)
    for _ in range(repeats):
        observer = context.observer()
        pool = context.make_pool(MAX_SIZE, delay=CONNECT_TAKES)
        books.warm_up(pool, WARM)
        gevent.sleep(0.5)  # psycopg_pool may still be growing
        before = pool.connects.begun

        def caller(pool: object = pool) -> None:
            with pool.connection() as connection:  # type: ignore[attr-defined]
                connection.query("select pg_sleep(0.002)")

        began = books.now()
        gevent.joinall([gevent.spawn(caller) for _ in range(CALLERS)], raise_error=True)
        took.append(books.now() - began)
        gevent.sleep(2 * CONNECT_TAKES)
        opened.append(pool.connects.begun - before)
        pool.close()
        observer.close()
    middle = sorted(took)[repeats // 2]
    context.figures["total time, ms"] = round(middle * 1000)
    context.figures["connections opened"] = sorted(opened)[repeats // 2]
    context.expect(
        middle < CONNECT_TAKES,
        f"{middle * 1000:.0f} ms: callers wait for connects while warm connections come back",
        is_timing=True,
    )
    context.expect(max(opened) <= WARM, f"{max(opened)} connections opened for a burst")


SCENARIO = Scenario(
    name="spike",
    title="Spike",
    about=(
        f"{CALLERS} greenlets at once, {WARM} warm connections of at most {MAX_SIZE}; connecting takes "
        f"{CONNECT_TAKES * 1000:.0f} ms, a query 2 ms. All are served by connections that come back "
        f"before one connect is over, and not more than {WARM} are opened. The median of {REPEATS} "
        "bursts, each on a new pool."
    ),
    run=run,
    rows=(Row("psycopg 3", "psycopg"),),
    limit=60,
    compared="total time, ms",
)
