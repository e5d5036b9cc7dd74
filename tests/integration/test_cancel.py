"""Which connections abandoned queries are cancelled through, and how many the server has meanwhile."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest
from gevent.lock import Semaphore
from pymysql.constants import FIELD_TYPE
from pymysql.converters import conversions
from sqlalchemy import create_engine

from geventpool import ConnectionPool
from geventpool.sqlalchemy import GeventPool

from .dbapi import eventually, open_connection, run, set_autocommit

MAX_SIZE = 4
DOORS = ("ConnectionPool", "GeventPool")
WHOLE_NUMBERS = [FIELD_TYPE.TINY, FIELD_TYPE.LONG, FIELD_TYPE.LONGLONG]


class Door:
    """A pool of PyMySQL's connections to a database of its own, and what its server says of them.

    Attributes:
        pool: the door itself.
        connects: how often a connection was opened, for whatever purpose.
        most: the most that the server was seen to have at once.
    """

    def __init__(self, kind: str, url: str, observer: Any) -> None:
        self._url = url
        self._observer = observer
        self._asking = Semaphore(1)
        self.connects = self.most = 0
        self.pool: Any
        if kind == "ConnectionPool":
            self.pool = ConnectionPool(self._connect, max_size=MAX_SIZE)
            self.lend: Callable[[], Any] = self.pool.connection
        else:
            engine = create_engine(
                url, poolclass=GeventPool, creator=self._connect, max_size=MAX_SIZE
            )
            self.pool = engine.pool
            self.lend = lambda: contextlib.closing(engine.raw_connection())

    def _connect(self) -> Any:
        self.connects += 1
        return open_connection("pymysql", self._url)

    def count(self, query: str = "%") -> int:
        """How many connections the server has, or how many that are at such a query."""
        with self._asking:
            ((found,),) = run(
                self._observer,
                "select count(*) from information_schema.processlist"
                f" where db = 'geventpool_cancel' and ifnull(info, '') like '{query}'",
            )
        return int(found)

    def ask(self, sql: str) -> None:
        with self.lend() as connection:
            run(connection, sql)

    def abandon(self, times: int = 1) -> None:
        """Leaves queries that would take longer than any test, all in one moment; they are ended."""

        def leave() -> None:
            with contextlib.suppress(gevent.GreenletExit), self.lend() as connection:
                ready.append(connection)
                while len(ready) < times:
                    gevent.sleep(0.001)
                run(connection, "select sleep(300)")

        ready: list[Any] = []
        victims = [gevent.spawn(leave) for _ in range(times)]
        assert eventually(lambda: self.count("select sleep(300)") >= times)
        gevent.killall(victims)
        assert eventually(lambda: not self.count("select sleep(300)"))

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Has the server asked again and again how many connections there are."""

        is_over = False

        def watch() -> None:
            while not is_over:
                self.most = max(self.most, self.count())
                gevent.sleep(0)

        watcher = gevent.spawn(watch)
        try:
            yield
        finally:
            is_over = True
            watcher.get()

    def settle(self) -> None:
        """Waits until all that was abandoned is over, and checks the books."""
        assert eventually(lambda: self.pool.stats().closing == 0)
        self.pool.core.ledger.check()
        assert eventually(lambda: self.count() == self.pool.stats().size)


@pytest.fixture(params=DOORS)
def door(request: pytest.FixtureRequest, mariadb: Any) -> Iterator[Door]:
    observer = open_connection("pymysql", mariadb.url("pymysql"))
    set_autocommit("pymysql", observer, True)
    run(observer, "create or replace database geventpool_cancel")
    made = Door(request.param, mariadb.url("pymysql", "geventpool_cancel"), observer)
    yield made
    made.pool.close()
    made.pool.core.close_idle("closed")
    run(observer, "drop database geventpool_cancel")
    observer.close()


