"""What a borrower leaves behind, where the server's transaction state alone does not tell."""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import gevent.event
import pytest
from sqlalchemy import create_engine

from geventpool import ConnectionPool
from geventpool.drivers import State
from geventpool.sqlalchemy import GeventPool

from .dbapi import (
    ALL,
    POSTGRESQL,
    Subject,
    make_subject,
    module_of,
    open_connection,
    run,
    server_of,
    set_autocommit,
)


@pytest.fixture
def subject_of(request: pytest.FixtureRequest) -> Iterator[Callable[..., Subject]]:
    """Opens connections that are closed at the end, to an empty table `left`."""
    made: list[Subject] = []

    def subject_of(name: str, **arguments: Any) -> Subject:
        module_of(name)
        subject = make_subject(name, server_of(request, name).url(name), **arguments)
        made.append(subject)
        run(subject.observer, "drop table if exists left_behind")
        run(subject.observer, "create table left_behind (id int)")
        return subject

    yield subject_of
    for subject in made:
        subject.close()


@pytest.mark.parametrize("end", ["commit", "rollback"])
@pytest.mark.parametrize("name", POSTGRESQL)
def test_the_next_borrower_has_a_transaction_also_after_one_that_was_ended_by_a_statement(
    request: pytest.FixtureRequest, subject_of: Callable[..., Subject], name: str, end: str
) -> None:
    """psycopg2 begins a transaction only if it believes that none is open."""
    observer = subject_of(name).observer
    url = server_of(request, name).url(name)
    with contextlib.closing(ConnectionPool(lambda: open_connection(name, url))) as pool:
        with pool.connection() as first:
            run(first, "select 1")
            run(first, end)
        with pool.connection() as second:
            assert second is first
            run(second, "insert into left_behind values (1)")
            second.rollback()
        assert run(observer, "select count(*) from left_behind") == [(0,)]


@pytest.mark.parametrize("name", ["psycopg", "psycopg2"])
def test_a_two_phase_transaction_that_could_not_be_prepared_is_not_clean(
    subject_of: Callable[..., Subject], name: str
) -> None:
    """The server has forgotten it; the driver would let nobody commit or roll back any more."""
    subject = subject_of(name)
    subject.connection.tpc_begin(subject.connection.xid(1, "a", "b"))
    run(subject.connection, "select 1")
    with pytest.raises(module_of(name).Error):
        subject.connection.tpc_prepare()
    assert not subject.is_in_transaction()
    assert subject.state is State.UNKNOWN
    with pytest.raises(module_of(name).ProgrammingError):
        subject.connection.rollback()


def test_a_transaction_block_of_psycopg_that_was_never_left_is_not_clean(
    subject_of: Callable[..., Subject],
) -> None:
    subject = subject_of("psycopg")
    block = subject.connection.transaction()
    block.__enter__()
    run(subject.connection, "commit")
    assert not subject.is_in_transaction()
    assert subject.state is State.UNKNOWN


def test_a_ping_of_psycopg_does_not_care_for_the_users_row_factory(
    subject_of: Callable[..., Subject],
) -> None:
    def only_orders(cursor: Any) -> Any:
        raise ValueError("no column 'order'")

    subject = subject_of("psycopg")
    subject.connection.row_factory = only_orders
    assert subject.driver.ping(subject.connection)


_FOR_THE_NEXT = [
    "set transaction read only",
    "SET TRANSACTION ISOLATION LEVEL READ COMMITTED, READ ONLY",
    "  /* app *//* request: 7 */\n set @a = 1, @@tx_read_only = 1",
    "-- why not\nset @@tx_read_only = 1",
    "/*!50000 set transaction read only */",
]


@pytest.mark.parametrize("name", ["pymysql", "mysql.connector"])
@pytest.mark.parametrize("sql", _FOR_THE_NEXT)
def test_what_is_set_for_the_next_transaction_is_not_left_to_the_next_borrower(
    request: pytest.FixtureRequest, subject_of: Callable[..., Subject], sql: str, name: str
) -> None:
    subject_of(name)
    url = server_of(request, name).url(name)
    with contextlib.closing(ConnectionPool(lambda: open_connection(name, url))) as pool:
        with pool.connection() as first:
            run(first, sql)
        with pool.connection() as second:
            assert second is first
            run(second, "insert into left_behind values (1)")


def test_what_pymysql_sets_for_the_next_transaction_behind_another_statement_is_seen(
    subject_of: Callable[..., Subject],
) -> None:
    from pymysql.constants import CLIENT

    subject = subject_of("pymysql", client_flag=CLIENT.MULTI_STATEMENTS)
    cursor = subject.connection.cursor()
    cursor.execute("do 1; set transaction read only")
    while cursor.nextset():
        pass
    assert subject.state is State.UNKNOWN
    subject.connection.rollback()
    assert subject.state is State.CLEAN


@pytest.mark.parametrize("name", ["pymysql", "mysql.connector"])
@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_what_is_set_for_the_next_transaction_ends_with_it(
    subject_of: Callable[..., Subject], end: str, name: str
) -> None:
    subject = subject_of(name)
    for leave in (getattr(subject.connection, end), lambda: run(subject.connection, end.upper())):
        run(subject.connection, "set transaction isolation level serializable")
        assert subject.state is State.UNKNOWN
        run(subject.connection, "insert into left_behind values (1)")
        leave()
        assert subject.state is State.CLEAN


