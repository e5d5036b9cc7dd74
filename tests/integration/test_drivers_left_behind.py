"""What a borrower leaves behind, where the server's transaction state alone does not tell."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from geventpool import ConnectionPool
from geventpool.drivers import State

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


@pytest.mark.parametrize("sql", _FOR_THE_NEXT)
def test_what_pymysql_sets_for_the_next_transaction_is_not_left_to_the_next_borrower(
    request: pytest.FixtureRequest, subject_of: Callable[..., Subject], sql: str
) -> None:
    subject_of("pymysql")
    url = server_of(request, "pymysql").url("pymysql")
    with contextlib.closing(ConnectionPool(lambda: open_connection("pymysql", url))) as pool:
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


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_what_pymysql_sets_for_the_next_transaction_ends_with_it(
    subject_of: Callable[..., Subject], end: str
) -> None:
    subject = subject_of("pymysql")
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
