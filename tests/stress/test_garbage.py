"""Connections that nobody gives back: the references are dropped, and the garbage collector does the rest.

It may run anywhere, in the hub too, where nothing may block.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.engine import Engine

from geventpool import ConnectionPool, PoolTimeout
from geventpool.pool import BasePool
from geventpool.sqlalchemy import GeventPool

from ..integration.dbapi import open_connection, run
from .server_side import IS_WHOLE, Observer, make_databases
from .test_kill_sweep import Kill, Strike

MAX_SIZE = 3
ROUNDS = 10 if IS_WHOLE else 3
LONGEST = 30


def prepare(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("create table litter (x int)"))
        connection.execute(text("create table pages (words varchar(2000))"))
        for _ in range(100):
            connection.execute(text("insert into pages values (:words)"), {"words": "w" * 2000})


@pytest.fixture(scope="module")
def url_of(request: pytest.FixtureRequest) -> Iterator[Callable[[str], str]]:
    yield from make_databases(request, "geventpool_garbage", prepare)


class Plain:
    """A pool of DBAPI connections."""

    def __init__(self, driver: str, url: str) -> None:
        self.observer = Observer(url)
        self.pool: BasePool = self.make(driver, url)

    def make(self, driver: str, url: str) -> BasePool:
        return ConnectionPool(
            lambda: open_connection(driver, url), max_size=MAX_SIZE, timeout=LONGEST
        )

    def lend(self) -> Any:
        return self.pool.connection()  # type: ignore[attr-defined]

    def insert(self, lent: Any) -> None:
        """Leaves a transaction open."""
        run(lent, "insert into litter values (1)")

    def close(self) -> None:
        self.pool.close()
        self.observer.close()

    def litter(self) -> None:
        """Borrows, begins a transaction, and drops it all."""
        lent = self.lend()
        self.insert(lent)

    def litter_in_a_cycle(self) -> None:
        cycle: list[Any] = [self.lend()]
        self.insert(cycle[0])
        cycle.append(cycle)


class SQLAlchemys(Plain):
    """An engine."""

    def make(self, driver: str, url: str) -> BasePool:
        self.engine = create_engine(
            url, poolclass=GeventPool, max_size=MAX_SIZE, pool_timeout=LONGEST
        )
        return self.engine.pool  # type: ignore[return-value]

    def lend(self) -> Any:
        return self.engine.connect()

    def insert(self, lent: Any) -> None:
        lent.execute(text("insert into litter values (1)"))


@pytest.fixture(params=["pymysql", "psycopg2", "psycopg"])
def url(request: pytest.FixtureRequest, url_of: Callable[[str], str]) -> tuple[str, str]:
    return request.param, url_of(request.param)


@pytest.fixture(params=[Plain, SQLAlchemys])
def door(request: pytest.FixtureRequest, url: tuple[str, str]) -> Iterator[Plain]:
    door = request.param(*url)
    gc.collect()
    gc.freeze()  # what is there already makes each collection slow
    gc.disable()  # it runs when the test says so
    yield door
    gc.enable()
    gc.unfreeze()
    door.close()


@pytest.fixture(autouse=True)
def printed(monkeypatch: pytest.MonkeyPatch, capfd: Any) -> Iterator[list[str]]:
    """What the hub, the interpreter and the file descriptors had to say: nothing, in the end."""
    said: list[str] = []
    hub = gevent.get_hub()

    def handle_error(_: object, kind: type, error: object, __: object) -> None:
        if not issubclass(kind, hub.NOT_ERROR):  # as while a victim is struck
            said.append(f"the hub: {error!r}")

    monkeypatch.setattr(hub, "handle_error", handle_error)
    # As text: whatever is kept of them alive would be finalized in another test.
    monkeypatch.setattr(
        sys, "unraisablehook", lambda what: said.append(f"{what.object!r}: {what.exc_value!r}")
    )
    yield said
    gc.collect()
    assert said == []
    assert capfd.readouterr() == ("", "")


def collect_in_the_hub() -> None:
    gevent.get_hub().loop.run_callback(gc.collect)
    gevent.sleep(0.001)


def everything_is_back(door: Plain, ids: set[int]) -> None:
    """The same connections as before, all of them, without a transaction."""
    with gevent.Timeout(LONGEST):
        lent = [door.lend() for _ in range(MAX_SIZE)]
    with pytest.raises(PoolTimeout):
        door.pool.core.acquire(0)
    for one in lent:
        one.close()
    lent.clear()
    del one
    stats = door.pool.stats()
    assert (stats.opened, stats.closed, stats.owners_ended) == (MAX_SIZE, {}, 0)
    door.observer.assert_settles(lambda: MAX_SIZE)
    assert door.observer.ids() == ids


def fill(door: Plain) -> set[int]:
    """Opens the whole maximum."""
    lent = [door.lend() for _ in range(MAX_SIZE)]
    for one in lent:
        one.close()
    return door.observer.ids()


def in_this_greenlet(door: Plain) -> None:
    door.litter()
    gc.collect()  # SQLAlchemy's connection and its transaction refer to each other


def in_greenlets_that_end(door: Plain) -> None:
    gevent.joinall([gevent.spawn(door.litter) for _ in range(MAX_SIZE)], raise_error=True)
    gc.collect()


def in_a_cycle(door: Plain) -> None:
    door.litter_in_a_cycle()
    gc.collect()


def in_cycles_of_greenlets_that_end(door: Plain) -> None:
    litterers = [gevent.spawn(door.litter_in_a_cycle) for _ in range(MAX_SIZE)]
    gevent.joinall(litterers, raise_error=True)
    gc.collect()


def in_cycles_collected_in_the_hub(door: Plain) -> None:
    for _ in range(MAX_SIZE):
        door.litter_in_a_cycle()
    collect_in_the_hub()


def in_cycles_collected_in_the_hub_while_others_wait(door: Plain) -> None:
    def wait() -> None:
        door.lend().close()

    for _ in range(MAX_SIZE):
        door.litter_in_a_cycle()
    waiting = [gevent.spawn(wait) for _ in range(5)]
    gevent.sleep(0)
    assert door.pool.stats().waiting == 5
    collect_in_the_hub()
    gevent.joinall(waiting, timeout=LONGEST, raise_error=True)
    assert all(one.dead for one in waiting)


WAYS = [
    in_this_greenlet,
    in_greenlets_that_end,
    in_a_cycle,
    in_cycles_of_greenlets_that_end,
    in_cycles_collected_in_the_hub,
    in_cycles_collected_in_the_hub_while_others_wait,
]


@pytest.mark.parametrize("way", WAYS)
def test_dropped_connections_come_back_sound_and_silently(
    door: Plain, way: Callable[[Plain], None]
) -> None:
    ids = fill(door)
    for _ in range(ROUNDS):
        way(door)
    everything_is_back(door, ids)


@pytest.mark.parametrize("kind", [gevent.GreenletExit, gevent.Timeout, Kill])
def test_a_kill_that_arrives_while_a_finalizer_runs_is_not_lost_in_it(
    door: Plain, kind: type[BaseException]
) -> None:
    """Whatever the finalizer had to wait for would be the greenlet's first switch."""
    ids = fill(door)

    def collect() -> str:
        gc.collect()
        gevent.sleep(LONGEST)
        return "lived on"

    for _ in range(ROUNDS):
        door.litter_in_a_cycle()
        error = kind()
        victim = gevent.Greenlet(collect)
        with Strike(victim, 1, error, 0) as strike:
            victim.start()
            victim.join(LONGEST)
        assert strike.has_hit
        assert (victim.exception or victim.value) is error
        del victim, error, strike
    everything_is_back(door, ids)


