"""Django set up for one driver and one server, as the environment says."""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

DRIVER = os.environ["GEVENTPOOL_DJANGO_DRIVER"]
URL = urlsplit(os.environ["GEVENTPOOL_DJANGO_URL"])
IS_MYSQL = DRIVER in ("pymysql", "mysqlclient")
KIND = "mysql" if IS_MYSQL else "postgresql"
PID = "select connection_id()" if IS_MYSQL else "select pg_backend_pid()"

if DRIVER == "pymysql":
    import pymysql

    pymysql.install_as_MySQLdb()
elif DRIVER == "psycopg2":
    sys.modules["psycopg"] = None  # type: ignore[assignment]  # Django would prefer it

import django  # noqa: E402
from django.conf import settings  # noqa: E402


def database(**changes: Any) -> dict[str, Any]:
    """`DATABASES[alias]`."""
    return {
        "ENGINE": f"geventpool.django.{KIND}",
        "NAME": URL.path.strip("/"),
        "USER": URL.username,
        "PASSWORD": URL.password,
        "HOST": URL.hostname,
        "PORT": str(URL.port),
        **changes,
    }


settings.configure(
    USE_TZ=True,
    SECRET_KEY="of tests",
    INSTALLED_APPS=["geventpool.django"],
    DATABASES={
        "default": database(),
        "stock": database(ENGINE=f"django.db.backends.{KIND}"),
    },
)
django.setup()

from django.db import connection, connections, models  # noqa: E402

from geventpool.django import registry  # noqa: E402

if DRIVER == "psycopg2":
    connection.ensure_connection()
    del sys.modules["psycopg"]  # of which other code here may make use

_numbers = itertools.count(1)


class Order(models.Model):
    """A table."""

    words = models.CharField(max_length=100)

    class Meta:
        app_label = "cases"


@pytest.fixture(scope="session", autouse=True)
def _tables() -> Iterator[None]:
    with connections["stock"].schema_editor() as editor:
        editor.create_model(Order)
    yield
    with connections["stock"].schema_editor() as editor:
        editor.delete_model(Order)
    for wrapper in connections.all():
        wrapper.close()


@pytest.fixture
def alias() -> Iterator[Callable[..., str]]:
    """Makes an alias with a pool of its own."""
    made = []

    def make(**changes: Any) -> str:
        name = f"case{next(_numbers)}"
        # What Django fills in is taken from an alias that has it.
        connections.settings[name] = {**connections.settings["default"], **database(**changes)}
        made.append(name)
        return name

    yield make
    for name in made:
        connections[name].close()
        del connections[name]
        del connections.settings[name]
        for key, pool in list(registry._pools.items()):
            if pool.alias == name:
                del registry._pools[key]
                pool.close()


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    Order.objects.all().delete()
    connection.close()
    yield
    connection.close()
    connections["stock"].close()
    for pool in registry.pools():
        stats = pool.stats()
        assert (stats.in_use, stats.waiting) == (0, 0), pool


def ask(alias: str = "default", sql: str = PID, *parameters: Any) -> Any:
    """One value."""
    with connections[alias].cursor() as cursor:
        cursor.execute(sql, parameters or None)
        return cursor.fetchone()[0]


def request(alias: str = "default", sql: str = PID) -> Any:
    """What a request does: a query, and `request_finished`."""
    try:
        return ask(alias, sql)
    finally:
        connections[alias].close_if_unusable_or_obsolete()


def kill(*pids: int) -> None:
    """The server ends these connections."""
    sql = "kill {}" if IS_MYSQL else "select pg_terminate_backend({})"
    with connections["stock"].cursor() as cursor:
        for pid in pids:
            cursor.execute(sql.format(pid))
