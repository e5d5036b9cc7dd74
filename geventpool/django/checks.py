"""System checks: what would make the pools useless, and the cure."""

from __future__ import annotations

import math
import os
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

from django.core.checks import CheckMessage, Error, Warning
from django.core.exceptions import ImproperlyConfigured
from django.db import DatabaseError, connections
from gevent.local import local
from gevent.monkey import is_module_patched

from geventpool.config import make_config
from geventpool.errors import PoolTimeout

from . import registry
from .server import look
from .settings import read

WORKERS = "WEB_CONCURRENCY"
"""The variable from which gunicorn, too, takes its number of workers."""


def check_settings(app_configs: object, **_: object) -> list[CheckMessage]:
    """What can be seen without a server."""
    found: list[CheckMessage] = []
    pooled = False
    for alias in connections:
        given = connections.settings[alias]
        if is_ours(alias):
            pooled = True
            found += _of_alias(alias, given)
        elif "POOL" in given:
            found.append(
                Warning(
                    f"DATABASES[{alias!r}] has a POOL, but its ENGINE {given['ENGINE']!r} has none.",
                    hint="ENGINE = 'geventpool.django.mysql', '.postgresql', '.postgis' or '.mysql_gis'",
                    id="geventpool.W001",
                )
            )
    if pooled:
        found += _of_process()
    return found


def is_ours(alias: str) -> bool:
    """Has it a pool? So has a backend of somebody's own that is derived from one of ours."""
    if str(connections.settings[alias]["ENGINE"]).startswith("geventpool.django."):
        return True
    try:
        return hasattr(connections[alias], "open_connection")
    except (ImproperlyConfigured, ImportError):
        return False  # such as another alias whose driver is not installed; Django tells it


def _of_alias(alias: str, given: Any) -> Iterator[CheckMessage]:
    try:
        make_config(**read(alias, given).given)
    except ImproperlyConfigured as error:
        yield Error(str(error), id="geventpool.E001")
    if given["CONN_MAX_AGE"] != 0:
        yield Warning(
            f"DATABASES[{alias!r}]['CONN_MAX_AGE'] is {given['CONN_MAX_AGE']!r}: a greenlet then keeps "
            "its connection between two requests, when others could use it.",
            hint="Leave it out (0): giving a connection back costs no round trip, and it stays open.",
            id="geventpool.W002",
        )


def _of_process() -> Iterator[CheckMessage]:
    if not is_module_patched("socket"):
        return  # `manage.py` needs no greenlets
    storage = getattr(connections._connections, "_storage", None)
    if storage is not None and not isinstance(storage, local):
        yield Error(
            "Django was imported before gevent.monkey.patch_all(): all greenlets share one connection "
            "of each alias, and its transactions.",
            hint="Patch first, at the very top of gunicorn.conf.py or of wsgi.py.",
            id="geventpool.E002",
        )
    extensions = sys.modules.get("psycopg2.extensions")
    base = sys.modules.get("django.db.backends.postgresql.psycopg_any")
    if (
        extensions is not None
        and base is not None
        and not base.is_psycopg3
        and extensions.get_wait_callback() is None
    ):
        yield Warning(
            "psycopg2 blocks the gevent hub during every query, and with it all greenlets.",
            hint="Call psycogreen.gevent.patch_psycopg() at the start, or install psycopg 3.",
            id="geventpool.W003",
        )
    if getattr(sys.modules.get("MySQLdb"), "__name__", "") == "MySQLdb" and _uses_mysql():
        yield Warning(
            "mysqlclient blocks the gevent hub during every query, and with it all greenlets.",
            hint="Install PyMySQL, and put pymysql.install_as_MySQLdb() into the settings.",
            id="geventpool.W004",
        )


def _uses_mysql() -> bool:
    return any(".mysql" in connections.settings[alias]["ENGINE"] for alias in connections)


def check_server(
    app_configs: object, databases: Sequence[str] | None = None, **_: object
) -> list[CheckMessage]:
    """What only the servers know: `manage.py check --database default`, and every `migrate`."""
    most: dict[Any, float] = defaultdict(float)
    asked: dict[Any, str] = {}
    for alias in connections:
        given = connections.settings[alias]
        if not is_ours(alias):
            continue
        try:
            size = make_config(**read(alias, given).given).max_size
        except ImproperlyConfigured:
            continue  # another check's
        server = registry.database_of(given)[:2]
        most[server] += size
        if alias in (databases or ()):
            asked[server] = alias
    workers = _workers()
    found: list[CheckMessage] = []
    for server, alias in asked.items():
        try:
            allowed = look(connections[alias]).max_connections
        except (DatabaseError, PoolTimeout):
            continue  # Django tells it better
        wanted = most[server] * workers
        if wanted > allowed:
            found.append(_too_many(alias, wanted, most[server], workers, allowed))
    return found


def _too_many(alias: str, wanted: float, size: float, workers: int, allowed: int) -> CheckMessage:
    told = "no limit" if wanted == math.inf else f"{wanted:g} connections"
    return Warning(
        f"The pools of the server of {alias!r} may open {told} ({size:g} in each of {workers} workers), "
        f"and it allows {allowed}.",
        hint=f"Lower max_size to {max(1, allowed * 4 // 5 // workers)}, or raise the server's "
        "max_connections. Until then callers wait where the server has no room; they do not fail.",
        id="geventpool.W005",
    )


def _workers() -> int:
    text = os.environ.get(WORKERS, "")
    return int(text) if text.isdigit() and int(text) else 1
