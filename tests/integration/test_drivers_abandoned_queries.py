"""What an abandoned query leaves on the server can be ended when its connection is closed."""

from __future__ import annotations

import contextlib
import gc
import os
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest
from gevent.event import Event

from geventpool.drivers import AbandonedQuery, State, driver_for
from geventpool.drivers.mysql_kill import Thread

from .dbapi import (
    ALL,
    COOPERATIVE,
    MYSQL,
    Subject,
    eventually,
    make_subject,
    module_of,
    open_connection,
    run,
    server_of,
)
from .test_tls import Files, tls_mariadb, tls_postgresql

__all__ = ["tls_mariadb", "tls_postgresql"]  # pytest's fixtures


class Mourned:
    """A subject, and what its abandoned query is given to open connections with."""

    def __init__(self, name: str, url: str, **arguments: Any) -> None:
        self.name = name
        self.url = url
        self.subject: Subject = make_subject(name, url, **arguments)
        self.helpers: list[Any] = []

    def connect(self) -> Any:
        self.helpers.append(open_connection(self.name, self.url))
        return self.helpers[-1]

    def sleep(self) -> None:
        sleep = "select sleep(30)" if self.name in MYSQL else "select pg_sleep(30)"
        run(self.subject.connection, sleep)

    def abandon(self) -> AbandonedQuery:
        """Leaves a query and closes its connection, as a pool does."""
        with pytest.raises(gevent.Timeout), gevent.Timeout(0.1):
            self.sleep()
        return self.close()

    def close(self) -> AbandonedQuery:
        abandoned = self.subject.driver.abandoned(self.subject.connection)
        assert abandoned is not None
        with contextlib.suppress(Exception):  # some refuse to close what is closed
            self.subject.connection.close()
        return abandoned

    def is_on_the_server(self) -> bool:
        where = (
            "information_schema.processlist where id"
            if self.name in MYSQL
            else "pg_stat_activity where pid"
        )
        ((count,),) = run(
            self.subject.observer, f"select count(*) from {where} = {self.subject.number}"
        )
        return bool(count)


@pytest.fixture
def mourned_of(request: pytest.FixtureRequest) -> Iterator[Callable[..., Mourned]]:
    made: list[Mourned] = []

    def mourned_of(name: str, server: Any = None, **arguments: Any) -> Mourned:
        module_of(name)
        made.append(Mourned(name, (server or server_of(request, name)).url(name), **arguments))
        return made[-1]

    yield mourned_of
    for one in made:
        one.subject.close()


def end(mourned: Mourned, abandoned: AbandonedQuery) -> None:
    """Cancels and waits; the server itself says that it is over."""
    with contextlib.closing(abandoned):
        assert abandoned.server_id == mourned.subject.number
        assert mourned.is_on_the_server()
        abandoned.cancel(mourned.connect)
        assert abandoned.wait(5)
    assert eventually(lambda: not mourned.is_on_the_server())


@pytest.mark.parametrize("name", COOPERATIVE)
def test_an_abandoned_query_can_be_ended_on_the_server_after_its_connection_was_closed(
    mourned_of: Callable[..., Mourned], name: str
) -> None:
    mourned = mourned_of(name)
    end(mourned, mourned.abandon())
    if name in MYSQL:
        (helper,) = mourned.helpers
        assert driver_for(helper).state(helper) is State.BROKEN, "it is closed"
    else:
        assert mourned.helpers == [], "the protocol has a message for it"


@pytest.mark.parametrize("name", COOPERATIVE)
def test_without_a_cancel_the_server_works_on(
    mourned_of: Callable[..., Mourned], name: str
) -> None:
    mourned = mourned_of(name)
    abandoned = mourned.abandon()
    assert not abandoned.wait(0.3)
    assert mourned.is_on_the_server()
    end(mourned, abandoned)


@pytest.mark.parametrize("name", COOPERATIVE)
def test_a_greenlet_that_is_killed_leaves_an_abandoned_query_as_a_timeout_does(
    mourned_of: Callable[..., Mourned], name: str
) -> None:
    mourned = mourned_of(name)
    victim = gevent.spawn(mourned.sleep)
    gevent.sleep(0.1)
    victim.kill()
    end(mourned, mourned.close())


