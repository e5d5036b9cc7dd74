"""A connection inside another object is treated as what it is, with the tools that people really use."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import wrapt
from sqlalchemy.engine import make_url

from geventpool import ConnectionPool
from geventpool.drivers import State, driver_for
from geventpool.observe import attach

from .dbapi import (
    MYSQL,
    eventually,
    module_of,
    open_connection,
    run,
    server_of,
    set_autocommit,
)

ROOT = Path(__file__).parents[2]
# No agent is there to be told of anything, and none is to be looked for.
QUIET = {
    "DD_TRACE_ENABLED": "false",
    "DD_INSTRUMENTATION_TELEMETRY_ENABLED": "false",
    "DD_REMOTE_CONFIGURATION_ENABLED": "false",
}
SQLALCHEMY = ["GeventPool", "wrap", "QueuePool"]
DOORS = {
    "pymysql": ["raw", *SQLALCHEMY, "django"],
    "MySQLdb": ["raw", *SQLALCHEMY],
    "psycopg": ["raw", *SQLALCHEMY, "django"],
    "psycopg2": ["raw", *SQLALCHEMY, "django"],
    "pg8000": ["raw", *SQLALCHEMY],
}
CASES = [
    *(("pymysql", tool) for tool in ("wrapt", "opentelemetry", "ddtrace", "all three")),
    *(("psycopg", tool) for tool in ("wrapt", "opentelemetry", "ddtrace")),
    # psycopg2's own functions refuse a bare `wrapt.ObjectProxy`; the tracers replace them.
    *(("psycopg2", tool) for tool in ("opentelemetry", "ddtrace")),
    ("pg8000", "wrapt"),
    ("MySQLdb", "opentelemetry"),
    ("MySQLdb", "ddtrace"),
]
# These give a cursor class of their own to the driver's connection.
NOT_AROUND = [("psycopg", "opentelemetry"), ("psycopg2", "opentelemetry")]

Look = Callable[[str, str], dict[str, dict[str, Any]]]
_seen: dict[tuple[str, str], dict[str, dict[str, Any]]] = {}


@pytest.fixture
def look(request: pytest.FixtureRequest) -> Look:
    """What a program with this driver and this tool has seen at each door."""

    def look(driver: str, tool: str) -> dict[str, dict[str, Any]]:
        if (driver, tool) not in _seen:
            url = server_of(request, driver).url(driver)
            command = [sys.executable, "-m", "tests.integration.wrapped_program"]
            done = subprocess.run(
                [*command, tool, driver, url, *DOORS[driver]],
                cwd=ROOT,
                env={**os.environ, **QUIET},
                capture_output=True,
                text=True,
                timeout=300,
                check=False,
            )
            assert done.returncode == 0, done.stderr[-3000:]
            _seen[driver, tool] = json.loads(done.stdout.splitlines()[-1])
        return _seen[driver, tool]

    return look


@pytest.mark.parametrize(("driver", "tool"), CASES)
def test_a_wrapped_connection_gets_all_that_the_drivers_own_gets(
    driver: str, tool: str, look: Look
) -> None:
    module_of(driver)
    wrapped, bare = look(driver, tool), look(driver, "nothing")
    for door in DOORS[driver]:
        seen = wrapped[door]
        assert seen.pop("is_wrapped") is ((driver, tool) not in NOT_AROUND), door
        if door == "QueuePool":
            assert seen["failed"] > 0  # which is what the others are better than
        else:
            assert seen == {name: bare[door][name] for name in seen}, door
            assert seen["failed"] == 0, door
            if driver != "MySQLdb":
                assert seen["cancelled"] == 1, door
                assert seen["is_left_at_work"] is False, door
        if driver != "MySQLdb":
            assert seen["answers"] == [101, 102, 103], door
            if driver in MYSQL and door != "django":
                assert seen["round_trips"] == (3 if door == "QueuePool" else 2)


# Classes of a user's own.


def with_slots(name: str) -> type:
    base = {
        "pymysql": lambda: module_of(name).connections.Connection,
        "psycopg": lambda: module_of(name).Connection,
        "psycopg2": lambda: module_of(name).extensions.connection,
        "pg8000": lambda: module_of(name).Connection,
    }[name]()
    return type("Mine", (base,), {"__slots__": ("mine",), "__module__": __name__})


def not_to_be_subclassed(name: str) -> type:
    """One of whose instances the class cannot be changed, as adopting PyMySQL's wants it."""

    def refuse(cls: type, **_: object) -> None:
        raise TypeError("this class is final")

    kind = with_slots(name)
    kind.__init_subclass__ = classmethod(refuse)  # type: ignore[assignment]
    return kind