def test_while_connections_come_back_nothing_is_opened_beside_the_pool(door: Door) -> None:
    is_over = False

    def work() -> None:
        while not is_over:
            door.ask("select sleep(0.005)")

    with door.watching():
        workers = [gevent.spawn(work) for _ in range(8)]
        for _ in range(5):
            door.abandon(times=2)
        door.settle()
        is_over = True
        gevent.joinall(workers, raise_error=True)
    stats = door.pool.stats()
    assert (stats.cancelled, stats.cancel_failures) == (10, 0)
    assert door.connects == stats.opened
    assert door.most <= MAX_SIZE


def test_what_is_idle_cancels_and_stays_fit_for_the_next_borrower(door: Door) -> None:
    with door.lend() as connection:
        door.ask("select 1")
        run(connection, "select 1")
    assert door.pool.stats().idle == 2
    door.abandon()
    door.settle()
    stats = door.pool.stats()
    assert (stats.idle, stats.cancelled, stats.cancel_failures) == (1, 1, 0)
    with door.lend() as connection:
        assert run(connection, "select @@in_transaction") == [(0,)]
    assert door.connects == door.pool.stats().opened == 2


def test_where_all_are_abandoned_one_connection_beside_the_pool_cancels_them_all(
    door: Door,
) -> None:
    with door.watching():
        door.abandon(times=MAX_SIZE)
        door.settle()
    stats = door.pool.stats()
    assert (stats.size, stats.cancelled, stats.cancel_failures) == (0, MAX_SIZE, 0)
    assert door.connects == stats.opened + 1
    assert door.most <= MAX_SIZE + 1


@pytest.mark.parametrize(
    "arguments",
    [{"use_unicode": False}, {"conv": {**conversions, **dict.fromkeys(WHOLE_NUMBERS, str)}}],
    ids=["bytes", "converters"],
)
def test_whatever_a_program_has_values_made_into_its_queries_are_cancelled(
    mariadb: Any, arguments: dict[str, Any]
) -> None:
    url = mariadb.url("pymysql")
    observer = open_connection("pymysql", url)
    pool = ConnectionPool(lambda: open_connection("pymysql", url, **arguments), max_size=2)
    with pool.connection() as idle, pool.connection():
        assert run(idle, "select 1")
    with gevent.Timeout(0.05, False), pool.connection() as connection:
        run(connection, "select sleep(290)")
    assert eventually(lambda: pool.stats().closing == 0)
    stats = pool.stats()
    assert (stats.cancelled, stats.cancel_failures, stats.opened) == (1, 0, 2)
    assert stats.closed == {"abandoned": 1}
    pool.close()
    observer.close()


NATIVE = """
import sys, threading, time
import pymysql
from geventpool import ConnectionPool

host, port, user, password, database = sys.argv[1:]

def connect():
    return pymysql.connect(host=host, port=int(port), user=user, password=password,
                           database=database)

def ask():
    for _ in range(4):
        try:
            with pool.connection() as connection, connection.cursor() as cursor:
                connection._read_timeout = 0.2  # not for what cancels
                cursor.execute("select sleep(280)")
        except pymysql.err.OperationalError:
            pass

pool = ConnectionPool(connect, max_size=6, cancel_deadline=60)
threads = [threading.Thread(target=ask, daemon=True) for _ in range(6)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join(30)
deadline = time.monotonic() + 30
stats = pool.stats()
while (stats.in_use or stats.closing) and time.monotonic() < deadline:  # a thread only posts it
    time.sleep(0.01)
    stats = pool.stats()
assert (stats.closing, stats.in_use, stats.cancel_failures) == (0, 0, 0), pool.status()
assert stats.cancelled == stats.closed["abandoned"] == 24, pool.status()
"""


def test_native_threads_queries_are_cancelled_however_many_are_abandoned_at_once(
    mariadb: Any,
) -> None:
    words = (mariadb.host, mariadb.port, mariadb.user, mariadb.password, mariadb.database)
    done = subprocess.run(
        [sys.executable, "-c", NATIVE, *map(str, words)],
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
