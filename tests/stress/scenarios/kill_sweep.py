"""A unit of work killed at its first switch to the hub, its second, and so on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gevent
import gevent.event

from . import books
from .base import Context, Row, Scenario
from .kills import KINDS, forget, run_and_kill

MAX_SIZE = 2
LAST_SWITCH = 80
BAD_ENOUGH = 3
SERVED_WITHIN = 1.5


class Sweep:
    """A pool, the units of work, and somebody who asks the server."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.observer = context.observer()
        self.nap = f"select {'sleep' if 'mysql' in context.url else 'pg_sleep'}(0.003)"
        self.observer.do("drop table if exists swept")
        self.observer.do("create table swept (x int)")
        self.is_over = gevent.event.Event()
        self.others: list[gevent.Greenlet] = []
        self.waiter: gevent.Greenlet | None = None
        self.damaged: list[Any] = []  # kept, lest they are collected in the middle of a later kill
        self.pool = context.make_pool(MAX_SIZE, timeout=2)

    def renew(self) -> None:
        """A pool that is damaged says nothing about the next kill."""
        books.end(self.pool)
        self.damaged.append(self.pool)
        self.observer.clear()
        self.pool = self.context.make_pool(MAX_SIZE, timeout=2)

    def transaction(self) -> None:
        with self.pool.transaction() as connection:
            connection.query("insert into swept values (1)")
            connection.query(self.nap)

    def nested_transaction(self) -> None:
        with self.pool.transaction() as connection, self.pool.nested(connection):
            connection.query("insert into swept values (1)")
            connection.query(self.nap)

    def left_in_a_transaction(self) -> None:
        with self.pool.connection() as connection:
            self.pool.begin(connection)
            connection.query("insert into swept values (1)")
            connection.query(self.nap)

    def opening(self) -> None:
        self.pool.empty()
        self.transaction()

    def waiting_in_a_full_pool(self) -> None:
        holders = [gevent.spawn(self._hold) for _ in range(MAX_SIZE)]
        gevent.sleep(0)
        try:
            self.transaction()
        finally:
            gevent.joinall(holders)

    def with_a_waiter_behind(self) -> None:
        self.is_over.clear()
        self.others = [gevent.spawn(self._hold_until_over)]
        gevent.sleep(0)
        with self.pool.connection() as connection:
            self.waiter = gevent.spawn(self._hold)
            gevent.sleep(0)
            connection.query(self.nap)

    def settle(self) -> str:
        """Ends what a unit has left running.

        Returns:
            What is wrong; empty if nothing is.
        """
        waiter, self.waiter = self.waiter, None
        problem = ""
        if waiter is not None:
            waiter.join(SERVED_WITHIN)
            if not waiter.dead or waiter.exception is not None:
                problem = "the waiter behind the victim was not served"
        self.is_over.set()
        gevent.joinall(self.others, timeout=5)
        self.others = []
        return problem

    def _hold_until_over(self) -> None:
        with self.pool.connection():
            self.is_over.wait()

    def _hold(self) -> None:
        with self.pool.connection():
            gevent.sleep(0.005)


UNITS: tuple[Callable[[Sweep], None], ...] = (
    Sweep.transaction,
    Sweep.nested_transaction,
    Sweep.left_in_a_transaction,
    Sweep.opening,
    Sweep.waiting_in_a_full_pool,
    Sweep.with_a_waiter_behind,
)


def run(context: Context) -> None:
    sweep = Sweep(context)
    kills = 0
    bad: dict[str, int] = {}
    for unit in context.pick(UNITS, UNITS, UNITS[:1]):
        for kind in KINDS:
            hits, problems = _sweep(sweep, unit, kind)
            kills += hits
            for problem in problems:
                bad[problem] = bad.get(problem, 0) + 1
    context.figures["kills that hit"] = kills
    context.figures["kills after which something was wrong"] = sum(bad.values())
    context.expect(kills > 0, "no kill hit anything")
    for problem, times in sorted(bad.items(), key=lambda item: -item[1]):
        context.expect(False, f"{times} x {problem}")


def _sweep(
    sweep: Sweep, unit: Callable[[Sweep], None], kind: type[BaseException]
) -> tuple[int, list[str]]:
    """One unit of work with one kind of kill; given up when the pool is bad enough."""
    unit(sweep)
    sweep.settle()
    hits = 0
    problems: list[str] = []
    for number in range(1, LAST_SWITCH):
        error = kind()
        reached, hit, out = run_and_kill(lambda: unit(sweep), number, error)
        hits += hit
        problem = _came_out_wrong(out, error if hit else None)
        forget(error)
        problem = sweep.settle() or problem
        problem = problem or books.are_right(sweep.pool, sweep.observer)
        if problem:
            problems.append(f"{problem} ({unit.__name__.replace('_', ' ')})")
            sweep.renew()
        if not reached or len(problems) == BAD_ENOUGH:
            break
    return hits, problems


def _came_out_wrong(out: Any, error: BaseException | None) -> str:
    if out is error:
        return ""
    if out == "hung":
        return "the victim hung"
    if out is None:
        return "the kill was swallowed"
    return f"{type(out).__name__} came out instead of the kill"


SCENARIO = Scenario(
    name="kill_sweep",
    title="Kill sweep",
    about=(
        "A unit of work (a transaction, a nested one, one that is not ended, one that has to connect, "
        "one that waits in a full pool of 2, one behind which somebody waits) is killed at its k-th "
        "switch to the hub, for all k, by "
        "`GreenletExit`, `gevent.Timeout` and a bare `BaseException`. After each kill: it came out as "
        "itself, the whole maximum can be borrowed at once, every query returns its own token, the "
        "server has no transaction open and as many connections as the pool counts; who waits behind the "
        "victim is served. A unit and kind of "
        "kill is given up after 3 failures, so that the count for a failing pool is a lower bound."
    ),
    run=run,
    rows=(Row("PyMySQL", "pymysql"), Row("psycopg2", "psycopg2"), Row("psycopg 3", "psycopg")),
    limit=400,
    quick_limit=300,
)
