"""Errors that say that a server is no longer the one: whose they are, and how often they count."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import gevent
import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import OperationalError

from geventpool import ConfigError, ConnectionPool, observe
from geventpool.drivers import Driver
from geventpool.drivers.mysqldb import MySQLdb
from geventpool.drivers.pg8000 import Pg8000
from geventpool.drivers.psycopg import Psycopg
from geventpool.drivers.psycopg2 import Psycopg2
from geventpool.drivers.pymysql import PyMySQL
from geventpool.sqlalchemy import GeventPool, wrap
from geventpool.testing import FakeClock, FakeDriver

READ_ONLY = "The MySQL server is running with the --read-only option so it cannot execute this"
STANDBY = {"in_hot_standby": "on", "default_transaction_read_only": "off"}
PRIMARY = {"in_hot_standby": "off", "default_transaction_read_only": "off"}
READS = {"in_hot_standby": "off", "default_transaction_read_only": "on"}


class DemotedError(Exception):
    """The user's own."""


def is_demoted(error: BaseException) -> bool:
    return isinstance(error, DemotedError)


@pytest.mark.parametrize("driver", [PyMySQL(), MySQLdb()])
@pytest.mark.parametrize(
    ("code", "words", "is_unfit"),
    [
        (1290, READ_ONLY, True),
        (1290, READ_ONLY.replace("--read-only", "--super-read-only"), True),
        (1290, READ_ONLY.replace("MySQL", "MariaDB"), True),
        (1290, READ_ONLY.replace("--read-only", "--secure-file-priv"), False),
        (1290, READ_ONLY.replace("--read-only", "--skip-grant-tables"), False),
        (1792, "Cannot execute statement in a READ ONLY transaction.", True),
        (1836, "Running in read-only mode", True),
        (1874, "InnoDB is in read only mode.", True),
        (3100, "Error on observer while running replication hook 'before_commit'.", True),
        (1053, "Server shutdown in progress", True),
        (1047, "WSREP has not yet prepared node for application use", True),
        (1047, "Unknown command", False),
        (1062, "Duplicate entry 'read-only' for key 'PRIMARY'", False),
        (1213, "Deadlock found when trying to get lock", False),
        (2013, "Lost connection to MySQL server during query", False),
    ],
)
def test_mysqls_errors_are_told_apart(
    driver: Driver, code: int, words: str, is_unfit: bool
) -> None:
    assert driver.is_unfit(None, Exception(code, words)) is is_unfit
    assert not driver.is_unfit(None, Exception())
    other: Any = Exception(words)  # as mysql-connector-python and mariadb have it
    other.errno = code
    assert Driver().is_unfit(None, other) is is_unfit


def postgresql(driver: Driver, sqlstate: str, reported: Any, is_chosen: Any = None) -> bool:
    """What a driver makes of an error of its own kind."""
    connection = SimpleNamespace(
        info=SimpleNamespace(parameter_status=reported.get),
        parameter_statuses=reported,
        read_only=is_chosen,
        readonly=is_chosen,
    )
    error: Any = Exception({"C": sqlstate})
    error.sqlstate = error.pgcode = sqlstate
    return driver.is_unfit(connection, error)


@pytest.mark.parametrize("driver", [Psycopg(), Psycopg2(), Pg8000()])
def test_postgresqls_errors_are_told_apart(driver: Driver) -> None:
    for sqlstate in ("57P01", "57P02", "57P03"):
        assert postgresql(driver, sqlstate, PRIMARY)
    for sqlstate in ("57014", "40001", "42P01", "25P02", "25P03", "57P05"):
        assert not postgresql(driver, sqlstate, STANDBY)
    assert postgresql(driver, "25006", STANDBY)
    assert postgresql(driver, "25006", READS)
    assert postgresql(driver, "25006", {}), "before release 14 it is not reported"
    assert not postgresql(driver, "25006", PRIMARY), "the user has set the transaction read only"
    if driver.name != "pg8000":
        assert not postgresql(driver, "25006", {}, is_chosen=True)


def pool_of(clock: FakeClock, **settings: Any) -> ConnectionPool:
    return ConnectionPool(
        FakeDriver().connect,
        clock=clock,
        max_size=3,
        min_idle=3,
        reclaim_after=None,
        **{"is_disconnect": is_demoted, **settings},
    )


def fail(pool: ConnectionPool, error: BaseException | None = None) -> Any:
    """A request that meets the error, on this connection."""
    with pytest.raises(type(error or DemotedError())), pool.connection() as connection:
        raise error or DemotedError
    return connection


def ask(pool: ConnectionPool) -> Any:
    with pool.connection() as connection:
        return connection


def test_all_of_that_age_are_replaced_and_those_in_use_when_they_come_back() -> None:
    pool = pool_of(FakeClock())
    lent = [pool.connection() for _ in range(3)]
    old = {one.connection for one in lent}
    lent.pop().close()
    failed = fail(pool)
    assert failed in old
    fresh = ask(pool)
    assert fresh not in old
    for one in lent:
        assert one.connection in old, "its holder goes on with it"
        one.close()
    assert {ask(pool) for _ in range(3)} == {fresh}
    assert (pool.stats().opened, pool.stats().closed) == (4, {"expired": 3})


