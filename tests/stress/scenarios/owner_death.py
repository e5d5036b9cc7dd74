"""Greenlets that end while they hold a connection that something else still refers to."""

from __future__ import annotations

import logging
from typing import Any

import gevent

from . import books
from .base import Context, Row, Scenario

MAX_SIZE = 5
PATIENCE = 3.0


class _Records(logging.Handler):
    """What the pool's library has logged."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.told: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.told.append(record.getMessage())


def run(context: Context) -> None:
    records = _Records()
    logging.getLogger().addHandler(records)
    pool = context.make_pool(MAX_SIZE, timeout=PATIENCE + 2)
    books.warm_up(pool, MAX_SIZE)
    kept: list[Any] = []

    def end_while_holding() -> None:
        lent = pool.lend()
        lent.query("select 1")
        kept.append(lent)

    gevent.joinall([gevent.spawn(end_while_holding) for _ in range(2)], raise_error=True)
    began = books.now()
    problem = books.borrow_all(pool, PATIENCE)
    took = books.now() - began
    reports = sum(__file__ in told for told in records.told)  # where it was spawned, or taken
    context.figures["reported with a stack"] = f"{reports} of 2"
    context.figures["places back after, s"] = "never" if problem else round(took, 1)
    context.expect(not problem, f"after {PATIENCE:g} s {problem}")
    context.expect(reports == 2, f"{reports} of 2 were reported")
    kept.clear()
    _hand_over(context)


def _hand_over(context: Context) -> None:
    """Whoever goes on using what it was given, holds it: that is nobody's death."""
    pool = context.make_pool(MAX_SIZE, timeout=2)
    kept: list[Any] = []
    problems: list[str] = []

    def take() -> None:
        kept.append(pool.lend())

    def stream() -> None:
        lent = kept.pop()
        try:
            for token in range(context.pick(12, 12, 8)):
                gevent.sleep(0.25)
                if lent.query(f"select {token}") != token:
                    problems.append("a wrong answer")
            lent.close()
        except Exception as error:
            problems.append(type(error).__name__)

    gevent.spawn(take).join()
    gevent.spawn(stream).join()
    context.figures["handed over to another greenlet"] = problems[0] if problems else "works"
    context.expect(not problems, f"a connection in use by another greenlet: {problems[:1]}")


SCENARIO = Scenario(
    name="owner_death",
    title="Owner's death",
    about=(
        f"Two greenlets end while they hold connections of a pool of {MAX_SIZE}, to which something else "
        f"refers. It is reported with a stack, and their places are back within {PATIENCE:g} s. A "
        "connection that another greenlet goes on using, as streaming does, is left alone."
    ),
    run=run,
    rows=(Row("psycopg 3", "psycopg"),),
    limit=60,
)
