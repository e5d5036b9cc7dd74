"""A SQLite database in memory ends with its last connection: every door keeps one open."""

from __future__ import annotations

import ctypes
import gc
import itertools
import logging
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import gevent.event
import pytest
import sqlalchemy
from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import exc, inspect, text
from sqlalchemy.engine import Engine
from sqlalchemy.pool import NullPool, QueuePool, SingletonThreadPool

from geventpool import ConfigError, ConnectionPool, PoolDeadlock, PoolTimeout
from geventpool.flask import GeventPool as Extension
from geventpool.sqlalchemy import GeventPool, wrap
from geventpool.testing import FakeClock, settle

PRIVATE = ["sqlite://", "sqlite:///:memory:", "sqlite:///file:{}?mode=memory&uri=true"]
SHARED = [
    "sqlite:///file::memory:?cache=shared&uri=true",
    "sqlite:///file:{}?mode=memory&cache=shared&uri=true",
]
URLS = pytest.mark.parametrize("url", PRIVATE + SHARED)
numbers = itertools.count()
engines: list[Engine] = []


@pytest.fixture(autouse=True)
def _dispose() -> Iterator[None]:
    yield
    while engines:
        engines.pop().dispose()
    gc.collect()
    settle()


def create_engine(url: str, **said: Any) -> Engine:
    engines.append(sqlalchemy.create_engine(url.format(f"name{next(numbers)}"), **said))
    return engines[-1]


def by_plugin(url: str, **said: Any) -> Engine:
    mark = "&" if "?" in url else "?"
    query = "".join(f"&geventpool_{name}={value}" for name, value in said.items())
    return create_engine(f"{url}{mark}plugin=geventpool{query}")


def by_class(url: str, **said: Any) -> Engine:
    said = {{"recycle": "pool_recycle"}.get(name, name): value for name, value in said.items()}
    return create_engine(url, poolclass=GeventPool, **said)


def by_wrapping(poolclass: Any) -> Callable[..., Engine]:
    return lambda url, **said: wrap(create_engine(url, poolclass=poolclass), **said)


DOORS = pytest.mark.parametrize(
    "door",
    [by_class, by_plugin, *map(by_wrapping, (QueuePool, NullPool, SingletonThreadPool))],
    ids=["class", "plugin", "wrap QueuePool", "wrap NullPool", "wrap SingletonThreadPool"],
)


def add(engine: Engine) -> None:
    with engine.begin() as connection:
        gevent.sleep(0.001)
        connection.execute(text("insert into t values (1)"))
        gevent.sleep(0.001)


def count(engine: Engine) -> Any:
    with engine.connect() as connection:
        return connection.execute(text("select count(*) from t")).scalar_one()