def test_a_time_out_around_work_that_is_collected_inside_ends_that_work(door: Plain) -> None:
    ids = fill(door)
    for _ in range(ROUNDS):
        door.litter_in_a_cycle()
        with pytest.raises(gevent.Timeout), gevent.Timeout(0.001):
            gc.collect()
            gevent.sleep(LONGEST)
    everything_is_back(door, ids)


@pytest.mark.filterwarnings("ignore:<psycopg.ServerCursor:ResourceWarning")
@pytest.mark.filterwarnings("ignore:Previous unbuffered result:UserWarning")
def test_a_result_dropped_half_read_and_collected_in_the_hub_is_silent_and_costs_no_place(
    url: tuple[str, str],
) -> None:
    """PyMySQL's finalizer of such a result would read the rest of it, wherever it runs."""
    door = SQLAlchemys(*url)
    is_mysql = door.observer.is_mysql
    # So slow that the rest is still to come: what had come already could be read without blocking.
    pages = text(f"select words, {'sleep' if is_mysql else 'pg_sleep'}(0.005) from pages")

    def litter() -> None:
        streaming = door.lend().execution_options(stream_results=True, max_row_buffer=5)
        cycle: list[Any] = [streaming.execute(pages)]
        cycle[0].fetchmany(5)
        cycle.append(cycle)

    gc.collect()
    gc.disable()
    try:
        fill(door)
        for _ in range(ROUNDS):
            litter()
            collect_in_the_hub()
        with gevent.Timeout(LONGEST):
            lent = [door.lend() for _ in range(MAX_SIZE)]
        for one in lent:
            assert one.execute(text("select 42")).scalar_one() == 42
            one.close()
        door.observer.assert_settles(lambda: door.pool.stats().size)
    finally:
        gc.enable()
        door.close()
