"""Dead connections are not lent, however busy the hub is, and closing what is idle harms nobody."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import gevent
import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.pool import QueuePool

from geventpool import ConnectionPool
from geventpool.sqlalchemy import GeventPool

from .dbapi import ALL, MYSQL, eventually, module_of, open_connection, run, server_of
from .killer import Killer
from .proxy import Proxy

HERE = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))
CLOSES = 1000 if os.environ.get("GEVENTPOOL_STRESS") else 100


@pytest.fixture(params=ALL)
def name(request: pytest.FixtureRequest) -> str:
    module_of(request.param)
    return str(request.param)


@pytest.fixture
def url(request: pytest.FixtureRequest, name: str) -> str:
    return str(server_of(request, name).url(name))


@pytest.fixture
def killer(url: str, name: str) -> Iterator[Killer]:
    with Killer(url, name in MYSQL) as killer:
        yield killer


@pytest.fixture(params=["ConnectionPool", "GeventPool"])
def pool(request: pytest.FixtureRequest, name: str, url: str) -> Iterator[Any]:
    def connect() -> Any:
        return open_connection(name, url)

    kind = ConnectionPool if request.param == "ConnectionPool" else GeventPool
    pool: Any = kind(connect)
    yield pool
    pool.core.close()


def lend(pool: Any) -> Any:
    return pool.connection() if isinstance(pool, ConnectionPool) else pool.connect()


def number_of(name: str, connection: Any) -> int:
    ask = "select connection_id()" if name in MYSQL else "select pg_backend_pid()"
    ((number,),) = run(connection, ask)
    return int(number)


def test_what_is_killed_while_the_hub_has_no_turn_is_not_lent(
    pool: Any, name: str, killer: Killer
) -> None:
    lent = [lend(pool) for _ in range(3)]
    numbers = [number_of(name, one) for one in lent]
    for one in lent:
        one.close()
    for number in numbers:
        killer.kill(number)
    again = [lend(pool) for _ in range(3)]
    assert not {number_of(name, one) for one in again} & set(numbers)
    for one in again:
        one.close()
    stats = pool.stats()
    assert (stats.closed, stats.pings, stats.opened) == ({"dead": 3}, 0, 6)


def test_queue_pool_lends_it(name: str, url: str, killer: Killer) -> None:
    pool = QueuePool(lambda: open_connection(name, url))
    with contextlib.closing(pool.connect()) as connection:
        number = number_of(name, connection)
    killer.kill(number)
    with contextlib.closing(pool.connect()) as connection:
        with pytest.raises((module_of(name).Error, OSError)):
            number_of(name, connection)
        connection.invalidate()
    pool.dispose()


def test_what_is_killed_while_it_is_lent_goes_to_nobody_else(
    pool: Any, name: str, killer: Killer
) -> None:
    pool.configure(max_size=1)
    numbers = []

    def wait_for_it() -> None:
        with contextlib.closing(lend(pool)) as connection:
            numbers.append(number_of(name, connection))

    lent = lend(pool)
    numbers.append(number_of(name, lent))
    (lent if isinstance(pool, ConnectionPool) else lent.dbapi_connection).rollback()
    next_one = gevent.spawn(wait_for_it)
    gevent.sleep(0)
    killer.kill(numbers[0])
    lent.close()
    next_one.get(timeout=10)
    assert numbers[0] != numbers[1]


CLOSING = """
from gevent import monkey; monkey.patch_all()
import logging, socket, sys
import gevent
from geventpool import ConnectionPool
from geventpool.sqlalchemy import GeventPool
from tests.integration.dbapi import open_connection, run

door, name, url, times = sys.argv[1:]
logging.disable(logging.CRITICAL)  # the pool closes it once more, which some drivers refuse
kind = {"ConnectionPool": ConnectionPool, "GeventPool": GeventPool}[door]
pool = kind(lambda: open_connection(name, url))
lend = pool.connection if door == "ConnectionPool" else pool.connect
taken = []
for time in range(int(times)):
    connection = lend()
    raw = connection.connection if door == "ConnectionPool" else connection.dbapi_connection
    assert run(connection, f"select {time}") == [(time,)]
    if door == "ConnectionPool":
        raw.rollback()
    connection.close()
    raw.close()
    if time % 3 == 1:  # the number of the socket is another's at once
        taken = socket.socketpair()
    if time % 2:
        gevent.sleep(0)