@pytest.mark.parametrize("name", ALL)
def test_there_is_no_abandoned_query_of_a_connection_that_owes_nothing(
    mourned_of: Callable[..., Mourned], name: str
) -> None:
    mourned = mourned_of(name)
    connection, driver = mourned.subject.connection, mourned.subject.driver
    assert driver.abandoned(connection) is None
    run(connection, "select 1")
    assert driver.abandoned(connection) is None, "in a transaction"
    with pytest.raises(module_of(name).Error):
        run(connection, "select * from there_is_no_such_table")
    assert driver.abandoned(connection) is None, "after an error"
    connection.rollback()
    assert driver.abandoned(connection) is None
    connection.close()
    assert driver.abandoned(connection) is None, "closed"


@pytest.mark.parametrize("name", COOPERATIVE)
def test_there_is_no_abandoned_query_of_a_query_that_the_server_itself_has_ended(
    mourned_of: Callable[..., Mourned], name: str
) -> None:
    mourned = mourned_of(name)

    def fail() -> None:
        with pytest.raises(module_of(name).Error):
            mourned.sleep()

    victim = gevent.spawn(fail)
    gevent.sleep(0.1)
    mourned.subject.kill()
    victim.get(timeout=30)
    assert eventually(lambda: not mourned.is_on_the_server())
    assert mourned.subject.driver.abandoned(mourned.subject.connection) is None


@pytest.mark.parametrize("name", COOPERATIVE)
def test_an_abandoned_query_whose_query_has_ended_meanwhile_asks_for_nothing(
    mourned_of: Callable[..., Mourned], name: str
) -> None:
    mourned = mourned_of(name)
    with contextlib.closing(mourned.abandon()) as abandoned:
        mourned.subject.kill()
        assert abandoned.wait(5)
        abandoned.cancel(mourned.connect)
        assert mourned.helpers == []


def descriptors() -> int:
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("name", COOPERATIVE)
def test_abandoned_queries_leave_no_descriptor_behind_whether_they_were_closed_or_forgotten(
    mourned_of: Callable[..., Mourned], name: str
) -> None:
    mourned = mourned_of(name)
    end(mourned, mourned.abandon())  # with whatever is opened once
    before = descriptors()
    for turn in range(20):
        connection = open_connection(name, mourned.url)
        driver_for(connection).adopt(connection)
        mourned.subject.connection = connection
        abandoned = mourned.abandon()
        if turn % 2:
            abandoned.cancel(mourned.connect)
            assert abandoned.wait(5)
            abandoned.close()
            abandoned.close()
        else:
            abandoned.cancel(mourned.connect)
        del abandoned, connection
    mourned.subject.connection = None
    mourned.helpers.clear()
    assert eventually(lambda: descriptors() <= before)


@pytest.mark.parametrize("name", COOPERATIVE)
def test_a_kill_during_cancel_or_wait_leaks_nothing_and_comes_out_as_itself(
    mourned_of: Callable[..., Mourned], name: str
) -> None:
    """Thrown at each of the first switches in turn."""
    mourned = mourned_of(name)
    end(mourned, mourned.abandon())
    before = descriptors()
    kills = 0
    for switches in range(6):
        connection = open_connection(name, mourned.url)
        driver_for(connection).adopt(connection)
        mourned.subject.connection = connection
        abandoned = mourned.abandon()
        kills += kill_at(
            switches,
            lambda abandoned=abandoned: (abandoned.cancel(mourned.connect), abandoned.wait(5)),
        )
        with contextlib.closing(abandoned):
            abandoned.cancel(mourned.connect)
            assert abandoned.wait(5), switches
        del abandoned, connection
    assert kills >= 2, "in both"
    mourned.subject.connection = None
    mourned.helpers.clear()
    assert eventually(lambda: descriptors() <= before)


class Stop(BaseException):
    """What is thrown."""