def failures_of(engine: Engine) -> int:
    """Of 15 requests at once, each in a greenlet."""
    with engine.begin() as connection:
        connection.execute(text("create table t (x int)"))
    greenlets = [gevent.spawn(add, engine) for _ in range(15)]
    gevent.joinall(greenlets)
    failed = [one.exception for one in greenlets if one.exception is not None]
    assert all("no such table" in str(error) for error in failed), failed
    return len(failed)


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Greenlets that fail on purpose print nothing."""
    monkeypatch.setattr(gevent.get_hub(), "print_exception", lambda *_: None)


@URLS
@DOORS
def test_all_greenlets_see_one_database(url: str, door: Any) -> None:
    engine = door(url)
    # Of a shared one several connections may write in turn only, which is SQLite's business.
    assert failures_of(engine) == 0 if url in PRIVATE else engine.connect().close() is None
    if url in PRIVATE:
        assert count(engine) == 15
        assert (engine.pool.stats().opened, engine.pool.size()) == (1, 1)  # type: ignore[attr-defined]


def test_beside_queue_pool_where_each_connection_has_a_database_of_its_own(quiet: None) -> None:
    assert failures_of(create_engine("sqlite://", poolclass=QueuePool)) > 0


@URLS
@DOORS
def test_what_was_written_outlives_idling_and_ageing(url: str, door: Any, tmp_path: Any) -> None:
    engine = door(url, breakeven=0.001, recycle=1, min_idle=0)
    with engine.begin() as connection:
        connection.execute(text("create table t (x int)"))
    raw: Any = engine.raw_connection()
    raw._connection_record.starttime -= 1000
    raw.close()
    core = engine.pool.core
    for entry in core.ledger.entries:
        entry.opened_at -= 1000
        entry.idle_since -= 1000
    core.upkeep.react(core.clock.now())
    gevent.sleep(0.01)
    assert count(engine) == 0
    assert engine.pool.stats().opened == 1


@pytest.mark.parametrize("url", SHARED)
def test_of_a_database_that_connections_share_there_may_be_several(url: str) -> None:
    engine = by_class(url, max_size=3, breakeven=0.001)
    with engine.begin() as connection:
        connection.execute(text("create table t (x int)"))
    held = [engine.connect() for _ in range(3)]
    assert [one.execute(text("select count(*) from t")).scalar_one() for one in held] == [0, 0, 0]
    for one in held:
        one.close()
    with gevent.Timeout(60):
        while engine.pool.stats().size > 1:
            gevent.sleep(0.01)
    assert count(engine) == 0


def test_a_greenlet_that_has_the_connection_gets_it_again() -> None:
    engine = by_class("sqlite://", future=True)
    with engine.connect() as outer:
        outer.execute(text("create table t (x int)"))
        outer.commit()
        assert inspect(engine).has_table("t")
        other = gevent.spawn(count, engine)
        with engine.connect() as inner:
            assert inner.connection.dbapi_connection is outer.connection.dbapi_connection
        settle()
        assert not other.ready(), "another greenlet waits until it is given back"
        assert engine.pool.stats().in_use == 1
    assert other.get() == 0
    assert engine.pool.stats().checkouts == 2


def test_another_greenlet_does_not_get_it_meanwhile() -> None:
    engine = by_class("sqlite://", pool_timeout=0.01)
    with engine.connect():
        with pytest.raises(exc.TimeoutError):
            gevent.spawn(engine.connect).get()
    with engine.connect() as connection:
        assert connection.execute(text("select 1")).scalar_one() == 1


def test_the_cap_stays_one_whatever_is_said_later() -> None:
    engine = by_class("sqlite://", pool_size=5, max_overflow=2)
    engine.connect().close()
    pool: Any = engine.pool
    pool.resize(7)
    pool.configure(recycle=5, min_idle=3)
    assert (pool.size(), pool.overflow(), pool.stats().max_size) == (1, 0, 1)
    assert (pool.config.recycle, pool._recycle, pool.stats().min_idle) == (-1, -1, 1)


def test_a_warmed_pool_opens_one(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "geventpool")
    engine = by_class("sqlite://", min_idle=4)
    engine.pool.warm_up()  # type: ignore[attr-defined]
    settle()
    assert engine.pool.stats().size == 1  # type: ignore[attr-defined]
    assert caplog.text.count("lives in memory") == 1


def test_dispose_ends_the_database_as_its_user_wishes() -> None:
    engine = by_class("sqlite://")
    for _ in range(2):
        with engine.begin() as connection:
            connection.execute(text("create table t (x int)"))
        assert count(engine) == 0
        engine.dispose()


def test_the_one_that_a_greenlet_has_left_behind_is_reported_and_not_closed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    engine = by_class("sqlite://", reclaim_after=0.001)
    with engine.begin() as connection:
        connection.execute(text("create table t (x int)"))
    kept: list[Any] = []
    gevent.spawn(lambda: kept.append(engine.connect())).join()
    with gevent.Timeout(60):
        while "its place stays taken" not in caplog.text:
            gevent.sleep(0.01)
    kept.pop().close()
    assert count(engine) == 0


def test_an_engine_whose_database_has_begun_is_not_wrapped() -> None:
    for poolclass in (QueuePool, SingletonThreadPool):
        engine = create_engine("sqlite://", poolclass=poolclass)
        with engine.begin() as connection:
            connection.execute(text("create table t (x int)"))
        with pytest.raises(ConfigError, match="before its first use"):
            wrap(engine)
        assert count(engine) == 0


def test_flasks_extension_goes_by_the_same_rule() -> None:
    app = Flask(__name__)
    url = f"sqlite:///file:name{next(numbers)}?mode=memory&uri=true"
    app.config["SQLALCHEMY_DATABASE_URI"] = url
    app.config["SQLALCHEMY_ENGINE_OPTIONS"] = {"poolclass": SingletonThreadPool}
    db = SQLAlchemy(app)
    Extension(app, db)
    with app.app_context():
        engines.append(db.engine)
        assert isinstance(db.engine.pool, GeventPool)
        assert failures_of(db.engine) == 0


@pytest.mark.parametrize("kind", ["plain", "bytes", "begun"])
def test_a_raw_pool_keeps_its_one_connection(kind: str) -> None:
    def connect() -> sqlite3.Connection:
        connection = sqlite3.connect(":memory:")
        if kind == "bytes":
            connection.text_factory = bytes
        if kind == "begun":
            connection.execute("begin")
        return connection

    clock = FakeClock()
    pool = ConnectionPool(connect, clock=clock, breakeven=1, recycle=60, min_idle=0)
    with pool.connection() as connection:
        connection.execute("create table t (x int)")
        connection.commit()
        with pytest.raises(PoolTimeout):
            pool.connection(timeout=0)
    clock.advance(3600)
    settle()
    with pool.connection() as connection:
        assert connection.execute("select count(*) from t").fetchone()[0] == 0
    stats = pool.stats()
    assert (stats.max_size, stats.opened) == (1, 1)
    pool.close()


def test_a_greenlet_that_wants_a_second_one_of_a_raw_pool_is_told_so() -> None:
    pool = ConnectionPool(lambda: sqlite3.connect(":memory:"), timeout=5)
    with pool.connection(), pytest.raises(PoolDeadlock):
        pool.connection()
    pool.close()


def test_a_temporary_file_is_one_connections_too_and_a_file_is_not(tmp_path: Any) -> None:
    for place, most in (("", 1), (str(tmp_path / "shop.db"), 20)):
        pool = ConnectionPool(lambda place=place: sqlite3.connect(place))
        pool.connection().close()
        assert pool.stats().max_size == most
        pool.close()


PROGRAM = """
import threading
from sqlalchemy import create_engine, inspect, text
from geventpool.sqlalchemy import GeventPool, wrap

