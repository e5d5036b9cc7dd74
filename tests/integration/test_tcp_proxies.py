"""HAProxy, or a TLS tunnel, between a pool and its database: the programs themselves."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import gevent
import pytest

from geventpool import ConnectionPool
from tools.proxies import HAProxy, Stunnel
from tools.servers import MariaDB

from .certificates import Authority
from .dbapi import (
    MYSQL,
    ask,
    eventually,
    module_of,
    open_connection,
    run,
    server_of,
    set_autocommit,
)

SIZE = 4
NAMES = ["pymysql", "psycopg", "psycopg2", "pg8000"]


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(params=["haproxy", "stunnel"])
def start_proxy(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., Any]:
    """Starts one in front of a server."""
    request.getfixturevalue(f"{request.param}_program")
    if request.param == "haproxy":
        return HAProxy
    certificate = Authority(tmp_path, "authority").issue("database").certificate
    return partial(Stunnel, certificate=certificate)


@pytest.fixture
def server(request: pytest.FixtureRequest, name: str) -> Any:
    return server_of(request, name)


@pytest.fixture
def observer(server: Any, name: str) -> Iterator[Any]:
    with contextlib.closing(open_connection(name, server.url(name))) as connection:
        set_autocommit(name, connection, True)
        yield connection


@pytest.fixture
def make_pool(name: str) -> Iterator[Callable[..., ConnectionPool]]:
    with contextlib.ExitStack() as made:

        def make(proxy: Any, **settings: Any) -> ConnectionPool:
            pool = ConnectionPool(
                lambda: open_connection(name, proxy.url(name)), max_size=SIZE, **settings
            )
            made.callback(pool.close)
            return pool

        yield make


def fill(pool: ConnectionPool) -> None:
    """From now on so many are idle."""
    with contextlib.ExitStack() as lent:
        for connection in [lent.enter_context(pool.connection()) for _ in range(SIZE)]:
            run(connection, "select 1")
    assert pool.stats().idle == SIZE


def number_of(name: str, connection: Any) -> int:
    ask_it = "select connection_id()" if name in MYSQL else "select pg_backend_pid()"
    ((number,),) = run(connection, ask_it)
    return int(number)


def asleep(name: str, observer: Any) -> set[int]:
    """The server's numbers of connections that run a long query."""
    where = (
        "id from information_schema.processlist where info like 'select sleep(300)%'"
        if name in MYSQL
        else "pid from pg_stat_activity where state = 'active' and query like 'select pg_sleep(300)%'"
    )
    return {number for (number,) in run(observer, f"select {where}")}


def end(name: str, observer: Any, number: int) -> None:
    run(observer, f"kill {number}" if name in MYSQL else f"select pg_terminate_backend({number})")


def sleep(pool: ConnectionPool, name: str) -> None:
    ask(pool, "select sleep(300)" if name in MYSQL else "select pg_sleep(300)")


def test_connections_that_are_cut_while_they_are_idle_cost_no_caller_an_error(
    server: Any, start_proxy: Any, make_pool: Any
) -> None:
    with start_proxy(server, idle_timeout=1) as proxy:
        pool = make_pool(proxy)
        assert ask(pool) == [(1,)]
        assert eventually(lambda: pool.stats().idle == 0), "the hub is told"
        for _ in range(2 * SIZE):
            assert ask(pool) == [(1,)]


def test_a_restart_a_kill_and_kills_of_sessions_cost_only_those_in_use_an_error(
    server: Any, start_proxy: Any, make_pool: Any, observer: Any, name: str
) -> None:
    with start_proxy(server) as proxy:
        pool = make_pool(proxy)
        for end_it in (proxy.restart, proxy.kill):
            fill(pool)
            in_use = pool.connection()
            end_it()
            if end_it == proxy.kill:
                proxy.start()
            for _ in range(2 * SIZE):
                assert ask(pool) == [(1,)]
            with pytest.raises(module_of(name).Error), in_use as connection:
                run(connection, "select 1")
        with contextlib.ExitStack() as lent:
            numbers = [number_of(name, lent.enter_context(pool.connection())) for _ in range(SIZE)]
        for number in numbers:
            end(name, observer, number)
        assert eventually(lambda: pool.stats().idle == 0), "it was passed on"
        for _ in range(2 * SIZE):
            assert ask(pool) == [(1,)]


def test_a_query_whose_caller_is_killed_ends_on_the_server_or_keeps_its_place(
    server: Any,
    start_proxy: Any,
    make_pool: Any,
    observer: Any,
    name: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """PostgreSQL's request goes through. MySQL's thread cannot be told from another server's."""
    before = asleep(name, observer)
    with start_proxy(server) as proxy:
        pool = make_pool(proxy)
        caller = gevent.spawn(sleep, pool, name)
        assert eventually(lambda: asleep(name, observer) - before)
        (number,) = asleep(name, observer) - before
        caller.kill()
        if name in MYSQL:
            assert eventually(lambda: "translates addresses" in caplog.text)
            assert asleep(name, observer) - before == {number}
            assert pool.stats().closing == 1, "its place is not lent meanwhile"
            end(name, observer, number)
        assert eventually(lambda: not asleep(name, observer) - before)
        assert eventually(lambda: pool.stats().closing == 0)
        assert ask(pool) == [(1,)]


def test_when_a_server_goes_haproxy_leads_to_the_other_one(request: pytest.FixtureRequest) -> None:
    mariadb = request.getfixturevalue("mariadb")
    request.getfixturevalue("haproxy_program")
    with MariaDB() as first, HAProxy(first, mariadb) as proxy:
        pool = ConnectionPool(
            lambda: open_connection("pymysql", proxy.url("pymysql")), max_size=SIZE
        )
        with contextlib.closing(pool):
            fill(pool)
            assert ask(pool, "select @@port") == [(first.port,)]
            first.kill()

            def ask_again() -> bool:
                try:
                    return ask(pool, "select @@port") == [(mariadb.port,)]
                except module_of("pymysql").Error:
                    return False

            assert eventually(ask_again)
            for _ in range(2 * SIZE):
                assert ask(pool, "select @@port") == [(mariadb.port,)]
