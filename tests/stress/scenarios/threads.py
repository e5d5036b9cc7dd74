"""Greenlets, functions in the hub's threadpool, and plain native threads share one pool."""

from __future__ import annotations

from typing import Any

import gevent
from gevent import monkey

from . import books
from .base import Context, Row, Scenario

MAX_SIZE = 5
GREENLETS, POOLED, NATIVE = 10, 4, 4
start_thread = monkey.get_original("_thread", "start_new_thread")
native_sleep = monkey.get_original("time", "sleep")


class Work:
    """What all workers do, and what they have seen.

    Attributes:
        served: right answers, by the kind of worker.
        wrong: answers of other queries.
        errors: what came out of the pool.
        ended: workers that have come to their end.
    """

    def __init__(self, pool: Any, seconds: float) -> None:
        self.pool = pool
        self.until = books.now() + seconds
        self.served = {"greenlets": 0, "threadpool": 0, "native threads": 0}
        self.wrong = 0
        self.errors: list[str] = []
        self.ended: list[str] = []

    def work(self, kind: str, place: int, rest: Any) -> None:
        token = place * 1_000_000
        served = 0
        try:
            while books.now() < self.until:
                token += 1
                with self.pool.connection() as connection:
                    if connection.query(f"select {token}") == token:
                        served += 1
                    else:
                        self.wrong += 1
                rest(0.002)
        except BaseException as error:
            self.errors.append(f"{kind}: {type(error).__name__}: {error}".splitlines()[0][:120])
        finally:
            self.served[kind] += served
            self.ended.append(kind)


def run(context: Context) -> None:
    seconds = context.pick(20, 3, 1)
    observer = context.observer()
    pool = context.make_pool(MAX_SIZE, timeout=5)
    books.warm_up(pool, 1)
    work = Work(pool, seconds)
    threadpool = gevent.get_hub().threadpool
    for place in range(GREENLETS):
        gevent.spawn(work.work, "greenlets", place, gevent.sleep)
    for place in range(POOLED):
        threadpool.spawn(work.work, "threadpool", 20 + place, native_sleep)
    for place in range(NATIVE):
        start_thread(work.work, ("native threads", 40 + place, native_sleep))
    most = 0
    everybody = GREENLETS + POOLED + NATIVE
    while len(work.ended) < everybody and books.now() < work.until + 10:
        most = max(most, observer.connections())
        gevent.sleep(0.05)
    hung = everybody - len(work.ended)
    for kind, served in work.served.items():
        context.figures[f"served, {kind}"] = served
        context.expect(served > 0 or hung > 0, f"nothing served to {kind}")
    context.figures["most sockets"] = most
    context.figures["errors"] = len(work.errors)
    context.expect(not hung, f"hung: {hung} of {everybody} workers never ended")
    context.expect(not work.wrong, f"{work.wrong} answers of other queries")
    context.expect(not work.errors, f"{len(work.errors)} workers ended by {work.errors[:1]}")
    context.expect(most <= MAX_SIZE, f"{most} sockets on a pool of {MAX_SIZE}")
    if not hung:
        problem = books.borrow_all(pool, 5)
        context.expect(not problem, problem)


SCENARIO = Scenario(
    name="threads",
    title="Threads",
    about=(
        f"{GREENLETS} greenlets, {POOLED} functions in the hub's threadpool and {NATIVE} plain native "
        f"threads use one pool of {MAX_SIZE} at once for 20 s: right answers, no error, nobody hangs, "
        "never more sockets than the maximum."
    ),
    run=run,
    rows=(Row("psycopg 3", "psycopg"), Row("PyMySQL", "pymysql")),
    limit=60,
)
