"""A server that has no room for one more, and connections that go from one native thread to another."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest
from sqlalchemy.engine import make_url

from geventpool.drivers import driver_for, server_is_full
from geventpool.drivers.mysql import mysql_code
from tools.servers import MariaDB, PostgreSQL

from .dbapi import (
    COOPERATIVE,
    EVERY,
    MYSQL,
    POSTGRESQL,
    make_subject,
    module_of,
    open_connection,
    run,
    server_of,
    set_autocommit,
)
from .test_drivers_abandoned_queries import files, tls_mariadb, tls_postgresql

__all__ = ["files", "tls_mariadb", "tls_postgresql"]  # pytest's fixtures


@pytest.fixture(scope="module")
def small_mariadb(mariadb: Any) -> Iterator[MariaDB]:
    with MariaDB(max_connections=10) as server:
        yield server


@pytest.fixture(scope="module")
def small_postgresql(postgresql: Any) -> Iterator[PostgreSQL]:
    with PostgreSQL(max_connections=10) as server:
        yield server


@contextlib.contextmanager
def administrator(name: str, url: str) -> Iterator[Callable[[str], list[Any]]]:
    """Runs statements with all rights."""
    with contextlib.closing(open_connection(name, url)) as connection:
        set_autocommit(name, connection, True)
        yield lambda sql: run(connection, sql)


def url_of(server: Any, name: str, user: str) -> str:
    url = make_url(server.url(name)).set(username=user, password=user)
    return url.render_as_string(hide_password=False)


def refusal(name: str, url: str, most: int) -> BaseException:
    """What the connect raises for which there is no room."""
    with contextlib.ExitStack() as opened:
        for _ in range(most):
            try:
                opened.enter_context(contextlib.closing(open_connection(name, url)))
            except module_of(name).Error as error:
                return error  # type: ignore[no-any-return]
    raise AssertionError("the server has room for all")


@pytest.mark.parametrize("name", EVERY)
def test_a_server_that_has_all_its_connections_in_use_is_full(
    request: pytest.FixtureRequest, name: str
) -> None:
    kind = "small_mariadb" if name in MYSQL else "small_postgresql"
    server = request.getfixturevalue(kind)
    error = refusal(name, server.url(name), 20)
    assert server_is_full(error), error
    assert driver_for(error).name == name


@pytest.mark.parametrize("name", POSTGRESQL)
def test_a_server_with_connections_left_for_administrators_only_is_full(
    request: pytest.FixtureRequest, name: str
) -> None:
    server = request.getfixturevalue("small_postgresql")
    with administrator("psycopg", server.url("psycopg")) as tell:
        if not tell("select 1 from pg_roles where rolname = 'plain'"):
            tell("create role plain login password 'plain'")
    error = refusal(name, url_of(server, name, "plain"), 20)
    assert server_is_full(error), error


@pytest.fixture
def limited(request: pytest.FixtureRequest) -> Iterator[Callable[[str], str]]:
    """URLs of a user who may have one connection."""
    with contextlib.ExitStack() as undo:

        def limited(name: str) -> str:
            module_of(name)
            server = server_of(request, name)
            of_server = "pymysql" if name in MYSQL else "psycopg"
            tell = undo.enter_context(administrator(of_server, server.url(of_server)))
            if name in MYSQL:
                tell("create or replace user single@'%' identified by 'single'")
                tell("grant usage on *.* to single@'%' with max_user_connections 1")
                tell(f"grant select on {server.database}.* to single@'%'")
                undo.callback(tell, "drop user single@'%'")
            else:
                tell("drop role if exists single")
                tell("create role single login password 'single' connection limit 1")
                undo.callback(tell, "drop role single")
            return url_of(server, name, "single")

        yield limited


@pytest.mark.parametrize("name", EVERY)
def test_a_user_who_has_all_his_connections_in_use_finds_the_server_full(
    limited: Callable[[str], str], name: str
) -> None:
    error = refusal(name, limited(name), 2)
    assert server_is_full(error), error


@pytest.mark.parametrize("name", POSTGRESQL)
def test_a_database_that_has_all_its_connections_in_use_is_full(
    limited: Callable[[str], str], postgresql: Any, name: str
) -> None:
    url = limited(name)
    with administrator("psycopg", postgresql.url("psycopg")) as tell:
        tell("drop database if exists single")
        tell("create database single connection limit 1")
        tell("alter role single connection limit 9")
        url = make_url(url).set(database="single").render_as_string(hide_password=False)
        error = refusal(name, url, 2)
        assert server_is_full(error), error
        # Its one connection has just been closed, and may not be gone yet.
        tell("drop database single with (force)")


@pytest.mark.parametrize("name", MYSQL)
def test_a_user_who_has_connected_too_often_this_hour_is_not_helped_by_a_returned_connection(
    limited: Callable[[str], str], mariadb: Any, name: str
) -> None:
    url = limited(name)
    with administrator("pymysql", mariadb.url("pymysql")) as tell:
        tell("grant usage on *.* to single@'%' with max_connections_per_hour 1")
    open_connection(name, url).close()
    error = refusal(name, url, 1)
    assert mysql_code(error) == 1226
    assert not server_is_full(error)


@pytest.mark.parametrize("name", EVERY)
def test_what_else_goes_wrong_does_not_mean_that_a_server_is_full(
    request: pytest.FixtureRequest, name: str
) -> None:
    server = server_of(request, name)
    unknown = refusal(name, url_of(server, name, "nobody_at_all"), 1)
    assert not server_is_full(unknown), unknown
    nowhere = make_url(server.url(name)).set(port=1).render_as_string(hide_password=False)
    gone = refusal(name, nowhere, 1)
    assert not server_is_full(gone), gone
    with contextlib.closing(open_connection(name, server.url(name))) as connection:
        with pytest.raises(module_of(name).Error) as caught:
            run(connection, "select * from there_is_no_such_table")
    assert not server_is_full(caught.value)


def test_errors_of_no_dbapi_do_not_mean_that_a_server_is_full() -> None:
    for error in (OSError(1040, "Too many connections"), gevent.Timeout(), Exception()):
        assert not server_is_full(error)


# From one native thread to another.


def in_a_thread(work: Callable[[], Any]) -> Any:
    """Runs it in another native thread, which has a hub of its own."""
    return gevent.get_hub().threadpool.apply(work)


def ask_and_wait(name: str, connection: Any) -> int:
    """Asks something for which the answer does not come at once; the server's number of it."""
    if name in MYSQL:
        ((number, _),) = run(connection, "select connection_id(), sleep(0.05)")
    else:
        ((number, _),) = run(connection, "select pg_backend_pid(), pg_sleep(0.05)")
    return int(number)


