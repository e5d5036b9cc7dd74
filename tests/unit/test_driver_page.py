"""docs/write_a_driver.md: its example, as it stands there, for a DBAPI that geventpool does not know."""

from __future__ import annotations

import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import gevent
import pytest

from geventpool import ConnectionPool, drivers
from geventpool.drivers import Idle, State

PAGE = Path(__file__).parents[2] / "docs" / "write_a_driver.md"

WAREHOUSE = """
import gevent, itertools
from gevent import socket

numbers, at_work, sessions, is_full = itertools.count(1), {}, {}, False


class Error(Exception):
    pass


class Connection:
    closed = awaits_answer = in_transaction = False

    def __init__(self):
        if is_full:
            raise Error("no room for one more")
        self.number, self.log = next(numbers), []
        self._sock, sessions[self.number] = socket.socketpair()

    def fileno(self):
        return self._sock.fileno()

    def cancel(self, number):
        sessions.pop(number).close()

    def ping(self):
        self.log.append("ping")

    def rollback(self):
        self.log.append("rollback")
        self.in_transaction = False

    commit = rollback

    def close(self):
        self.closed = True
        self._sock.close()

    def cursor(self):
        return Cursor(self)


class Cursor:
    def __init__(self, connection):
        self._connection = connection

    def execute(self, sql):
        self._connection.in_transaction = self._connection.awaits_answer = True
        if sql == "wait":
            self._connection._sock.recv(1)
        self._connection.awaits_answer = False


connect = Connection
"""


@pytest.fixture
def warehouse(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    module: Any = ModuleType("warehouse")
    exec(WAREHOUSE, module.__dict__)
    monkeypatch.setitem(sys.modules, "warehouse", module)
    monkeypatch.setattr(drivers, "_BY_MODULE", dict(drivers._BY_MODULE))
    (example,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    exec(compile(textwrap.dedent(example), str(PAGE), "exec"), {"__name__": "somebodys_program"})
    yield module
    drivers.by_class.clear()
    for session in module.sessions.values():
        session.close()


@pytest.fixture
def pool(warehouse: Any) -> Iterator[ConnectionPool]:
    pool = ConnectionPool(lambda: warehouse.connect(), max_size=1)
    yield pool
    pool.close()


def test_a_rollback_is_sent_only_where_a_transaction_is_open(pool: ConnectionPool) -> None:
    with pool.connection() as connection:
        pass
    assert connection.log == []
    with pool.connection() as connection:
        connection.cursor().execute("buy")
    assert connection.log == ["rollback"]


def test_what_hangs_up_while_it_is_idle_is_gone(pool: ConnectionPool, warehouse: Any) -> None:
    with pool.connection() as connection:
        pass
    warehouse.sessions.pop(connection.number).close()
    with pool.connection() as another:
        assert another is not connection


def test_a_notice_is_no_farewell(pool: ConnectionPool, warehouse: Any) -> None:
    with pool.connection() as connection:
        driver = drivers.driver_for(connection)
        assert driver.unsolicited(connection, b"notice") is Idle.SUSPECT
        assert driver.unsolicited(connection, b"bye") is Idle.DEAD
        assert driver.ping(connection)
        assert driver.server_id(connection) == connection.number


def test_a_query_that_is_left_is_cancelled_on_the_server(
    pool: ConnectionPool, warehouse: Any
) -> None:
    with pytest.raises(gevent.Timeout), pool.connection() as connection, gevent.Timeout(0.01):
        connection.cursor().execute("wait")
    assert drivers.driver_for(connection).state(connection) is State.BROKEN
    with pool.connection() as another:
        assert another is not connection
    assert connection.number not in warehouse.sessions
    assert pool.stats().cancelled == 1


def test_who_finds_the_server_full_waits_for_a_return(pool: ConnectionPool, warehouse: Any) -> None:
    pool.resize(2)
    with pool.connection() as connection:
        warehouse.is_full = True
        waiting = gevent.spawn(pool.connection)
        gevent.idle()
    assert waiting.get(timeout=10).connection is connection
    waiting.get().close()
