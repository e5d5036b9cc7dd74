"""Connections inside of other objects are seen through, and others' drivers can be registered."""

from __future__ import annotations

import inspect
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pymysql.connections import Connection

from geventpool import ConfigError, ConnectionPool, drivers
from geventpool.core import stacks
from geventpool.core.entry import Entry
from geventpool.drivers import Driver, State, by_class, driver_for, register
from geventpool.drivers.pymysql import PyMySQL
from geventpool.observe.holds import number_of
from geventpool.testing import FakeConnection, FakeDriver

ROOT = Path(__file__).resolve().parents[2]


class Around:
    """What stands around a connection."""

    def __init__(self, inside: Any) -> None:
        self.__wrapped__ = inside


def in_a_class_of_its_own(inside: Any) -> Any:
    """As some tracers do for each connection."""

    class OfThisConnection(Around):
        pass

    return OfThisConnection(inside)


FUNCTIONS = [
    name
    for name, function in vars(Driver).items()
    if inspect.isfunction(function) and "connection" in inspect.signature(function).parameters
]


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Driver], None]]:
    monkeypatch.setattr(drivers, "_BY_MODULE", dict(drivers._BY_MODULE))
    by_class.clear()
    yield register
    by_class.clear()


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_each_function_of_a_driver_is_handed_the_innermost_connection(
    name: str, depth: int, registered: Callable[[Driver], None]
) -> None:
    handed: list[Any] = []

    class Told(Driver):
        name = Around.__module__ + ".told"

    class Inside:
        __module__ = Told.name

    setattr(Told, name, lambda _self, *arguments: handed.append(arguments))
    registered(Told())
    inside = connection = Inside()
    for _ in range(depth):
        connection = Around(connection)
    extra = [b"E"] if name == "unsolicited" else []
    for driver in (driver_for(connection), by_class[type(connection)]):
        getattr(driver, name)(connection, *extra)
    assert handed == [(inside, *extra)] * 2
    assert driver_for(connection).name == Told.name


def test_a_class_for_each_connection_is_not_kept_for_ever() -> None:
    connection = sqlite3.connect(":memory:")
    for _ in range(2500):
        assert driver_for(in_a_class_of_its_own(connection)).name == "sqlite3"
    assert len(by_class) <= 1000
    connection.close()


def test_what_wraps_itself_or_fails_to_tell_is_unknown() -> None:
    knot = Around(None)
    knot.__wrapped__ = knot

    class Failing:
        @property
        def __wrapped__(self) -> Any:
            raise RuntimeError("not now")

    class Decorated:
        __wrapped__ = Connection  # a class, as decorators leave it

    for connection in (knot, Failing(), Decorated(), Around(None)):
        assert driver_for(connection).name == "unknown"
        assert driver_for(connection).state(connection) is State.UNKNOWN
        assert by_class[type(connection)].state(connection) is State.UNKNOWN


def test_what_is_inside_may_change() -> None:
    around = Around(None)
    assert driver_for(around).state(around) is State.UNKNOWN
    around.__wrapped__ = sqlite3.connect(":memory:")
    assert driver_for(around).state(around) is State.CLEAN
    around.__wrapped__.close()
    assert driver_for(around).state(around) is State.BROKEN


class Named(Driver):
    def __init__(self, name: Any) -> None:
        self.name = name


@pytest.mark.parametrize(
    "wrong",
    [None, Driver, Driver(), PyMySQL, Named(""), Named(None), Named("a.b c"), Named("a..b")],
    ids=repr,
)
def test_a_driver_that_cannot_be_used_is_refused(wrong: Any) -> None:
    before = dict(drivers._BY_MODULE)
    with pytest.raises(ConfigError, match="give"):
        register(wrong)
    assert before == drivers._BY_MODULE


def test_the_nearest_module_wins_and_a_registered_driver_wins_over_ours(
    registered: Callable[[Driver], None],
) -> None:
    def of(module: str) -> str:
        return type(driver_for(type("Connection", (), {"__module__": module})())).__name__

    class Near(Driver):
        name = "pymysql.near"

    class Instead(PyMySQL):
        pass

    assert of("pymysql.near.connections") == "PyMySQL"
    registered(Near())
    registered(Instead())
    assert of("pymysql.near.connections") == "Near"
    assert of("pymysql.connections") == "Instead"
    assert of("pymysqlx") == "Unknown"


def test_a_registered_driver_tells_all_that_ours_tell(
    registered: Callable[[Driver], None],
) -> None:
    class Told(Driver):
        name = __name__ + ".told"
        packages = ("its_own", "its_helper")
        database = "postgresql"
        plans = "sql"

        def server_id(self, connection: Any) -> int:
            return int(connection.number)

    class Mine(FakeConnection):
        __module__ = Told.name

    registered(Told())
    assert Told.name in drivers.with_plans()
    pool = ConnectionPool(lambda: Mine(FakeDriver(), 77))
    with pool.connection() as connection:
        assert driver_for(connection).name == Told.name
        assert {"its_own", "its_helper"} <= stacks.MACHINERY
        entry = Entry()
        for entry.resource in (connection, Around(connection)):
            assert number_of(entry) == 77
    stacks.MACHINERY.difference_update(Told.packages)
    pool.close()


def test_only_what_is_in_use_is_taken_for_machinery_in_stacks() -> None:
    program = """
        from geventpool.core import stacks
        import geventpool, sqlite3
        assert stacks.MACHINERY == {"gevent", "geventpool"}
        import geventpool.sqlalchemy
        assert stacks.MACHINERY == {"gevent", "geventpool", "sqlalchemy"}
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], cwd=ROOT, timeout=60, check=False
    )
    assert done.returncode == 0