def tour(name: str, url: str) -> None:
    """A connection is used here, there, here again, and ends as well as any."""
    subject = make_subject(name, url)
    connection, driver = subject.connection, subject.driver

    def there() -> int:
        driver.move(connection)
        return ask_and_wait(name, connection)

    for _ in range(3):
        driver.move(connection)
        assert ask_and_wait(name, connection) == subject.number
        assert in_a_thread(there) == subject.number
    driver.move(connection)
    with pytest.raises(gevent.Timeout), gevent.Timeout(0.1):
        run(connection, "select sleep(30)" if name in MYSQL else "select pg_sleep(30)")
    abandoned = driver.abandoned(connection)
    assert abandoned is not None
    with contextlib.closing(abandoned):
        with contextlib.suppress(Exception):
            connection.close()
        abandoned.cancel(lambda: open_connection(name, url))
        assert abandoned.wait(5)
    subject.close()


@pytest.mark.parametrize("name", COOPERATIVE)
def test_a_connection_is_used_in_another_thread_and_comes_back(
    request: pytest.FixtureRequest, name: str
) -> None:
    tour(name, server_of(request, name).url(name))


@pytest.mark.parametrize("name", COOPERATIVE)
def test_a_connection_behind_tls_is_used_in_another_thread_and_comes_back(
    request: pytest.FixtureRequest, name: str
) -> None:
    server = request.getfixturevalue("tls_mariadb" if name in MYSQL else "tls_postgresql")
    tour(name, server.url(name))


@pytest.mark.parametrize("name", COOPERATIVE)
def test_a_connection_that_was_opened_in_a_thread_which_has_ended_can_be_used(
    request: pytest.FixtureRequest, name: str
) -> None:
    url = server_of(request, name).url(name)
    pool = gevent.threadpool.ThreadPool(1)
    connection = pool.apply(lambda: open_connection(name, url))
    pool.kill()
    with contextlib.closing(connection):
        driver = driver_for(connection)
        driver.adopt(connection)
        driver.move(connection)
        assert ask_and_wait(name, connection)
        driver.move(connection)


@pytest.mark.parametrize("name", EVERY)
def test_a_closed_connection_can_be_moved_without_harm(
    request: pytest.FixtureRequest, name: str
) -> None:
    module_of(name)
    connection = open_connection(name, server_of(request, name).url(name))
    connection.close()
    driver_for(connection).move(connection)
