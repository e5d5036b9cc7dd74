"""What the servers themselves say of a test's connections, and a database for each file of tests.

A database of its own, because the figures are then this file's alone, whatever other tests have left.
"""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.engine import Engine
from sqlalchemy.pool import NullPool

IS_WHOLE = bool(os.environ.get("GEVENTPOOL_STRESS"))
"""Run everything at length; otherwise a short form."""


def new_random() -> random.Random:
    """Random numbers whose seed is shown if the test fails; GEVENTPOOL_SEED repeats them."""
    seed = int(os.environ.get("GEVENTPOOL_SEED") or random.randrange(2**32))
    print(f"GEVENTPOOL_SEED={seed}")
    return random.Random(seed)


def make_databases(
    request: pytest.FixtureRequest, name: str, prepare: Callable[[Engine], object]
) -> Iterator[Callable[[str], str]]:
    """The body of a fixture: gives the URL of a new database by the driver's name.

    Args:
        request: the fixture's.
        name: the database's.
        prepare: makes the tables.
    """
    made: dict[str, Any] = {}

    def url_of(driver: str) -> str:
        kind = "mariadb" if driver in ("pymysql", "mysqldb") else "postgresql"
        server = request.getfixturevalue(kind)
        if kind not in made:
            with _administer(server, kind) as administrator:
                administrator.execute(text(f"drop database if exists {name}"))
                administrator.execute(text(f"create database {name}"))
            made[kind] = server
            engine = create_engine(server.url(_usual(kind), name), poolclass=NullPool)
            prepare(engine)
        return str(server.url(driver, name))

    yield url_of
    for kind, server in made.items():
        with _administer(server, kind) as administrator:
            force = " with (force)" if kind == "postgresql" else ""
            administrator.execute(text(f"drop database {name}{force}"))


@contextlib.contextmanager
def _administer(server: Any, kind: str) -> Iterator[Any]:
    engine = create_engine(
        server.url(_usual(kind)), poolclass=NullPool, isolation_level="AUTOCOMMIT"
    )
    with engine.connect() as connection:
        yield connection


def _usual(kind: str) -> str:
    return "pymysql" if kind == "mariadb" else "psycopg"


class Observer:
    """A connection beside the pool that asks the server about all others to the same database."""

    def __init__(self, url: str) -> None:
        engine = create_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
        self.is_mysql = engine.dialect.name == "mysql"
        self.connection = engine.connect()

    def close(self) -> None:
        """Ends it."""
        self.connection.close()

    def ids(self) -> set[int]:
        """The server's numbers of the connections."""
        query = (
            "select id from information_schema.processlist"
            " where db = database() and id <> connection_id()"
            if self.is_mysql
            else "select pid from pg_stat_activity where backend_type = 'client backend'"
            " and datname = current_database() and pid <> pg_backend_pid()"
        )
        return set(self.connection.execute(text(query)).scalars())

    def at_work(self) -> int:
        """How many of them have a query running."""
        query = (
            "select count(*) from information_schema.processlist where command = 'Query'"
            " and db = database() and id <> connection_id()"
            if self.is_mysql
            else "select count(*) from pg_stat_activity where state = 'active'"
            " and datname = current_database() and pid <> pg_backend_pid()"
        )
        return int(self.connection.execute(text(query)).scalar_one())

    def in_transaction(self) -> int:
        """How many of them have a transaction open, or a query running."""
        if not self.is_mysql:
            query = (
                "select count(*) from pg_stat_activity where backend_type = 'client backend'"
                " and datname = current_database() and pid <> pg_backend_pid() and state <> 'idle'"
            )
            return int(self.connection.execute(text(query)).scalar_one())
        # information_schema.innodb_trx is a copy that may be 0.1 s old; this is the list itself.
        (_, _, report) = self.connection.exec_driver_sql("show engine innodb status").one()
        ids = self.ids()
        return sum(
            "ACTIVE" in one.partition("\n")[0]
            and any(f"thread id {number}," in one for number in ids)
            for one in report.partition("LIST OF TRANSACTIONS")[2].split("---TRANSACTION ")
        )

    def assert_settles(self, size: Callable[[], int], seconds: float = 30.0) -> None:
        """Asserts that soon no transaction is open, and that there are as many connections as said.

        The server needs a moment to notice that a socket is gone.
        """
        deadline = gevent.get_hub().loop.now() + seconds
        while True:
            found = self.in_transaction(), len(self.ids())
            if found == (0, size()):
                return
            if gevent.get_hub().loop.now() > deadline:
                assert found == (0, size()), "(in a transaction, connections) on the server"
            gevent.sleep(0.01)
