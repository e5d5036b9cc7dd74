"""The DBAPIs as a user has them, and what their servers themselves say of a connection."""

from __future__ import annotations

import contextlib
import importlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from sqlalchemy.engine import URL, make_url

from geventpool import ConnectionPool
from geventpool.drivers import Driver, State, driver_for

MYSQL = ["pymysql", "mysql.connector", "MySQLdb", "mariadb"]
POSTGRESQL = ["psycopg2", "psycopg", "pg8000"]
ALL = ["pymysql", "MySQLdb", *POSTGRESQL]  # the usual ones
EVERY = MYSQL + POSTGRESQL
# The others are C libraries that block, and do not tell the transaction state.
SURE = ["pymysql", "mysql.connector", *POSTGRESQL]
COOPERATIVE = SURE

_COMPILED = {"MySQLdb": "mysqlclient", "mariadb": "MariaDB Connector/Python"}
_MODULES = {"pg8000": "pg8000.dbapi"}


def server_of(request: pytest.FixtureRequest, name: str) -> Any:
    """The server that a DBAPI speaks to."""
    return request.getfixturevalue("mariadb" if name in MYSQL else "postgresql")


def module_of(name: str) -> Any:
    """A DBAPI module; skips loudly where only one that wants a compiler is missing."""
    if name in _COMPILED:
        return pytest.importorskip(name, reason=f"NOT RUN: {_COMPILED[name]} is not installed")
    return importlib.import_module(_MODULES.get(name, name))


def open_connection(name: str, url: str, **arguments: Any) -> Any:
    """Connects with the DBAPI itself, without anything of a pool."""
    where: URL = make_url(url)
    named = {"psycopg": "dbname", "psycopg2": "dbname"}
    if name == "mysql.connector":
        arguments = {"use_pure": True, **arguments}
    return module_of(name).connect(
        host=where.host,
        port=where.port,
        user=where.username,
        password=where.password,
        **{named.get(name, "database"): where.database},
        **arguments,
    )


def run(connection: Any, sql: str) -> list[Any]:
    """Runs a statement and fetches what there is."""
    cursor = connection.cursor()
    try:
        cursor.execute(sql)
        return [tuple(row) for row in cursor.fetchall()] if cursor.description else []
    finally:
        cursor.close()


def ask(pool: ConnectionPool, sql: str = "select 1") -> list[Any]:
    """Borrows a connection for one statement and its commit."""
    with pool.connection() as connection:
        rows = run(connection, sql)
        connection.commit()
    return rows


def set_autocommit(name: str, connection: Any, is_on: bool) -> None:
    """In the way that each DBAPI has for it."""
    if name in ("pymysql", "MySQLdb"):
        connection.autocommit(is_on)
    else:
        connection.autocommit = is_on


def eventually(is_so: Callable[[], Any], seconds: float = 30.0) -> bool:
    """Waits until it is so, or for so long that it never will be."""
    import gevent

    deadline = time.monotonic() + seconds
    while not is_so():
        if time.monotonic() > deadline:
            return False
        gevent.sleep(0.01)
    return True


def innodb_transactions_of(number: int, observer: Any) -> list[str]:
    """What InnoDB's own list says of a connection that is in a transaction; empty: it is in none.

    `information_schema.innodb_trx` is a copy, which grows as old as it is asked often.
    """
    ((_, _, report),) = run(observer, "show engine innodb status")
    transactions = report.partition("LIST OF TRANSACTIONS")[2].split("---TRANSACTION ")
    return [
        one
        for one in transactions
        if f"thread id {number}," in one and "ACTIVE" in one.partition("\n")[0]
    ]


@dataclass
class Subject:
    """A connection under test, adopted as the pool does it, and somebody who watches the server.

    Attributes:
        name: the DBAPI module's.
        connection: the connection.
        observer: another connection to the same server, in autocommit mode.
        number: the server's number of the connection.
        cursors: such as are to be closed only at the end.
    """

    name: str
    connection: Any
    observer: Any
    number: int
    cursors: list[Any] = field(default_factory=list)

    @property
    def driver(self) -> Driver:
        """What the pool knows of the DBAPI."""
        return driver_for(self.connection)

    @property
    def state(self) -> State:
        """What the driver's file says."""
        return self.driver.state(self.connection)

    def is_in_transaction(self) -> bool:
        """What the server says: InnoDB's own list, or `pg_stat_activity`."""
        if self.name in MYSQL:
            return bool(innodb_transactions_of(self.number, self.observer))
        rows = run(self.observer, f"select state from pg_stat_activity where pid = {self.number}")
        return bool(rows) and rows[0][0] != "idle"

    def assert_law(self, after: object) -> None:
        """CLEAN implies that the server has no transaction open."""
        if self.state is not State.CLEAN:
            return
        assert not self.is_in_transaction(), f"CLEAN, but in a transaction after {after!r}"
        if self.name == "pymysql":
            # The server's flag, too: a transaction that has not touched a row is in no list.
            assert run(self.connection, "select @@in_transaction") == [(0,)], after

    def kill(self) -> None:
        """Has the server end the connection."""
        if self.name in MYSQL:
            run(self.observer, f"kill {self.number}")
        else:
            run(self.observer, f"select pg_terminate_backend({self.number})")

    def close(self) -> None:
        """Closes both."""
        for one in (*self.cursors, self.connection, self.observer):
            with contextlib.suppress(Exception):  # some refuse to close what is closed
                one.close()


def make_subject(name: str, url: str, **arguments: Any) -> Subject:
    """Opens a connection as a pool does, and one to watch it."""
    connection = open_connection(name, url, **arguments)
    driver = driver_for(connection)
    assert driver.name == name
    driver.adopt(connection)
    observer = open_connection(name, url)
    set_autocommit(name, observer, True)
    # No test is to wait for ever for what another has left.
    run(observer, "set lock_wait_timeout = 5" if name in MYSQL else "set lock_timeout = '5s'")
    ask = "select connection_id()" if name in MYSQL else "select pg_backend_pid()"
    ((number,),) = run(connection, ask)
    connection.rollback()
    return Subject(name, connection, observer, number)