def kill_at(switches: int, work: Callable[[], object]) -> bool:
    """Runs it, and throws at its so manieth switch to the hub; False: it did not come to that."""
    from greenlet import greenlet, settrace

    hub = gevent.get_hub()
    seen = 0

    def trace(event: str, between: tuple[greenlet, greenlet]) -> None:
        nonlocal seen
        origin, target = between
        if origin is victim and target is hub and event == "switch":
            if seen == switches:
                hub.loop.run_callback(throw)
            seen += 1

    def throw() -> None:
        if not victim.dead:
            victim.throw(Stop())

    outcome: list[object] = []
    done = Event()

    def body() -> None:
        try:
            work()
        except BaseException as error:
            outcome.append(error)
        done.set()

    victim = gevent.spawn_raw(body)
    was = settrace(trace)
    try:
        assert done.wait(20)
    finally:
        settrace(was)
    assert all(isinstance(error, Stop) for error in outcome), outcome
    return bool(outcome)


# PyMySQL.


def test_a_read_timeout_of_pymysql_leaves_an_abandoned_query(
    mourned_of: Callable[..., Mourned],
) -> None:
    mourned = mourned_of("pymysql", read_timeout=0.2)
    with pytest.raises(module_of("pymysql").OperationalError, match="Lost connection"):
        mourned.sleep()
    end(mourned, mourned.close())


@pytest.mark.parametrize("end_by", ["commit", "rollback", "ping"])
def test_a_kill_in_what_is_no_query_of_pymysql_leaves_an_abandoned_query(
    mourned_of: Callable[..., Mourned], end_by: str
) -> None:
    """A rollback can take long, too."""
    connection = mourned_of("pymysql").subject.connection
    connection._rfile.close()
    connection._rfile = Killed()
    with pytest.raises(Stop):
        getattr(connection, end_by)()
    abandoned = driver_for(connection).abandoned(connection)
    assert abandoned is not None
    with contextlib.closing(abandoned):
        assert abandoned.wait(5), "it was done at once, and sees that we have hung up"


class Killed:
    """A file that a kill reaches as soon as it is read from."""

    def read(self, size: int) -> bytes:
        raise Stop

    def close(self) -> None:
        pass


def test_the_statements_behind_the_abandoned_one_do_not_run(
    mourned_of: Callable[..., Mourned],
) -> None:
    from pymysql.constants import CLIENT

    mourned = mourned_of("pymysql", client_flag=CLIENT.MULTI_STATEMENTS, autocommit=True)
    observer = mourned.subject.observer
    run(observer, "create or replace table left_behind (id int)")
    with pytest.raises(gevent.Timeout), gevent.Timeout(0.1):
        run(mourned.subject.connection, "do sleep(30); insert into left_behind values (1)")
    end(mourned, mourned.close())
    assert run(observer, "select count(*) from left_behind") == [(0,)]


def test_results_that_nobody_has_read_yet_leave_an_abandoned_query(
    mourned_of: Callable[..., Mourned],
) -> None:
    from pymysql.constants import CLIENT

    mourned = mourned_of("pymysql", client_flag=CLIENT.MULTI_STATEMENTS)
    cursor = mourned.subject.connection.cursor()
    cursor.execute("select 1; select sleep(30)")
    assert cursor.fetchall() == ((1,),)
    end(mourned, mourned.close())


def test_a_packet_that_was_sent_by_half_leaves_none(mourned_of: Callable[..., Mourned]) -> None:
    """The server waits for the other half and does nothing."""
    mourned = mourned_of("pymysql")
    connection = mourned.subject.connection
    connection._sock = HalfSocket(connection._sock)
    with pytest.raises(Stop):
        run(connection, "select 1")
    assert mourned.subject.driver.abandoned(connection) is None
    connection.close()
    assert eventually(lambda: not mourned.is_on_the_server())