def test_what_was_opened_after_counts_again_after_1_2_4_and_8_seconds() -> None:
    clock = FakeClock()
    pool = pool_of(clock)
    fail(pool)
    replaced_at = []
    began = clock.now()
    last = ask(pool)
    for _ in range(300):
        clock.advance(0.1)
        fail(pool)
        if ask(pool) is not last:
            last = ask(pool)
            replaced_at.append(clock.now() - began)
    assert replaced_at == pytest.approx([1, 3, 7, 15, 23], abs=0.5)
    clock.advance(17)
    fail(pool)
    again = ask(pool)
    assert again is not last, "a quiet time, and it is the first once more"
    clock.advance(1.1)
    fail(pool)
    assert ask(pool) is not again


def test_a_holder_of_an_old_connection_does_not_have_new_ones_replaced() -> None:
    clock = FakeClock()
    pool = pool_of(clock)
    held = pool.connection()
    clock.advance(1.0)
    fail(pool)
    fresh = ask(pool)
    for _ in range(20):
        clock.advance(1.0)
        assert held.saw(DemotedError())
        assert ask(pool) is fresh
    held.close()


def test_what_is_being_opened_when_it_is_told_is_lent_once_and_not_again() -> None:
    driver, clock = FakeDriver(), FakeClock()
    is_slow = gevent.event.Event()

    def connect() -> Any:
        if pool.stats().opened:
            is_slow.wait()
        return driver.connect()

    pool = ConnectionPool(connect, clock=clock, max_size=3, min_idle=3, is_disconnect=is_demoted)
    held = pool.connection()
    waiting = gevent.spawn(ask, pool)
    gevent.idle()
    assert pool.stats().opening == 1
    clock.advance(0.01)
    assert held.saw(DemotedError())
    is_slow.set()
    first = waiting.get()
    assert ask(pool) is not first
    held.close()


def test_the_cause_counts_where_the_programs_own_error_leaves_the_block() -> None:
    pool = pool_of(FakeClock())
    try:
        raise DemotedError
    except DemotedError as cause:
        error = RuntimeError()
        error.__cause__ = cause
    # Errors of an unknown DBAPI cannot be told from the program's own.
    assert fail(pool, error) is ask(pool)
    assert fail(pool) is not ask(pool)


def test_a_kill_says_nothing() -> None:
    asked = []
    pool = pool_of(FakeClock(), is_disconnect=asked.append)
    fail(pool, gevent.Timeout())
    fail(pool, gevent.GreenletExit())
    assert asked == []


def test_another_thread_is_heard(monkeypatch: Any) -> None:
    pool = pool_of(FakeClock())
    first = ask(pool)
    gevent.get_hub().threadpool.apply(fail, (pool,))
    assert ask(pool) is not first


def test_it_is_seen_through_an_observer() -> None:
    pool = pool_of(FakeClock())
    attached = observe.attach(pool)
    first = ask(pool)
    fail(pool)
    assert ask(pool) is not first
    attached.detach()


def test_a_function_that_is_none_is_refused_at_every_door() -> None:
    url = "sqlite:////tmp/none.db"
    for make in (
        lambda: ConnectionPool(FakeDriver().connect, is_disconnect="1290"),
        lambda: create_engine(url, poolclass=GeventPool, is_disconnect=1290),
        lambda: wrap(create_engine(url), is_disconnect={1290}),
        lambda: ConnectionPool(FakeDriver().connect).configure(is_disconnect=True),
    ):
        with pytest.raises(ConfigError, match=r"is_disconnect=.*give a function of an error"):
            make()


def test_engines_ask_the_users_function_by_any_way_to_a_pool(tmp_path: Any) -> None:
    url = f"sqlite:///{tmp_path / 'db'}"

    def is_disconnect(error: BaseException) -> bool:
        return "nowhere" in str(error)

    given = create_engine(url, poolclass=GeventPool, is_disconnect=is_disconnect)
    set_later = create_engine(url, poolclass=GeventPool)
    set_later.pool.configure(is_disconnect=is_disconnect)
    engines = [
        given,
        create_engine(f"{url}?plugin=geventpool", is_disconnect=is_disconnect),
        create_engine(
            url, pool=GeventPool(given.pool._creator, is_disconnect=is_disconnect, min_idle=0)
        ),
        wrap(create_engine(url), is_disconnect=is_disconnect),
        set_later,
    ]
    given.dispose()  # its successor has the same settings
    for engine in engines:
        first = driver_connection(engine)
        assert driver_connection(engine) is first
        with engine.connect() as connection, pytest.raises(OperationalError, match="nowhere"):
            connection.execute(text("select * from nowhere"))
        assert driver_connection(engine) is not first
        engine.dispose()


def driver_connection(engine: Any) -> Any:
    with engine.connect() as connection:
        return connection.connection.dbapi_connection
