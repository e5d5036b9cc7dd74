"""GeventPool with SQLAlchemy against real servers: what a user is promised."""

from __future__ import annotations

import gc
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import gevent
import pytest
from gevent.event import Event
from sqlalchemy import create_engine, event, exc, text
from sqlalchemy.engine import Engine
from sqlalchemy.pool import QueuePool

import geventpool
from geventpool.sqlalchemy import GeventPool, wrap

from .dbapi import eventually
from .wire import Wire

ROOT = Path(__file__).resolve().parents[2]
DRIVERS = ["pymysql", "psycopg", "psycopg2", "pg8000"]


@pytest.fixture(params=DRIVERS)
def url(request: pytest.FixtureRequest) -> str:
    return server_of(request, request.param).url(request.param)


def server_of(request: pytest.FixtureRequest, driver: str) -> Any:
    return request.getfixturevalue("mariadb" if driver == "pymysql" else "postgresql")


@pytest.fixture
def engine_of() -> Iterator[Callable[..., Engine]]:
    """Makes engines that are closed at the end, and an engine beside the pool to ask the server."""
    made: list[Engine] = []

    def engine_of(url: str, **arguments: Any) -> Engine:
        arguments.setdefault("poolclass", GeventPool)
        made.append(create_engine(url, **arguments))
        return made[-1]

    yield engine_of
    for engine in made:
        engine.dispose()


def borrow_at_once(engine: Engine, number: int) -> None:
    """Makes the pool hold so many idle connections."""
    connections = [engine.connect() for _ in range(number)]
    for connection in connections:
        connection.close()


def own_connection_ids(engine: Engine, number: int) -> set[int]:
    ask = "select connection_id()" if engine.dialect.name == "mysql" else "select pg_backend_pid()"
    connections = [engine.connect() for _ in range(number)]
    ids = {connection.execute(text(ask)).scalar_one() for connection in connections}
    for connection in connections:
        connection.close()
    return ids


def kill_from_the_server_side(observer: Engine, ids: set[int]) -> None:
    with observer.connect() as connection:
        for number in ids:
            if observer.dialect.name == "mysql":
                connection.execute(text(f"kill {number}"))
            else:
                connection.execute(text(f"select pg_terminate_backend({number})"))


def test_zero_configuration_works(url: str, engine_of: Callable[..., Engine]) -> None:
    engine = engine_of(url)

    def request() -> int:
        with engine.connect() as connection:
            return connection.execute(text("select 7")).scalar_one()

    greenlets = [gevent.spawn(request) for _ in range(100)]
    gevent.joinall(greenlets, raise_error=True)
    assert {greenlet.value for greenlet in greenlets} == {7}
    stats = engine.pool.stats()
    assert stats.opened <= stats.max_size == 20
    assert stats.in_use == stats.waiting == 0


def test_one_sequential_client_makes_10000_checkouts_with_one_connection(
    mariadb: Any, engine_of: Callable[..., Engine]
) -> None:
    engine = engine_of(mariadb.url("pymysql"))
    for _ in range(10_000):
        engine.pool.connect().close()
    stats = engine.pool.stats()
    assert (stats.opened, stats.checkouts, stats.pings) == (1, 10_000, 0)


@pytest.mark.parametrize("pre_ping", [False, True])
def test_connections_killed_by_the_server_are_never_lent(
    request: pytest.FixtureRequest, engine_of: Callable[..., Engine], url: str, pre_ping: bool
) -> None:
    observer = engine_of(url, isolation_level="AUTOCOMMIT")
    plain = observer.url
    with Wire(plain.host, plain.port) as wire:
        engine = engine_of(plain.set(host="127.0.0.1", port=wire.port), pool_pre_ping=pre_ping)
        kill_from_the_server_side(observer, own_connection_ids(engine, 10))
        assert eventually(lambda: engine.pool.stats().closed.get("dead") == 10)
        wire.reset()
        for _ in range(100):
            with engine.connect() as connection:
                assert connection.execute(text("select 2")).scalar_one() == 2
        assert engine.pool.stats().pings == 0
        assert wire.opened == 1
        assert b"SELECT 1" not in wire.sent
        assert b"\x01\x00\x00\x00\x0e" not in wire.sent, "COM_PING"


