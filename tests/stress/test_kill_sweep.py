"""A unit of work on a real server, killed at its first switch to the hub, its second, and so on.

After each kill: it came out as itself, the whole maximum can be borrowed at once, no answer is another's,
the server has no transaction open and no connection that the pool does not count.
"""

from __future__ import annotations

import gc
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import greenlet
import pytest
from sqlalchemy import Engine, create_engine, text

from geventpool.sqlalchemy import GeventPool

MAX_SIZE = 2
LAST_SWITCH = 60


class Kill(BaseException):
    """Neither an Exception nor anything that gevent knows."""


class Sweep:
    """A pool, the units of work, and a connection beside the pool that asks the server."""

    def __init__(self, url: str) -> None:
        self.engine = create_engine(url, poolclass=GeventPool, max_size=MAX_SIZE, pool_timeout=5)
        self._beside: Engine = create_engine(url, isolation_level="AUTOCOMMIT")
        self.observer = self._beside.connect()
        self.is_mysql = self.engine.dialect.name == "mysql"
        self.nap = text(f"select {'sleep' if self.is_mysql else 'pg_sleep'}(0.003)")
        self.observer.execute(text("drop table if exists swept"))
        self.observer.execute(text("create table swept (x int)"))

    def close(self) -> None:
        self.engine.dispose()
        self.observer.close()
        self._beside.dispose()

    def transaction(self) -> None:
        with self.engine.begin() as connection:
            connection.execute(text("insert into swept values (1)"))
            connection.execute(self.nap)

    def nested_transaction(self) -> None:
        with self.engine.begin() as connection, connection.begin_nested():
            connection.execute(text("insert into swept values (1)"))
            connection.execute(self.nap)

    def raw_connection_left_in_a_transaction(self) -> None:
        connection = self.engine.raw_connection()
        try:
            cursor = connection.cursor()
            cursor.execute("insert into swept values (1)")
            cursor.execute(str(self.nap))
            cursor.close()
        finally:
            connection.close()

    def opening(self) -> None:
        self.engine.pool.core.close_idle("disposed")
        self.transaction()

    def disposing(self) -> None:
        self.transaction()
        self.engine.pool.dispose()

    def waiting_in_a_full_pool(self) -> None:
        holders = [gevent.spawn(self._hold, 0.005) for _ in range(MAX_SIZE)]
        gevent.sleep(0)
        try:
            self.transaction()
        finally:
            gevent.joinall(holders)

    def _hold(self, seconds: float) -> None:
        with self.engine.connect():
            gevent.sleep(seconds)

    def check(self) -> None:
        """What must be true after any kill."""
        pool = self.engine.pool
        with gevent.Timeout(10):  # it hangs, or it does not
            connections = [self.engine.connect() for _ in range(MAX_SIZE)]
            for token, connection in enumerate(connections):
                assert connection.execute(text(f"select {token}")).scalar_one() == token
            for connection in connections:
                connection.close()
        stats = pool.stats()
        assert (stats.in_use, stats.waiting, stats.opening) == (0, 0, 0)
        # The server needs a moment to notice that a socket is gone: a backend whose query was
        # abandoned ends it first, and is then idle in its transaction until it reads.
        for _ in range(100):
            left = self._count(self._transactions), self._count(self._connections)
            if left == (0, pool.stats().size):
                return
            gevent.sleep(0.02)
            gc.collect()
        assert left == (0, pool.stats().size)

    def _count(self, query: str) -> int:
        return int(self.observer.execute(text(query)).scalar_one())

    @property
    def _transactions(self) -> str:
        if self.is_mysql:
            return "select count(*) from information_schema.innodb_trx"
        return "select count(*) from pg_stat_activity where state like 'idle in%'"

    @property
    def _connections(self) -> str:
        if self.is_mysql:
            return (
                "select count(*) from information_schema.processlist"
                " where db = database() and id <> connection_id()"
            )
        return (
            "select count(*) from pg_stat_activity where backend_type = 'client backend'"
            " and datname = current_database() and pid <> pg_backend_pid()"
        )


UNITS = [
    Sweep.transaction,
    Sweep.nested_transaction,
    Sweep.raw_connection_left_in_a_transaction,
    Sweep.opening,
    Sweep.disposing,
    Sweep.waiting_in_a_full_pool,
]


@pytest.fixture(params=["pymysql", "psycopg", "psycopg2", "pg8000"])
def sweep(request: pytest.FixtureRequest) -> Iterator[Sweep]:
    server = request.getfixturevalue("mariadb" if request.param == "pymysql" else "postgresql")
    sweep = Sweep(server.url(request.param))
    yield sweep
    sweep.close()
    gc.collect()


def run_and_kill(
    unit: Callable[[], None], number: int, error: BaseException
) -> tuple[gevent.Greenlet, bool]:
    """Runs a unit of work and throws the error at its n-th switch away from itself.

    Returns:
        The greenlet, and whether there was an n-th switch. What it waited for may have come before
        the error did, so it need not have been hit.
    """
    victim = gevent.Greenlet(unit)
    switches = itertools.count(1)
    struck = []

    def strike() -> None:
        if not victim.dead:
            victim.throw(error)

    def trace(kind: str, greenlets: tuple[Any, Any]) -> None:
        if kind == "switch" and greenlets[0] is victim and next(switches) == number:
            struck.append(number)
            gevent.get_hub().loop.run_callback(strike)

    before = greenlet.settrace(trace)
    hub = gevent.get_hub()
    was_error, hub.NOT_ERROR = hub.NOT_ERROR, (BaseException,)  # nothing to print: it is asserted
    try:
        victim.start()
        victim.join(10)
    finally:
        hub.NOT_ERROR = was_error
        greenlet.settrace(before)
    assert victim.dead
    return victim, bool(struck)


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.__name__)
@pytest.mark.parametrize("kind", [gevent.GreenletExit, gevent.Timeout, Kill])
def test_a_kill_at_any_switch_comes_out_as_itself_and_loses_nothing(
    sweep: Sweep, unit: Callable[[Sweep], None], kind: type[BaseException]
) -> None:
    unit(sweep)
    hits = 0
    for number in range(1, LAST_SWITCH):
        error = kind()
        victim, has_switched = run_and_kill(lambda: unit(sweep), number, error)
        came_out = victim.exception if victim.exception is not None else victim.value
        assert came_out is None or came_out is error, f"at switch {number}: {came_out!r}"
        del victim
        sweep.check()
        hits += came_out is error
        if not has_switched:
            assert hits, "no switch was ever hit"
            return
    pytest.fail(f"the unit switches more than {LAST_SWITCH} times")
