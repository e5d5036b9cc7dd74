"""A program whose connections are wrapped by a tool, and what it has seen at each door, as JSON.

    python -m tests.integration.wrapped_program TOOL DRIVER URL DOOR...

Tools patch the whole process, therefore each has one of its own.
"""

from __future__ import annotations

from gevent import monkey

monkey.patch_all()

import contextlib  # noqa: E402
import importlib  # noqa: E402
import json  # noqa: E402
import random  # noqa: E402
import sys  # noqa: E402
import warnings  # noqa: E402
from collections.abc import Callable  # noqa: E402
from functools import partial  # noqa: E402
from types import SimpleNamespace  # noqa: E402
from typing import Any  # noqa: E402

import gevent  # noqa: E402
from psycogreen.gevent import patch_psycopg  # noqa: E402
from sqlalchemy.engine import make_url  # noqa: E402
from sqlalchemy.pool import QueuePool  # noqa: E402

import geventpool.sqlalchemy  # noqa: E402
from geventpool import ConnectionPool  # noqa: E402
from geventpool.errors import BlockingDriverWarning  # noqa: E402

from .dbapi import MYSQL, eventually, open_connection, run, set_autocommit  # noqa: E402
from .wire import Wire  # noqa: E402

TOOL, DRIVER, URL, *WANTED = sys.argv[1:]
IS_MYSQL = DRIVER in MYSQL
NUMBER = "select connection_id()" if IS_MYSQL else "select pg_backend_pid()"
SLEEP = "select sleep({})" if IS_MYSQL else "select 1 from pg_sleep({})"
KILLS = 3


# The tools.


def wrap_all() -> None:
    import wrapt

    for name in ("pg8000", "pg8000.dbapi") if DRIVER == "pg8000" else (DRIVER,):
        module = importlib.import_module(name)
        module.connect = partial(_connect_and_wrap, wrapt.ObjectProxy, module.connect)


def _connect_and_wrap(proxy: Any, connect: Any, *given: Any, **named: Any) -> Any:
    return proxy(connect(*given, **named))


def instrument() -> None:
    name, kind = {
        "pymysql": ("pymysql", "PyMySQLInstrumentor"),
        "MySQLdb": ("mysqlclient", "MySQLClientInstrumentor"),
        "psycopg": ("psycopg", "PsycopgInstrumentor"),
        "psycopg2": ("psycopg2", "Psycopg2Instrumentor"),
    }[DRIVER]
    module = importlib.import_module(f"opentelemetry.instrumentation.{name}")
    getattr(module, kind)().instrument(enable_commenter=True)
    from opentelemetry.instrumentation.sqlalchemy import SQLAlchemyInstrumentor

    SQLAlchemyInstrumentor().instrument(skip_dep_check=True)  # it knows no SQLAlchemy 2.1 yet


def patch() -> None:
    import ddtrace

    name = {"psycopg2": "psycopg", "MySQLdb": "mysqldb"}.get(DRIVER, DRIVER)
    ddtrace.patch(raise_errors=True, **{name: True})


def patch_instrument_and_wrap() -> None:
    instrument()
    patch()
    wrap_all()


TOOLS: dict[str, Callable[[], None]] = {
    "nothing": lambda: None,
    "wrapt": wrap_all,
    "opentelemetry": instrument,
    "ddtrace": patch,
    "all three": patch_instrument_and_wrap,
}


# The doors. Each runs a statement as a user does: borrow, begin, ask, commit, give back.


class Raw:
    def __init__(self, url: str) -> None:
        self.pool = ConnectionPool(lambda: open_connection(DRIVER, url), max_size=4)

    def reopen(self, url: str) -> Raw:
        self.pool.close()
        return Raw(url)

    def ask(self, sql: str) -> Any:
        with self.pool.connection() as connection:
            self.seen = connection
            ((value,),) = run(connection, sql)
            connection.commit()
        return value

    def stats(self) -> Any:
        return self.pool.stats()


class Engine:
    poolclass: Any = geventpool.sqlalchemy.GeventPool

    def __init__(self, url: str) -> None:
        import sqlalchemy  # whose function a tool may have replaced

        url = url.replace("+MySQLdb", "+mysqldb")
        self.engine = sqlalchemy.create_engine(url, poolclass=self.poolclass)

    def reopen(self, url: str) -> Engine:
        self.engine.dispose()
        return type(self)(url)

    def ask(self, sql: str) -> Any:
        with self.engine.begin() as connection:
            self.seen = connection.connection.dbapi_connection
            return connection.exec_driver_sql(sql).scalar()

    def stats(self) -> Any:
        pool: Any = self.engine.pool
        return pool.stats()


class Queue(Engine):
    poolclass = QueuePool

    def stats(self) -> Any:
        return SimpleNamespace(idle=0, cancelled=0)


class WrappedEngine(Queue):
    stats = Engine.stats

    def __init__(self, url: str) -> None:
        super().__init__(url)
        geventpool.sqlalchemy.wrap(self.engine)


