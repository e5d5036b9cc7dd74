"""Django's aliases as targets, as `DATABASES` has them."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.db import connections
from gevent.local import local
from gevent.monkey import is_module_patched

from geventpool.config import PoolConfig, make_config
from geventpool.django.registry import database_of
from geventpool.django.settings import PoolSettings, read
from geventpool.errors import ConfigError, without_passwords

from ..case import Process, Target
from ..server import Server
from ..server import read as read_server
from .patching import process_as_it_is


def set_up() -> None:
    """Loads Django's settings, as `manage.py` does. May switch greenlets.

    Raises:
        ConfigError: they cannot be loaded.
    """
    import django

    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        django.setup()
    except Exception as error:
        cure = f"loading it raised {type(error).__name__}: {without_passwords(str(error))}"
        name = os.environ.get("DJANGO_SETTINGS_MODULE", "")
        raise ConfigError("DJANGO_SETTINGS_MODULE", name, cure) from None


def process_of_django() -> Process:
    """How this process stands to monkey-patching, Django's own connections included."""
    storage = getattr(connections._connections, "_storage", None)
    is_shared = (
        is_module_patched("socket") and storage is not None and not isinstance(storage, local)
    )
    return replace(process_as_it_is(), shares_django=is_shared)


def is_ours(alias: str) -> bool:
    """Has it a pool? So has a backend of somebody's own that is derived from one of ours."""
    if str(connections.settings[alias]["ENGINE"]).startswith("geventpool.django."):
        return True
    try:
        return hasattr(connections[alias], "open_connection")
    except (ImproperlyConfigured, ImportError):
        return False  # such as another alias whose driver is not installed; Django tells it


def targets_of_django(aliases: Iterable[str] | None = None) -> list[Target]:
    """The aliases of `DATABASES`, or some. Never switches, never connects."""
    return [_target(alias) for alias in connections if aliases is None or alias in aliases]


def _target(alias: str) -> Target:
    given = connections.settings[alias]
    ours = is_ours(alias)
    config, problem, pings = _read(alias, given) if ours else (None, None, False)
    host, port, name = database_of(given)
    return Target(
        name=alias,
        driver=_driver(alias),
        address=(str(host), str(port), str(name)),
        connect=lambda: _open(alias),
        pool=f"ENGINE {given['ENGINE']}",
        is_ours=ours,
        config=config,
        where=f"DATABASES[{alias!r}]['POOL'][{{!r}}]",
        problem=problem,
        given={
            "CONN_MAX_AGE": given["CONN_MAX_AGE"],
            "engine": given["ENGINE"],
            "has_ignored_pool": not ours and "POOL" in given,
            "django_pre_ping": pings,
        },
        secrets=(str(given["PASSWORD"]),) if given.get("PASSWORD") else (),
    )


def _read(
    alias: str, given: Mapping[str, Any]
) -> tuple[PoolConfig | None, ConfigError | None, bool]:
    try:
        settings: PoolSettings = read(alias, given)
        return make_config(**settings.given), None, settings.pings
    except ConfigError as error:
        return None, error, False


def _driver(alias: str) -> str:
    """The DBAPI of an alias, whoever stands in for it (`pymysql.install_as_MySQLdb`)."""
    try:
        database: Any = connections[alias].Database
    except (ImproperlyConfigured, ImportError):
        return ""
    name = str(getattr(database, "__name__", ""))
    if name.endswith("psycopg_any"):
        from django.db.backends.postgresql.psycopg_any import is_psycopg3

        return "psycopg" if is_psycopg3 else "psycopg2"
    return name


def _open(alias: str) -> Any:
    """Opens one as Django does, beside the pool."""
    wrapper = connections[alias].copy()
    if hasattr(wrapper, "open_connection"):
        return wrapper.open_connection()
    return wrapper.get_new_connection(wrapper.get_connection_params())


def look(alias: str) -> Server:
    """What an alias's server says of its connections, through the alias's pool. Switches greenlets.

    Raises:
        DatabaseError: the server cannot be asked.
    """
    wrapper = connections[alias]
    server = Server(database="mysql" if wrapper.vendor == "mysql" else "postgresql")
    with wrapper.temporary_connection() as cursor:

        def ask(statement: str) -> Any:
            cursor.execute(statement)
            return cursor.fetchall()

        read_server(server, ask)
    return server