def test_pings_are_not_sent_by_the_servers_own_count(
    mariadb: Any, engine_of: Callable[..., Engine]
) -> None:
    observer = engine_of(mariadb.url("pymysql"), isolation_level="AUTOCOMMIT")
    engine = engine_of(mariadb.url("pymysql"), pool_pre_ping=True)

    def pings() -> int:
        return server_count(observer, "Com_admin_commands")

    kill_from_the_server_side(observer, own_connection_ids(engine, 5))
    assert eventually(lambda: engine.pool.stats().size == 0)
    before = pings()
    for _ in range(100):
        with engine.connect() as connection:
            connection.execute(text("select 2"))
    assert pings() == before


def server_count(observer: Engine, name: str) -> int:
    with observer.connect() as connection:
        return int(connection.execute(text(f"show global status like '{name}'")).one()[1])


def test_a_transaction_costs_two_round_trips_with_pymysql(
    mariadb: Any, engine_of: Callable[..., Engine]
) -> None:
    url = mariadb.url("pymysql")
    observer = engine_of(url, isolation_level="AUTOCOMMIT")

    def statements_of(**arguments: Any) -> float:
        engine = engine_of(url, **arguments)
        with engine.begin() as connection:
            connection.execute(text("select 1"))
        names = ("Questions", "Com_admin_commands")
        before = sum(server_count(observer, name) for name in names)
        for _ in range(100):
            with engine.begin() as connection:
                connection.execute(text("select 1"))
        after = sum(server_count(observer, name) for name in names)
        return round((after - before) / 100, 1)

    assert statements_of() == 2
    assert statements_of(pool_pre_ping=True) == 2
    assert statements_of(poolclass=QueuePool) == 3
    assert statements_of(poolclass=QueuePool, pool_pre_ping=True) == 4


def test_an_open_transaction_is_always_rolled_back(
    url: str, engine_of: Callable[..., Engine]
) -> None:
    engine = engine_of(url, pool_size=1, max_overflow=0)
    with engine.begin() as connection:
        connection.execute(text("drop table if exists leftovers"))
        connection.execute(text("create table leftovers (id int primary key)"))
    for number in range(3):
        raw = engine.raw_connection()
        cursor = raw.cursor()
        cursor.execute(f"insert into leftovers values ({number})")
        cursor.close()
        raw.close()
        with engine.connect() as connection:
            assert connection.execute(text("select count(*) from leftovers")).scalar_one() == 0


def test_a_query_that_is_killed_costs_its_connection_and_nothing_else(
    url: str, engine_of: Callable[..., Engine]
) -> None:
    engine = engine_of(url, pool_size=1, max_overflow=0)
    nap = "sleep" if engine.dialect.name == "mysql" else "pg_sleep"
    for use in ("core", "raw"):
        before = own_connection_ids(engine, 1)
        with pytest.raises(gevent.Timeout), gevent.Timeout(0.1):
            if use == "core":
                with engine.connect() as connection:
                    connection.execute(text(f"select {nap}(1)"))
            else:
                raw = engine.raw_connection()
                try:
                    raw.cursor().execute(f"select {nap}(1)")
                finally:
                    raw.close()
        assert not own_connection_ids(engine, 1) & before
        with engine.connect() as connection:
            assert connection.execute(text("select 41 + 1")).scalar_one() == 42
    stats = engine.pool.stats()
    assert stats.size == stats.idle == 1


CONNECT = 1.0


