"""Drivers against real servers: pings, sockets, and what a server says to an idle connection."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest

from geventpool import ConnectionPool
from geventpool.core.watch import look
from geventpool.drivers import Idle, State, driver_for

from .dbapi import (
    COOPERATIVE,
    EVERY,
    MYSQL,
    POSTGRESQL,
    SURE,
    Subject,
    eventually,
    make_subject,
    module_of,
    open_connection,
    run,
    server_of,
    set_autocommit,
)
from .wire import Wire


@pytest.fixture
def subject_of(request: pytest.FixtureRequest) -> Iterator[Callable[[str], Subject]]:
    """Opens connections that are closed at the end."""
    made: list[Subject] = []

    def subject_of(name: str) -> Subject:
        module_of(name)
        made.append(make_subject(name, server_of(request, name).url(name)))
        return made[-1]

    yield subject_of
    for subject in made:
        subject.close()


@pytest.fixture
def pool_of(request: pytest.FixtureRequest) -> Iterator[Callable[..., ConnectionPool]]:
    """Makes pools that are closed at the end."""
    made: list[ConnectionPool] = []

    def pool_of(name: str, **settings: Any) -> ConnectionPool:
        module_of(name)
        url = server_of(request, name).url(name)
        made.append(ConnectionPool(lambda: open_connection(name, url), **settings))
        return made[-1]

    yield pool_of
    for pool in made:
        pool.close()


@contextlib.contextmanager
def observer_of(request: pytest.FixtureRequest, name: str) -> Iterator[Any]:
    """A connection beside the pool, in autocommit mode."""
    with contextlib.closing(open_connection(name, server_of(request, name).url(name))) as one:
        set_autocommit(name, one, True)
        yield one


def prepare(name: str, connection: Any, sql: str) -> None:
    """Runs a statement and ends the transaction."""
    run(connection, sql)
    connection.commit()


def hears_farewell(subject: Subject) -> bool:
    """Does the socket tell that the server has gone, as the pool reads it?"""
    told = look(subject.driver.fileno(subject.connection) or -1)
    if told is None:
        return False
    return told == b"" or subject.driver.unsolicited(subject.connection, told) is Idle.DEAD


# Sockets and pings.


@pytest.mark.parametrize("name", EVERY)
def test_fileno_is_the_live_socket_and_none_after_close(
    request: pytest.FixtureRequest, subject_of: Callable[[str], Subject], name: str
) -> None:
    subject = subject_of(name)
    number = subject.driver.fileno(subject.connection)
    assert number is not None
    with socket.socket(fileno=os.dup(number)) as copy:
        assert copy.getpeername()[1] == server_of(request, name).port
    assert look(number) is None
    subject.connection.close()
    assert subject.driver.fileno(subject.connection) is None
    assert subject.state is State.BROKEN


@pytest.mark.parametrize("is_autocommit", [False, True])
@pytest.mark.parametrize("name", EVERY)
def test_a_ping_leaves_no_transaction_open_and_autocommit_as_it_was(
    subject_of: Callable[[str], Subject], name: str, is_autocommit: bool
) -> None:
    subject = subject_of(name)
    set_autocommit(name, subject.connection, is_autocommit)
    for _ in range(3):
        assert subject.driver.ping(subject.connection)
    assert not subject.is_in_transaction()
    assert subject.state is (State.CLEAN if name in SURE else State.UNKNOWN)
    run(subject.connection, "select 1 from information_schema.tables limit 1")
    if name in POSTGRESQL:
        assert subject.is_in_transaction() is not is_autocommit


@pytest.mark.parametrize("name", COOPERATIVE)
def test_a_ping_is_one_round_trip_also_after_many_of_them(
    request: pytest.FixtureRequest, name: str
) -> None:
    server = server_of(request, name)
    with Wire(server.host, server.port) as wire:
        url = server.url(name).replace(f":{server.port}/", f":{wire.port}/")
        with contextlib.closing(open_connection(name, url)) as connection:
            driver = driver_for(connection)
            driver.adopt(connection)
            connection.rollback()
            for _ in range(12):
                wire.reset()
                assert driver.ping(connection)
                assert wire.round_trips == 1


def test_a_ping_of_mysqlclient_is_no_query(subject_of: Callable[[str], Subject]) -> None:
    """Its wire cannot be watched from this process, which it blocks; the server counts."""
    subject = subject_of("MySQLdb")

    def count(what: str) -> int:
        return int(run(subject.observer, f"show global status like '{what}'")[0][1])

    before = count("Com_admin_commands"), count("Questions")
    assert subject.driver.ping(subject.connection)
    after = count("Com_admin_commands"), count("Questions")
    assert after[0] - before[0] == 1
    assert after[1] - before[1] <= 3, "the ping, and what counts"


@pytest.mark.parametrize("name", EVERY)
def test_a_ping_of_a_killed_connection_is_false(
    subject_of: Callable[[str], Subject], name: str
) -> None:
    subject = subject_of(name)
    subject.kill()
    assert eventually(lambda: hears_farewell(subject))
    assert not subject.driver.ping(subject.connection)
    assert not subject.driver.ping(subject.connection)


@pytest.mark.parametrize("name", COOPERATIVE)
def test_a_timeout_passes_through_a_ping(
    request: pytest.FixtureRequest, subject_of: Callable[[str], Subject], name: str
) -> None:
    """And what it interrupts is broken."""
    subject = subject_of(name)
    with socket.socket() as deaf:  # accepts, and never answers
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        with socket.create_connection(deaf.getsockname()) as link:
            number = subject.driver.fileno(subject.connection)
            assert number is not None
            os.dup2(link.fileno(), number)
            with pytest.raises(gevent.Timeout):
                with gevent.Timeout(0.1):
                    subject.driver.ping(subject.connection)
    assert subject.state is State.BROKEN


# What a server says to an idle connection.


@pytest.mark.parametrize("name", EVERY)
def test_an_idle_connection_that_is_killed_says_farewell(
    subject_of: Callable[[str], Subject], name: str
) -> None:
    subject = subject_of(name)
    assert not hears_farewell(subject)
    subject.kill()
    assert eventually(lambda: hears_farewell(subject))


@pytest.mark.parametrize("name", EVERY)
def test_an_idle_connection_that_the_server_times_out_says_farewell(
    subject_of: Callable[[str], Subject], name: str
) -> None:
    subject = subject_of(name)
    limit = "set wait_timeout = 1" if name in MYSQL else "set idle_session_timeout = '200ms'"
    prepare(name, subject.connection, limit)
    assert eventually(lambda: hears_farewell(subject))
    assert not subject.driver.ping(subject.connection)


@pytest.mark.parametrize("name", EVERY)
def test_idle_connections_are_gone_from_the_pool_when_the_server_restarts(
    request: pytest.FixtureRequest, pool_of: Callable[..., ConnectionPool], name: str
) -> None:
    pool = pool_of(name)
    lend_at_once(pool, 3)
    server_of(request, name).restart()
    assert eventually(lambda: pool.stats().size == 0)
    assert pool.stats().closed == {"dead": 3}
    with pool.connection() as connection:
        assert run(connection, "select 7") == [(7,)]


def lend_at_once(pool: ConnectionPool, number: int) -> None:
    """Makes the pool hold so many idle connections."""
    lent = [pool.connection() for _ in range(number)]
    for one in lent:
        one.close()


@pytest.mark.parametrize("name", EVERY)
def test_killed_connections_are_gone_from_the_pool_without_a_ping(
    request: pytest.FixtureRequest, pool_of: Callable[..., ConnectionPool], name: str
) -> None:
    pool = pool_of(name)
    ask = "select connection_id()" if name in MYSQL else "select pg_backend_pid()"
    lent = [pool.connection() for _ in range(3)]
    numbers = [run(one, ask)[0][0] for one in lent]
    for one in lent:
        one.close()
    with observer_of(request, name) as observer:
        for number in numbers:
            end = f"kill {number}" if name in MYSQL else f"select pg_terminate_backend({number})"
            run(observer, end)
    assert eventually(lambda: pool.stats().size == 0)
    assert pool.stats().closed == {"dead": 3}
    assert pool.stats().pings == 0


def test_a_connection_that_pymysql_has_reconnected_is_watched_by_its_new_socket(
    request: pytest.FixtureRequest, pool_of: Callable[..., ConnectionPool]
) -> None:
    pool = pool_of("pymysql", max_size=1)
    with pool.connection() as connection:
        run(connection, "select 1")
    with pool.connection() as connection, contextlib.ExitStack() as taken:
        before = connection._sock.fileno()
        connection.close()
        for end in socket.socketpair():  # so that the number is another's
            taken.callback(end.close)
        connection.connect()
        assert connection._sock.fileno() != before
        [[number]] = run(connection, "select connection_id()")
        connection.rollback()
    with observer_of(request, "pymysql") as observer:
        run(observer, f"kill {number}")
    assert eventually(lambda: pool.stats().closed.get("dead") == 1)
    assert pool.stats().pings == 0


def test_a_killed_owner_does_not_have_pymysql_forget_what_another_greenlet_sends(
    pool_of: Callable[..., ConnectionPool],
) -> None:
    pool = pool_of("pymysql", max_size=1, reclaim_after=None)
    for _ in range(2):  # it is known to be clean
        with pool.connection() as connection:
            run(connection, "drop table if exists sent")
            run(connection, "create table sent (what longtext)")
    handed = []

    def take_and_sleep() -> None:
        handed.append(pool.connection())
        gevent.sleep(60)

    owner = gevent.spawn(take_and_sleep)
    gevent.sleep(0.05)
    lent = handed.pop()
    big = "x" * (12 << 20)  # more than a socket takes at once
    insert = gevent.spawn(run, lent.connection, f"insert into sent values ('{big}')")
    gevent.sleep(0)
    owner.kill()
    insert.get()
    assert pool.core.handlers.is_clean(lent.connection) is False
    lent.close()
    with pool.connection() as connection:
        assert run(connection, "select count(*) from sent") == [(0,)]


def test_a_connection_that_reconnects_and_is_handed_on_is_watched_by_its_new_socket(
    pool_of: Callable[..., ConnectionPool],
) -> None:
    pool = pool_of("pymysql", max_size=1)
    with pool.connection() as connection:
        run(connection, "select 1")
    handed: list[Any] = []
    taken: list[socket.socket] = []

    def take_and_sleep() -> None:
        lent = pool.connection()
        lent.connection.close()
        taken[:] = socket.socketpair()  # so that the number is another's
        lent.connection.connect()
        handed.append(lent)
        gevent.sleep(60)

    owner = gevent.spawn(take_and_sleep)
    assert eventually(lambda: bool(handed))
    run(handed[0].connection, "select 1")
    handed[0].connection.rollback()
    owner.kill()
    gevent.sleep(0.05)  # the pool has been told
    handed.pop().close()
    [entry] = pool.core.ledger.entries
    assert entry.fd == entry.resource._sock.fileno()
    for end in taken:
        end.close()


@pytest.mark.parametrize("name", EVERY)
def test_timed_out_connections_are_gone_from_the_pool_without_a_ping(
    pool_of: Callable[..., ConnectionPool], name: str
) -> None:
    pool = pool_of(name)
    limit = "set wait_timeout = 1" if name in MYSQL else "set idle_session_timeout = '200ms'"
    with pool.connection() as connection:
        prepare(name, connection, limit)
    assert eventually(lambda: pool.stats().size == 0)
    assert pool.stats().closed == {"dead": 1}
    assert pool.stats().pings == 0


def notifications_of(name: str, connection: Any) -> list[str]:
    """The payloads that a program would read."""
    if name == "psycopg":
        return [one.payload for one in connection.notifies(timeout=0.1)]
    if name == "psycopg2":
        return [one.payload for one in connection.notifies]
    return [payload for _, _, payload in connection.notifications]


@pytest.mark.parametrize("name", POSTGRESQL)
def test_a_notification_costs_a_ping_and_neither_the_connection_nor_itself(
    request: pytest.FixtureRequest, pool_of: Callable[..., ConnectionPool], name: str
) -> None:
    pool = pool_of(name)
    with pool.connection() as connection:
        prepare(name, connection, "listen news")
    driver = driver_for(connection)
    with observer_of(request, name) as observer:
        run(observer, "notify news, 'it is spring'")
    number = driver.fileno(connection)
    assert number is not None
    assert eventually(lambda: look(number))
    assert driver.unsolicited(connection, look(number) or b"") is Idle.SUSPECT
    gevent.sleep(0.05)
    with pool.connection() as again:
        assert again is connection
        assert pool.stats().pings == 1
        assert notifications_of(name, again) == ["it is spring"]
    assert pool.stats().closed == {}


@pytest.mark.parametrize("name", POSTGRESQL)
def test_a_reload_of_the_servers_configuration_evicts_nothing(
    request: pytest.FixtureRequest, pool_of: Callable[..., ConnectionPool], name: str
) -> None:
    pool = pool_of(name)
    lend_at_once(pool, 3)
    with observer_of(request, name) as observer:
        # The time zone is one of the settings that clients are told of.
        run(observer, "alter system set timezone = 'Europe/Paris'")
        try:
            run(observer, "select pg_reload_conf()")
            gevent.sleep(0.3)
            assert pool.stats().idle == 3
            with pool.connection() as connection:
                assert run(connection, "show timezone") == [("Europe/Paris",)]
            assert pool.stats().closed == {}
        finally:
            run(observer, "alter system reset timezone")
            run(observer, "select pg_reload_conf()")