engine = MADE
with engine.begin() as connection:
    connection.execute(text("create table t (x int)"))
    assert inspect(engine).has_table("t")

def add():
    with engine.begin() as connection:
        connection.execute(text("insert into t values (1)"))

threads = [threading.Thread(target=add) for _ in range(5)]
for thread in threads: thread.start()
for thread in threads: thread.join()
with engine.connect() as connection:
    print(connection.execute(text("select count(*) from t")).scalar_one())
engine.dispose()
"""


@pytest.mark.parametrize(
    "made",
    [
        "create_engine('sqlite://', poolclass=GeventPool)",
        "create_engine('sqlite://?plugin=geventpool')",
        "wrap(create_engine('sqlite://'))",
    ],
)
def test_a_program_that_is_not_patched_has_one_for_all_its_threads(made: str) -> None:
    program = PROGRAM.replace("MADE", made)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout, done.returncode) == ("5\n", 0), done.stderr


def fork_in_python() -> int:
    return os.fork()


def fork_in_c() -> int:
    return ctypes.CDLL(None).fork()  # type: ignore[no-any-return]


@DOORS
@pytest.mark.parametrize("fork", [fork_in_python, fork_in_c])
@pytest.mark.parametrize("url", PRIVATE)
def test_a_forked_child_has_a_copy_of_the_database_as_with_queue_pool(
    url: str, fork: Callable[[], int], door: Any
) -> None:
    engine = door(url)
    with engine.begin() as connection:
        connection.execute(text("create table t (x int)"))
    add(engine)
    goes_on = gevent.event.Event()

    def write() -> None:
        with engine.begin() as connection:
            connection.execute(text("insert into t values (2)"))  # which the child has not done
            goes_on.wait()

    writer = gevent.spawn(write)
    gevent.idle()
    pid = fork()
    if pid == 0:
        try:
            add(engine)
            os._exit(count(engine))
        finally:
            os._exit(99)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 2
    goes_on.set()
    writer.get()
    assert count(engine) == 2