def test_a_burst_on_warm_connections_does_not_open_one_for_each_caller(
    mariadb: Any, engine_of: Callable[..., Engine]
) -> None:
    """50 greenlets, 5 warm connections that took 1 s to open, a query of 2 ms, and no further connect."""

    def served_and_opened(connect_time: float, **arguments: Any) -> tuple[int, int]:
        engine = engine_of(mariadb.url("pymysql"), **arguments)
        opened, served, may_open = [], [], Event()
        may_open.set()

        @event.listens_for(engine, "do_connect")
        def slowly(*_: Any) -> None:
            opened.append(1)
            gevent.sleep(connect_time)
            may_open.wait()

        borrow_at_once(engine, 5)
        warm = len(opened)
        may_open.clear()

        def request() -> None:
            with engine.connect() as connection:
                connection.execute(text("select sleep(0.002)"))
            served.append(1)

        requests = [gevent.spawn(request) for _ in range(50)]
        is_ours = isinstance(engine.pool, GeventPool)
        # QueuePool's callers open for themselves, and wait for that.
        assert eventually(lambda: len(served) + (0 if is_ours else len(opened) - warm) == 50)
        found = len(served), len(opened) - warm
        may_open.set()
        gevent.joinall(requests, raise_error=True)
        return found

    # Nobody waits for a connect; there everybody does who has not found one of the five.
    served, opened = served_and_opened(CONNECT, max_size=50)
    assert served == 50
    assert opened <= 5
    served, opened = served_and_opened(0, poolclass=QueuePool, pool_size=5, max_overflow=45)
    assert served <= 10
    assert opened >= 40


def test_the_pool_goes_down_to_min_idle_and_then_never_wakes_the_hub(
    mariadb: Any, engine_of: Callable[..., Engine]
) -> None:
    engine = engine_of(mariadb.url("pymysql"), breakeven=0.5)
    borrow_at_once(engine, 8)
    deadline = time.monotonic() + 30
    while engine.pool.stats().size > 1 and time.monotonic() < deadline:
        gevent.sleep(0.2)
    assert engine.pool.stats().size == 1
    gc.collect()
    loop = gevent.get_hub().loop
    # Another test's may be about to connect; one whose time stands still goes on doing so.
    deadline = time.monotonic() + 5
    while any(other.ledger.opening for other in geventpool.pools()):
        if time.monotonic() > deadline:
            break
        gevent.sleep(0.1)
    for other in geventpool.pools():
        other.upkeep.alarm.stop()  # or have something due
    before = loop.iteration
    Event().wait(10)
    assert loop.iteration - before <= 2, "the wait's own timer, and nothing else"


SCRIPT = """
from gevent import monkey; monkey.patch_all()
from psycogreen.gevent import patch_psycopg; patch_psycopg()
import sys, time
from sqlalchemy import create_engine, text
from geventpool.sqlalchemy import GeventPool
engine = create_engine(sys.argv[1], poolclass=GeventPool)
held = [engine.connect() for _ in range(4)]
for connection in held:
    connection.execute(text("select 1"))
for connection in held[:2]:
    connection.close()
print(time.monotonic(), flush=True)
"""