stats = pool.stats()
assert stats.opened == int(times), stats
print("fine")
"""


@pytest.mark.parametrize("door", ["ConnectionPool", "GeventPool"])
def test_who_closes_a_connection_that_he_has_given_back_harms_nobody(
    door: str, name: str, url: str
) -> None:
    arguments = [sys.executable, "-c", CLOSING, door, name, url, str(CLOSES)]
    done = subprocess.run(arguments, cwd=HERE, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "fine\n"), done.stderr


def test_an_idle_connection_has_one_descriptor(pool: Any) -> None:
    def count() -> int:
        return len(os.listdir("/proc/self/fd"))

    lend(pool).close()  # the hub's epoll is there now
    before = count()
    lent = [lend(pool) for _ in range(11)]
    for one in lent:
        one.close()
    assert pool.stats().idle == 11
    assert count() - before == 10


def test_what_is_killed_is_gone_before_anybody_asks(pool: Any, name: str, killer: Killer) -> None:
    with contextlib.closing(lend(pool)) as connection:
        number = number_of(name, connection)
    killer.kill(number)
    assert eventually(lambda: pool.stats().size == 0)
    assert pool.stats().closed == {"dead": 1}


@pytest.mark.parametrize("kind", [GeventPool, QueuePool])
@pytest.mark.parametrize("name", ["pymysql", "psycopg", "psycopg2"])
def test_pre_ping_finds_what_somebody_between_has_dropped_without_a_sign(
    kind: Any, name: str, url: str
) -> None:
    plain = create_engine(url).url
    with Proxy(str(plain.host), int(plain.port or 0)) as proxy:
        engine = create_engine(proxy.url(url), poolclass=kind, pool_pre_ping=True)

        def ask() -> int:
            with engine.connect() as connection:
                return int(connection.execute(text("select 7")).scalar_one())

        assert ask() == 7
        proxy.half_open(resets=True)
        if kind is GeventPool:
            [entry] = engine.pool.core.ledger.entries  # type: ignore[attr-defined]
            entry.idle_since -= 1.0  # as if it had been given back a second ago
        assert ask() == 7
        engine.dispose()


@pytest.mark.parametrize(
    ("settings", "pings"),
    [({"pre_ping": True}, 0), ({"pre_ping": True, "ping_after": 0}, 5), ({}, 0)],
)
@pytest.mark.parametrize("name", ["pymysql", "psycopg"])
def test_pre_ping_asks_at_each_checkout_only_if_it_is_told_so(
    name: str, url: str, settings: dict[str, Any], pings: int
) -> None:
    pool = ConnectionPool(lambda: open_connection(name, url), **settings)
    for _ in range(6):
        pool.connection().close()
    assert pool.stats().pings == pings
    pool.close()


@pytest.mark.parametrize("name", ["pymysql", "psycopg"])
def test_queries_cause_no_event(name: str, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[object] = []
    monkeypatch.setattr("geventpool.core.watch.Watch.tell", lambda _, events: told.extend(events))
    pool = ConnectionPool(lambda: open_connection(name, url))
    for number in range(50):
        with pool.connection() as connection:
            assert run(connection, f"select {number}") == [(number,)]
    gevent.sleep(0.01)
    assert told == []
    pool.close()


def test_without_an_epoll_the_socket_is_looked_at_when_somebody_asks(
    pool: Any, name: str, killer: Killer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("geventpool.core.watch._new_epoll", None)
    monkeypatch.setattr("geventpool.core.watch._watches.here", None, raising=False)
    lent = [lend(pool) for _ in range(3)]
    numbers = [number_of(name, one) for one in lent]
    for one in lent:
        one.close()
    for number in numbers:
        killer.kill(number)
    gevent.sleep(0.01)
    assert pool.stats().size == 3, "nobody was told"
    with contextlib.closing(lend(pool)) as connection:
        assert number_of(name, connection) not in numbers
    assert (pool.stats().closed, pool.stats().pings) == ({"dead": 3}, 0)