def test_other_settings_of_pymysql_are_clean(subject_of: Callable[..., Subject]) -> None:
    subject = subject_of("pymysql")
    set_autocommit("pymysql", subject.connection, True)
    subject.connection.rollback()
    for sql in ("set @a = 1", "set sql_mode = ''", "/* a */ select 'set transaction'"):
        run(subject.connection, sql)
        assert subject.state is State.CLEAN


@pytest.mark.parametrize("name", ALL)
def test_a_connection_that_has_lost_its_server_tells_no_descriptor_of_something_else(
    subject_of: Callable[..., Subject], name: str
) -> None:
    subject = subject_of(name)
    fileno = subject.driver.fileno(subject.connection)
    assert fileno is not None
    its_own = os.fstat(fileno).st_ino
    subject.kill()
    with pytest.raises((module_of(name).Error, OSError)):  # pg8000 passes on the socket's own
        while True:  # the server takes its time
            run(subject.connection, "select 1")
    others = [os.open(os.devnull, os.O_RDONLY) for _ in range(8)]  # one gets its number
    try:
        fileno = subject.driver.fileno(subject.connection)
        assert fileno is None or os.fstat(fileno).st_ino == its_own
    finally:
        for other in others:
            os.close(other)


# A result without end that is left in mid-read. Whoever read on to its end would never come back.

ENDLESS = {
    "psycopg": "select generate_series(1, 1000000000000)",
    "MySQLdb": "select seq from seq_1_to_1000000000000",
}


def rows_of(name: str, connection: Any) -> Iterator[Any]:
    if name == "psycopg":
        yield from connection.cursor().stream(ENDLESS[name])
    else:
        cursor = connection.cursor(importlib.import_module("MySQLdb.cursors").SSCursor)
        cursor.execute(ENDLESS[name])
        yield from iter(cursor.fetchone, None)  # the cursor itself would be closed, and so read on


@contextlib.contextmanager
def door_to(door: str, name: str, url: str) -> Iterator[Callable[[], Any]]:
    """What lends a driver's connections."""
    if door == "raw":
        connect = functools.partial(open_connection, name, url)
        with contextlib.closing(ConnectionPool(connect, max_size=1)) as pool:
            yield pool.connection
        return
    engine = create_engine(url, poolclass=GeventPool, pool_size=1, max_overflow=0)

    @contextlib.contextmanager
    def lend() -> Iterator[Any]:
        with contextlib.closing(engine.raw_connection()) as lent:
            yield lent.dbapi_connection

    yield lend
    engine.dispose()


def leave_by_a_kill(lend: Callable[[], Any], name: str, kept: list[Any]) -> None:
    reading = gevent.event.Event()

    def read() -> None:
        with lend() as connection:
            kept.append(rows_of(name, connection))
            next(kept[-1])
            reading.set()
            gevent.sleep(3600)

    reader = gevent.spawn(read)
    assert reading.wait(60)
    reader.kill()


def leave_by_an_error(lend: Callable[[], Any], name: str, kept: list[Any]) -> None:
    with pytest.raises(LookupError), lend() as connection:
        kept.append(rows_of(name, connection))
        next(kept[-1])
        raise LookupError


def leave_in_silence(lend: Callable[[], Any], name: str, kept: list[Any]) -> None:
    with lend() as connection:
        kept.append(rows_of(name, connection))
        next(kept[-1])


@pytest.mark.filterwarnings("ignore::geventpool.errors.BlockingDriverWarning")
@pytest.mark.parametrize("is_kept", [False, True])
@pytest.mark.parametrize("leave", [leave_by_a_kill, leave_by_an_error, leave_in_silence])
@pytest.mark.parametrize("door", ["raw", "engine"])
@pytest.mark.parametrize("name", ["psycopg", "MySQLdb"])
def test_a_result_left_in_mid_read_is_neither_read_to_its_end_nor_the_next_borrower_s(
    request: pytest.FixtureRequest, name: str, door: str, leave: Callable[..., None], is_kept: bool
) -> None:
    """Whether or not somebody keeps the cursor."""
    module_of(name)
    kept: list[Any] = []
    url = server_of(request, name).url(name.lower())
    with gevent.Timeout(60), door_to(door, name, url) as lend:
        leave(lend, name, kept)
        if not is_kept:
            kept.clear()
        for number in (101, 102):
            with lend() as connection:
                assert run(connection, f"select {number}") == [(number,)]
        kept.clear()
        with lend() as connection:
            assert run(connection, "select 103") == [(103,)]


@pytest.mark.parametrize("door", ["raw", "engine"])
def test_a_kill_while_psycopg_waits_for_the_rows_of_a_stream_costs_nobody_else_an_answer(
    request: pytest.FixtureRequest, door: str
) -> None:
    url = server_of(request, "psycopg").url("psycopg")
    with gevent.Timeout(60), door_to(door, "psycopg", url) as lend:
        with lend() as connection:
            rows = connection.cursor().stream("select true union all select pg_sleep(3600) is null")
            with pytest.raises(gevent.Timeout), gevent.Timeout(0.05):
                list(rows)
        with lend() as connection:
            assert run(connection, "select 101") == [(101,)]