def run(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", script, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )


@contextmanager
def started(script: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """It runs, and is told and asked by its pipes."""
    with subprocess.Popen(
        [sys.executable, "-c", script, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def test_a_process_with_idle_and_used_connections_exits_at_once_and_silently(url: str) -> None:
    done = run(SCRIPT, url)
    assert (done.returncode, done.stderr) == (0, "")
    # From its last line on, because a busy machine takes long to start it.
    assert time.monotonic() - float(done.stdout) < 10


FORK = """
from gevent import monkey; monkey.patch_all()
from psycogreen.gevent import patch_psycopg; patch_psycopg()
import gc, os, sys
from sqlalchemy import create_engine, text
from geventpool.sqlalchemy import GeventPool
engine = create_engine(sys.argv[1], poolclass=GeventPool)
ask = "select connection_id()" if engine.dialect.name == "mysql" else "select pg_backend_pid()"

def ids(number):
    connections = [engine.connect() for _ in range(number)]
    found = {connection.execute(text(ask)).scalar_one() for connection in connections}
    for connection in connections:
        connection.close()
    return found

before = ids(3)
read, write = os.pipe()
pid = os.fork()
if pid == 0:
    mine = ids(3)
    gc.collect()
    os.write(write, b"shared" if mine & before else b"separate")
    sys.exit(0)
assert os.waitpid(pid, 0)[1] == 0
assert os.read(read, 99) == b"separate"
assert ids(3) == before
assert engine.pool.stats().opened == 3
print("fine")
"""


def test_a_forked_child_starts_empty_and_its_parent_notices_nothing(url: str) -> None:
    done = run(FORK, url)
    assert (done.returncode, done.stdout, done.stderr) == (0, "fine\n", "")


def test_the_url_alone_turns_the_pool_on(mariadb: Any, engine_of: Callable[..., Engine]) -> None:
    url = mariadb.url("pymysql")
    mark = "&" if "?" in url else "?"
    engine = create_engine(
        f"{url}{mark}plugin=geventpool&geventpool_profile=production&geventpool_min_idle=2"
    )
    with engine.connect() as connection:
        assert connection.execute(text("select 1")).scalar_one() == 1
    config = engine.pool.config
    assert (config.max_size, config.timeout, config.recycle, config.min_idle) == (75, 60, 1800, 2)
    engine.dispose()


def test_an_engine_that_exists_is_wrapped_with_its_settings_and_listeners(
    mariadb: Any, engine_of: Callable[..., Engine]
) -> None:
    engine = engine_of(
        mariadb.url("pymysql"), poolclass=QueuePool, pool_size=3, max_overflow=1, pool_timeout=2
    )
    seen = []
    event.listen(engine, "connect", lambda *_: seen.append(1))
    with engine.connect():
        pass
    assert wrap(engine) is engine
    assert isinstance(engine.pool, GeventPool)
    assert (engine.pool.config.max_size, engine.pool.timeout()) == (4, 2)
    with engine.connect() as connection:
        assert connection.execute(text("select 1")).scalar_one() == 1
    assert len(seen) == 2
    wrap(engine, min_idle=2)
    assert engine.pool.config.min_idle == 2


def test_a_timeout_is_sqlalchemys_own(url: str, engine_of: Callable[..., Engine]) -> None:
    engine = engine_of(url, pool_size=1, max_overflow=0)
    own_connection_ids(engine, 1)  # the deadline would cover the connect too
    engine.pool.configure(timeout=0.05)
    with engine.connect(), pytest.raises(exc.TimeoutError, match="max 1, idle 0, in use 1"):
        engine.connect()


def test_timeout_zero_connects_but_does_not_wait(
    url: str, engine_of: Callable[..., Engine]
) -> None:
    engine = engine_of(url, pool_size=1, max_overflow=0, pool_timeout=0)
    with engine.connect(), pytest.raises(exc.TimeoutError):
        engine.connect()


def test_four_workers_with_the_default_cap_stay_below_postgresqls_100_connections(
    postgresql: Any, engine_of: Callable[..., Engine]
) -> None:
    observer = engine_of(postgresql.url("psycopg"), isolation_level="AUTOCOMMIT")
    script = """
from gevent import monkey; monkey.patch_all()
import gevent, sys
from gevent.event import Event
from sqlalchemy import create_engine, text
from geventpool.sqlalchemy import GeventPool
engine = create_engine(sys.argv[1], poolclass=GeventPool, pool_timeout=120)
may_end = Event()
def request():
    with engine.connect() as connection:
        connection.execute(text("select pg_sleep(0.05)"))
        may_end.wait()
requests = [gevent.spawn(request) for _ in range(200)]
while engine.pool.stats().in_use < 20:
    gevent.sleep(0.01)
print("all in use", flush=True)
sys.stdin.readline()
may_end.set()
gevent.joinall(requests, raise_error=True)
print(engine.pool.stats().opened)
"""
    with ExitStack() as stack:
        workers = [
            stack.enter_context(started(script, postgresql.url("psycopg"))) for _ in range(4)
        ]
        for worker in workers:
            assert worker.stdout.readline() == "all in use\n"
        with observer.connect() as connection:
            count = connection.execute(text("select count(*) from pg_stat_activity")).scalar_one()
        assert 80 < count < 100
        for worker in workers:
            opened, errors = worker.communicate("go on\n", timeout=120)
            assert (worker.returncode, errors) == (0, "")
            assert int(opened) == 20


def nap_of(engine: Engine, seconds: float) -> str:
    return f"select {'sleep' if engine.dialect.name == 'mysql' else 'pg_sleep'}({seconds})"


def test_a_connection_left_in_mid_query_by_a_killed_listener_is_not_handed_on(
    url: str, engine_of: Callable[..., Engine]
) -> None:
    engine = engine_of(url, max_size=1, pool_timeout=5)
    own_connection_ids(engine, 1)
    asks = []

    @event.listens_for(engine, "checkin")
    def ask_something(connection: Any, _record: Any) -> None:
        if asks:
            asks.clear()
            cursor = connection.cursor()
            cursor.execute(nap_of(engine, 0.3))
            cursor.fetchall()

    def holder() -> None:
        connection = engine.connect()
        gevent.sleep(0.05)
        asks.append(1)
        connection.close()

    def request() -> int:
        with engine.connect() as connection:
            return connection.execute(text("select 42")).scalar_one()

    victim = gevent.spawn(holder)
    gevent.sleep(0.01)
    waiter = gevent.spawn(request)
    gevent.sleep(0.1)
    assert not asks
    victim.kill()
    assert waiter.get(timeout=30) == 42


@pytest.mark.parametrize("style", ["smart", "rollback", "commit", None])
def test_a_connection_left_in_mid_query_is_not_lent_again_whatever_the_reset(
    url: str, engine_of: Callable[..., Engine], style: str | None
) -> None:
    engine = engine_of(url, max_size=1, pool_reset_on_return=style)

    def request() -> None:
        connection = engine.raw_connection()
        try:
            connection.cursor().execute(nap_of(engine, 0.5))
        finally:
            connection.close()

    victim = gevent.spawn(request)
    gevent.sleep(0.1)
    victim.kill()
    for number in range(3):
        with engine.connect() as connection:
            assert connection.execute(text(f"select {number}")).scalar_one() == number


def test_a_connection_that_reconnected_in_place_is_watched_by_its_new_socket(
    mariadb: Any, engine_of: Callable[..., Engine]
) -> None:
    engine = engine_of(mariadb.url("pymysql"), max_size=1)
    observer = engine_of(mariadb.url("pymysql"), isolation_level="AUTOCOMMIT")
    fails: list[int] = []
    takes_the_old_number: list[Any] = []

    @event.listens_for(engine, "checkout")
    def disconnect_once(*_: Any) -> None:
        if fails:
            fails.clear()
            takes_the_old_number.append(1)
            raise exc.DisconnectionError

    @event.listens_for(engine, "do_connect")
    def take_the_old_number(*_: Any) -> None:
        if takes_the_old_number == [1]:
            takes_the_old_number[:] = socket.socketpair()

    own_connection_ids(engine, 1)
    fails.append(1)
    ids = own_connection_ids(engine, 1)
    assert len(takes_the_old_number) == 2
    kill_from_the_server_side(observer, ids)
    assert eventually(lambda: engine.pool.stats().closed.get("dead") == 1)
    assert not own_connection_ids(engine, 1) & ids
    for taken in takes_the_old_number:
        taken.close()


def test_a_transaction_begun_by_a_statement_in_autocommit_does_not_reach_the_next_borrower(
    url: str, engine_of: Callable[..., Engine]
) -> None:
    engine = engine_of(url, max_size=1)
    with engine.begin() as connection:
        connection.execute(text("drop table if exists begun"))
        connection.execute(text("create table begun (x int)"))
    raw = engine.raw_connection()
    if engine.dialect.driver == "pymysql":
        raw.dbapi_connection.autocommit(True)
    else:
        raw.dbapi_connection.autocommit = True
    cursor = raw.cursor()
    cursor.execute("begin")
    cursor.execute("insert into begun values (1)")
    cursor.close()
    raw.close()
    with engine.connect() as connection:
        assert connection.execute(text("select count(*) from begun")).scalar_one() == 0