class HalfSocket:
    """A socket that a kill reaches in the middle of what it sends."""

    def __init__(self, sock: Any) -> None:
        self._wrapped = sock

    def __getattr__(self, name: str) -> Any:
        return getattr(self._wrapped, name)

    def sendall(self, data: bytes) -> None:
        self._wrapped.sendall(data[: len(data) // 2])
        raise Stop


def assert_refused(thread: Any, mourned: Mourned) -> None:
    with contextlib.closing(thread), pytest.raises(RuntimeError, match="another server"):
        thread.cancel(mourned.connect)
    assert not mourned.helpers[-1].open


def test_a_thread_of_another_server_with_the_same_number_is_left_alone(
    mourned_of: Callable[..., Mourned],
) -> None:
    """As behind a load balancer: here the number is that of a connection that is not ours."""
    mourned = mourned_of("pymysql")
    # The same port, but of another machine, as after a restart of the server, when numbers are few.
    innocent = mourned_of("pymysql", bind_address="127.0.0.2")
    number, sock = innocent.subject.number, innocent.subject.connection._sock
    ours, theirs = mourned.subject.connection._sock.getsockname(), sock.getpeername()
    port = sock.getsockname()[1]
    for address, peer in (
        (ours, theirs),
        (("127.0.0.1", port), theirs),
        (("127.0.0.3", port), theirs),
        (("127.0.0.2", port), ("127.0.0.9", theirs[1])),
    ):
        assert_refused(Thread(sock.fileno(), number, address, peer), mourned)
        assert innocent.is_on_the_server()
    with contextlib.closing(Thread(sock.fileno(), 2**31, ours, theirs)) as thread:
        thread.cancel(mourned.connect)  # there is none


def test_a_thread_is_found_through_a_connection_that_comes_from_another_address_of_ours(
    mourned_of: Callable[..., Mourned],
) -> None:
    mourned = mourned_of("pymysql", bind_address="127.0.0.2")
    end(mourned, mourned.abandon())


def test_a_query_that_has_ended_while_its_helper_connected_is_not_asked_for(
    mourned_of: Callable[..., Mourned],
) -> None:
    """By then its number may be another's: the server may have begun again."""
    mourned = mourned_of("pymysql")

    class Untouchable:
        def close(self) -> None:
            pass

    def connect() -> Any:
        mourned.subject.kill()
        assert eventually(lambda: abandoned.is_over)
        return Untouchable()

    with contextlib.closing(mourned.abandon()) as abandoned:
        abandoned.cancel(connect)


def test_where_addresses_are_translated_no_thread_is_killed(mariadb: Any) -> None:
    from .wire import Wire

    with Wire(mariadb.host, mariadb.port) as wire:
        url = mariadb.url("pymysql").replace(f":{mariadb.port}/", f":{wire.port}/")
        mourned = Mourned("pymysql", url)
        with contextlib.closing(mourned.abandon()) as abandoned:
            with pytest.raises(RuntimeError, match="translates addresses"):
                abandoned.cancel(mourned.connect)
            assert not mourned.helpers[0].open
            run(mourned.subject.observer, f"kill {mourned.subject.number}")
            assert abandoned.wait(5)
        mourned.subject.close()


def test_what_stands_against_a_cancel_comes_out_of_it(mourned_of: Callable[..., Mourned]) -> None:
    mourned = mourned_of("pymysql")

    def refuse() -> Any:
        raise ConnectionRefusedError("no")

    with contextlib.closing(mourned.abandon()) as abandoned:
        with pytest.raises(ConnectionRefusedError):
            abandoned.cancel(refuse)
        mourned.subject.kill()
        assert abandoned.wait(5)


def test_a_user_without_rights_can_end_his_own_query(
    mariadb: Any, mourned_of: Callable[..., Mourned]
) -> None:
    everything = mourned_of("pymysql")
    observer = everything.subject.observer
    run(observer, "create or replace user poor@'%' identified by 'poor'")
    run(observer, f"grant select on {mariadb.database}.* to poor@'%'")
    url = mariadb.url("pymysql").replace(f"{mariadb.user}:{mariadb.password}@", "poor:poor@")
    mourned = Mourned("pymysql", url)
    end(mourned, mourned.abandon())
    mourned.subject.close()
    run(observer, "drop user poor@'%'")


# Behind TLS.


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return Files(tmp_path_factory.mktemp("tls"))


@pytest.mark.parametrize("name", COOPERATIVE)
def test_an_abandoned_query_behind_tls_can_be_ended(
    request: pytest.FixtureRequest, mourned_of: Callable[..., Mourned], name: str
) -> None:
    server = request.getfixturevalue("tls_mariadb" if name in MYSQL else "tls_postgresql")
    mourned = mourned_of(name, server)
    end(mourned, mourned.abandon())