class Django:
    def __init__(self, url: str) -> None:
        if DRIVER == "pymysql":
            importlib.import_module(DRIVER).install_as_MySQLdb()
        elif DRIVER == "psycopg2":
            sys.modules["psycopg"] = None  # type: ignore[assignment]  # Django would prefer it
        import django
        from django.conf import settings

        where = make_url(url)
        database = {
            "ENGINE": f"geventpool.django.{'mysql' if IS_MYSQL else 'postgresql'}",
            "NAME": where.database,
            "USER": where.username,
            "PASSWORD": where.password,
            "HOST": where.host,
            "PORT": str(where.port),
        }
        settings.configure(SECRET_KEY="-", USE_TZ=True, DATABASES={"default": database})
        django.setup()

    def reopen(self, url: str) -> Django:
        from django.db import connections

        where = make_url(url)
        connections["default"].close_pool()
        connections.settings["default"].update(HOST=where.host, PORT=str(where.port))
        del connections["default"]
        return self

    def ask(self, sql: str) -> Any:
        from django.db import connection, transaction

        try:
            with transaction.atomic(), connection.cursor() as cursor:
                self.seen = connection.connection
                cursor.execute(sql)
                return cursor.fetchone()[0]
        finally:
            connection.close()  # as `request_finished` does

    def stats(self) -> Any:
        import geventpool.django

        return geventpool.django.pool().stats()


DOORS: dict[str, Any] = {
    "raw": Raw,
    "GeventPool": Engine,
    "wrap": WrappedEngine,
    "QueuePool": Queue,
    "django": Django,
}


# What happens.


def number_of_round_trips(door: Any, wire: Wire) -> float:
    wire.reset()
    for _ in range(10):
        door.ask("select 1")
    return wire.round_trips / 10


def failures_after_kills(door: Any, observer: Any) -> int:
    """How many requests fail, if the server ends the idle connection before each of them."""
    failed = 0
    for _ in range(KILLS):
        try:
            number = door.ask(NUMBER)
        except Exception:
            failed += 1  # QueuePool keeps the one before, after some of pg8000's errors
            continue
        kill = f"kill {number}" if IS_MYSQL else f"select pg_terminate_backend({number})"
        run(observer, kill)
        assert eventually(lambda number=number: number not in numbers(observer))
        eventually(lambda: not door.stats().idle, 2)  # a bounded wait, for what is not watched
        try:
            door.ask("select 1")
        except Exception:
            failed += 1
    if failed:  # QueuePool may have kept a dead one
        with contextlib.suppress(Exception):
            door.ask("select 1")
    return failed


def numbers(observer: Any) -> list[int]:
    return [number for number, _ in sessions(observer)]


def sessions(observer: Any) -> list[tuple[int, str]]:
    """The server's own list: number and query."""
    if IS_MYSQL:
        ask = "select id, coalesce(info, '') from information_schema.processlist"
    else:
        ask = "select pid, case state when 'active' then query else '' end from pg_stat_activity"
    return [(number, query or "") for number, query in run(observer, ask)]


def is_at_work(query: str, observer: Any) -> bool:
    return any(found.startswith(query) for _, found in sessions(observer))


def abandon(door: Any, observer: Any) -> str:
    """A query is at work when its greenlet is stopped. Returns the query."""
    query = SLEEP.format(30 + random.random())  # so that it is told from everybody else's
    asking = gevent.spawn(door.ask, query)
    assert eventually(lambda: is_at_work(query, observer))
    asking.kill()
    return query


def look_at(kind: Any, observer: Any) -> dict[str, Any]:
    """What becomes of a pool behind one of the doors."""
    seen: dict[str, Any] = {}
    if DRIVER == "MySQLdb":  # it blocks the wire, too
        door = kind(URL)
    else:
        where = make_url(URL)
        with Wire(where.host or "", where.port or 0) as wire:
            url = where.set(host="127.0.0.1", port=wire.port)
            door = kind(url.render_as_string(hide_password=False))
            door.ask("select 1")
            seen["round_trips"] = number_of_round_trips(door, wire)
            door = door.reopen(URL)
    door.ask("select 1")
    seen["is_wrapped"] = hasattr(door.seen, "__wrapped__")
    seen["failed"] = failures_after_kills(door, observer)
    if DRIVER != "MySQLdb":
        before = door.stats().cancelled
        query = abandon(door, observer)
        if kind is not Queue:
            eventually(lambda: door.stats().cancelled > before)
            seen["cancelled"] = door.stats().cancelled - before
            seen["is_left_at_work"] = is_at_work(query, observer)
        seen["answers"] = [door.ask(f"select {number}") for number in (101, 102, 103)]
    return seen


def main() -> None:
    patch_psycopg()
    warnings.simplefilter("ignore", BlockingDriverWarning)
    observer = open_connection(DRIVER, URL)
    set_autocommit(DRIVER, observer, True)
    TOOLS[TOOL]()
    print(json.dumps({name: look_at(DOORS[name], observer) for name in WANTED}))


if __name__ == "__main__":
    main()
