"""Connections that are dropped without being given back."""

from __future__ import annotations

import gc
import os
import tempfile
from collections.abc import Callable
from typing import Any

import gevent

from . import books
from .base import Context, Row, Scenario
from .kills import KINDS, forget, run_and_kill

MAX_SIZE = 5
ROUNDS = 20


class _Cycle:
    def __init__(self, lent: Any) -> None:
        self.lent, self.me = lent, self


class Litter:
    """The ways to drop a connection, each with a transaction open."""

    def __init__(self, pool: Any) -> None:
        self.pool = pool

    def in_greenlets(self) -> None:
        greenlets = [gevent.spawn(self._lend_and_drop) for _ in range(MAX_SIZE)]
        gevent.joinall(greenlets, raise_error=True)

    def in_cycles(self) -> None:
        for _ in range(MAX_SIZE):
            _Cycle(self._lend())
        gc.collect()

    def collected_in_the_hub(self) -> None:
        for _ in range(MAX_SIZE):
            _Cycle(self._lend())
        gevent.get_hub().loop.run_callback(gc.collect)
        gevent.sleep(0)

    def _lend_and_drop(self) -> None:
        self._lend()

    def _lend(self) -> Any:
        lent = self.pool.lend()
        self.pool.begin(lent)
        lent.query("insert into dropped values (1)")
        return lent


def run(context: Context) -> None:
    observer = context.observer()
    observer.do("drop table if exists dropped")
    observer.do("create table dropped (x int)")
    gc.disable()  # it runs when we say so
    for way in (Litter.in_greenlets, Litter.in_cycles, Litter.collected_in_the_hub):
        _drop(context, observer, way)
    _kill_in_a_finalizer(context)


def _drop(context: Context, observer: Any, way: Callable[[Litter], None]) -> None:
    name = way.__name__.replace("_", " ")
    pool = context.make_pool(MAX_SIZE, timeout=2)
    litter = Litter(pool)
    rounds = context.pick(ROUNDS, 5, 3)
    with tempfile.TemporaryFile() as printed:
        stderr = os.dup(2)
        os.dup2(printed.fileno(), 2)
        problem, dropped = "", 0
        try:
            for _ in range(rounds):
                way(litter)
                dropped += MAX_SIZE
                gc.collect()
                problem = books.are_right(pool, observer, 3)
                if problem:
                    break
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            printed.seek(0)
            text = printed.read().decode(errors="replace")
    noise = text.count("Traceback") + text.count("Exception ignored")
    context.figures[f"opened in all, {name}"] = pool.connects.opened
    context.figures[f"errors printed, {name}"] = noise
    context.expect(not problem, f"{name}, after {dropped} dropped: {problem}")
    context.expect(noise == 0, f"{name}: {noise} errors printed")
    opened = pool.connects.opened
    context.expect(opened <= MAX_SIZE, f"{name}: {opened} connections opened")
    books.end(pool)
    observer.clear()


def _kill_in_a_finalizer(context: Context) -> None:
    """Whatever switches while a finalizer runs can be hit there; the kill has to come out."""
    lost = hits = 0
    damaged: list[Any] = []  # kept, lest they are collected in the middle of a later kill
    for kind in KINDS:
        pool = context.make_pool(MAX_SIZE, timeout=2)
        books.warm_up(pool, 1)

        def unit(pool: Any = pool) -> None:
            _Cycle(Litter(pool)._lend())
            gc.collect()
            gevent.sleep(0.001)

        for number in range(1, 30):
            error = kind()
            reached, hit, out = run_and_kill(unit, number, error)
            hits += hit
            lost += hit and out is not error
            forget(error)
            if not reached:
                break
            gc.collect()
            if books.borrow_all(pool, 3):
                books.end(pool)
                damaged.append(pool)
                pool = context.make_pool(MAX_SIZE, timeout=2)
                unit.__defaults__ = (pool,)
    context.figures["kills lost in a finalizer"] = f"{lost} of {hits}"
    context.expect(lost == 0, f"{lost} kills lost in a finalizer")


SCENARIO = Scenario(
    name="garbage",
    title="Garbage",
    about=(
        "Connections of a pool of 5 are dropped without `close()`, each in a transaction: by greenlets "
        "that end, in reference cycles, and in cycles that are collected while the hub runs. Each time "
        "the whole maximum can be borrowed again at once, the server has no transaction open, nothing is "
        "printed, and no sound connection is thrown away (not more than 5 are opened in all). Then a "
        "greenlet that collects such a cycle is killed at each of its switches: the kill comes out."
    ),
    run=run,
    rows=(Row("PyMySQL", "pymysql"), Row("psycopg2", "psycopg2"), Row("psycopg 3", "psycopg")),
    limit=120,
)
