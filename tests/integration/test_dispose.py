"""Engines that are disposed of all the time, as code that fears stale connections does: who stays?"""

from __future__ import annotations

import gc
import warnings
from collections.abc import Iterator
from typing import Any

import gevent
import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.engine import Engine
from sqlalchemy.pool import NullPool, Pool, QueuePool

from geventpool.sqlalchemy import GeventPool

CAP = 4
GREENLETS = 20
REQUESTS = 200
NAME = "disposed"
COUNT = {
    "mysql": f"select count(*) from information_schema.processlist where db = '{NAME}'",
    "postgresql": f"select count(*) from pg_stat_activity where datname = '{NAME}'",
}
NAP = {"mysql": "select sleep(0.002)", "postgresql": "select pg_sleep(0.002)"}


@pytest.fixture(params=["pymysql", "psycopg", "psycopg2", "pg8000"])
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    """Of a database of its own, so that the server's count is of this test's connections."""
    driver = request.param
    server = request.getfixturevalue("mariadb" if driver == "pymysql" else "postgresql")
    administrator = create_engine(
        server.url(driver), poolclass=NullPool, isolation_level="AUTOCOMMIT"
    )
    with administrator.connect() as connection:
        connection.execute(text(f"drop database if exists {NAME}"))
        connection.execute(text(f"create database {NAME}"))
    yield server.url(driver, NAME)
    force = "" if driver == "pymysql" else " with (force)"
    with administrator.connect() as connection:
        connection.execute(text(f"drop database {NAME}{force}"))


def on_server(url: str) -> int:
    """Connections to the database beside the one that asks."""
    observer = create_engine(url, poolclass=NullPool)
    with observer.connect() as connection:
        return connection.execute(text(COUNT[observer.dialect.name])).scalar_one() - 1


def come_to(url: str, number: int) -> None:
    """A server takes a moment to see that a client has hung up."""
    with gevent.Timeout(60):
        while on_server(url) > number:
            gevent.sleep(0.005)


class Work:
    """Requests by many greenlets, each of which disposes of the engine.

    Attributes:
        most: connections that the server has seen at once.
    """

    def __init__(self, url: str, poolclass: type[Pool], **settings: Any) -> None:
        self.engine: Engine = create_engine(
            url, poolclass=poolclass, pool_size=CAP, max_overflow=0, **settings
        )
        self.most = 0
        self.left = REQUESTS

    def run(self) -> None:
        clients = [gevent.spawn(self._client) for _ in range(GREENLETS)]
        gevent.joinall(clients, timeout=120, raise_error=True)
        assert all(client.successful() for client in clients)

    def _client(self) -> None:
        dialect = self.engine.dialect.name
        while self.left > 0:
            self.left -= 1
            if self.left % 30 == 0 and self.engine.pool.__class__ is QueuePool:
                gc.collect()  # its old pools are garbage in cycles, with their connections
            with self.engine.connect() as connection:
                connection.execute(text(NAP[dialect]))
                self.most = max(self.most, connection.execute(text(COUNT[dialect])).scalar_one())
            self.engine.dispose()


def test_an_engine_disposed_of_at_each_request_keeps_nothing(url: str) -> None:
    ours = Work(url, GeventPool)
    gc.disable()  # of which ours has no need
    try:
        ours.run()
        ours.engine.dispose()
        come_to(url, 0)
    finally:
        gc.enable()
    theirs = Work(url, QueuePool)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # it leaves connections to the collector
        theirs.run()
        theirs.engine.dispose()
        gc.collect()
    # Those that the greenlets have, and what is being closed.
    assert ours.most <= max(theirs.most, GREENLETS + CAP)