def connect_as(kind: type, name: str, url: str) -> Any:
    """A connection of this class."""
    where = make_url(url)
    named = {"host": where.host, "port": where.port, "password": where.password}
    if name == "psycopg2":
        extra = {"user": where.username, "dbname": where.database, "connection_factory": kind}
        return module_of(name).connect(**named, **extra)
    if name == "psycopg":
        connect: Any = kind
        return connect.connect(**named, user=where.username, dbname=where.database)
    return kind(**named, user=where.username, database=where.database)


def number_in(pool: ConnectionPool, name: str) -> int:
    ask = "select connection_id()" if name in MYSQL else "select pg_backend_pid()"
    with pool.connection() as connection:
        ((number,),) = run(connection, ask)
        connection.commit()
    return int(number)


def end(pool: ConnectionPool, name: str, url: str, number: int) -> None:
    """Has the server end the idle connection, and waits until the pool has seen that."""
    observer = open_connection(name, url)
    set_autocommit(name, observer, True)
    kill = "kill {}" if name in MYSQL else "select pg_terminate_backend({})"
    run(observer, kill.format(number))
    assert eventually(lambda: not pool.stats().idle)
    observer.close()


@pytest.mark.parametrize("name", ["pymysql", "psycopg", "psycopg2", "pg8000"])
def test_a_subclass_with_slots_is_known_watched_and_reset_without_a_round_trip(
    name: str, request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture
) -> None:
    url = server_of(request, name).url(name)
    kind = with_slots(name)
    pool = ConnectionPool(lambda: connect_as(kind, name, url), max_size=1)
    try:
        number = number_in(pool, name)
        with pool.connection() as connection:
            assert isinstance(connection, kind)
            run(connection, "select 1")
            connection.commit()
            assert driver_for(connection).state(connection) is State.CLEAN
        end(pool, name, url, number)
        assert number_in(pool, name) != number
        assert caplog.messages == []
    finally:
        pool.close()


def test_a_class_that_cannot_be_prepared_is_pooled_without_trust_and_that_is_said_once(
    mariadb: Any, caplog: pytest.LogCaptureFixture
) -> None:
    url = mariadb.url("pymysql")
    kind = not_to_be_subclassed("pymysql")
    pool = ConnectionPool(lambda: connect_as(kind, "pymysql", url), max_size=2)
    try:
        with pool.connection() as one, pool.connection() as other:
            run(one, "select 1")
            assert driver_for(other).state(other) is State.UNKNOWN
            assert type(one) is type(other) is kind
        assert pool.stats().resets == 2
        (message,) = caplog.messages
        assert "Mine" in message
        assert "TypeError: this class is final" in message
        assert "geventpool.drivers.register" in message
    finally:
        pool.close()


class Opaque:
    """What nobody can look through."""

    def __init__(self, inside: Any) -> None:
        self._inside = inside

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self._inside, name)


class Said(Opaque):
    """The cure that the log tells."""

    @property
    def __wrapped__(self) -> Any:
        return self._inside


def test_what_cannot_be_seen_through_is_said_once_and_works(
    mariadb: Any, caplog: pytest.LogCaptureFixture
) -> None:
    url = mariadb.url("pymysql")
    pool = ConnectionPool(lambda: Opaque(open_connection("pymysql", url)), max_size=2)
    try:
        with pool.connection() as one, pool.connection() as other:
            assert run(one, "select 1") == run(other, "select 1") == [(1,)]
        assert pool.stats().resets == 2
        (message,) = caplog.messages
        assert "Opaque" in message
        assert "__wrapped__" in message
    finally:
        pool.close()


def test_an_attribute_is_all_that_it_takes_to_be_seen_through(
    mariadb: Any, caplog: pytest.LogCaptureFixture
) -> None:
    url = mariadb.url("pymysql")
    pool = ConnectionPool(lambda: Said(open_connection("pymysql", url)), max_size=1)
    try:
        number = number_in(pool, "pymysql")
        assert pool.stats().resets == 0
        end(pool, "pymysql", url, number)
        assert number_in(pool, "pymysql") != number
        with pool.connection() as connection:
            assert type(connection) is Said
        assert caplog.messages == []
    finally:
        pool.close()


def test_an_observer_knows_a_wrapped_connection_and_the_server_s_number_of_it(mariadb: Any) -> None:
    url = mariadb.url("pymysql")
    pool = ConnectionPool(lambda: wrapt.ObjectProxy(open_connection("pymysql", url)), max_size=1)
    observer = attach(pool)
    try:
        number = number_in(pool, "pymysql")
        with pool.connection() as connection:
            run(connection, "begin")
            (holder,) = observer.holders()
            assert holder.connection == number
            assert holder.state == "idle in transaction"
            connection.rollback()
            (holder,) = observer.holders()
            assert holder.state == "idle"
    finally:
        observer.detach()
        pool.close()
