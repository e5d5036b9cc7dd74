"""Who gets the connections, when a hundred want five."""

from __future__ import annotations

import gevent

from . import books
from .base import Context, Row, Scenario

GREENLETS, MAX_SIZE = 100, 5
HELD = 0.002
LEAST_SHARE = 0.95


def run(context: Context) -> None:
    pool = context.make_pool(MAX_SIZE)
    books.warm_up(pool, MAX_SIZE)
    until = books.now() + context.pick(10, 3, 1)
    yields = context.row.options["yields"]
    served = [0] * GREENLETS
    line: dict[int, None] = {}  # callers by arrival: who is served must be the first of them
    tickets = overtaken = 0

    def work(place: int) -> None:
        nonlocal tickets, overtaken
        while books.now() < until:
            ticket = tickets = tickets + 1
            line[ticket] = None
            with pool.connection():
                overtaken += next(iter(line)) != ticket
                del line[ticket]
                served[place] += 1
                gevent.sleep(HELD)
            if yields:
                gevent.sleep(0)

    workers = [gevent.spawn(work, place) for place in range(GREENLETS)]
    gevent.joinall(workers, timeout=context.pick(60, 40))
    failed = sum(not one.dead or one.exception is not None for one in workers)
    mean = sum(served) / GREENLETS
    starved = sum(count <= 1 for count in served)
    context.figures.update(
        {
            "served in all": sum(served),
            "least served / mean": round(min(served) / max(mean, 1e-9), 3),
            "served at most once": starved,
            "served out of turn": overtaken,
        }
    )
    context.expect(overtaken == 0, f"{overtaken} served before somebody who came earlier")
    context.expect(
        min(served) >= LEAST_SHARE * mean,
        f"least served / mean is {min(served) / max(mean, 1e-9):.2f}, {starved} greenlets starve",
        is_timing=True,
    )
    context.expect(not failed, f"{failed} greenlets hang or failed")


SCENARIO = Scenario(
    name="fairness",
    title="Fairness",
    about=(
        f"{GREENLETS} greenlets want {MAX_SIZE} connections and hold them for 2 ms, for 10 s; (a) with no "
        "other switch in their loop, (b) with one `gevent.sleep(0)`. The greenlet served least gets at "
        f"least {LEAST_SHARE:.0%} of the mean, and nobody is served before somebody who came earlier."
    ),
    run=run,
    rows=(
        Row("no other switch", "psycopg", {"yields": False}),
        Row("one other switch", "psycopg", {"yields": True}),
    ),
    limit=90,
)
