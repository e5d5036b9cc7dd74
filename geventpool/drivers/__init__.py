"""What is known of each DBAPI: its socket, its transaction state, whether it is cooperative.

One small file for each, found by the name of the module that a connection's class comes from. Importing
these files imports no DBAPI. A connection inside of another object is seen by that object's `__wrapped__`.
"""

from __future__ import annotations

import functools
import logging
import warnings
from typing import Any
from weakref import WeakSet

from ..errors import BlockingDriverWarning, ConfigError
from .abandoned_queries import AbandonedQuery
from .base import Driver, Idle, State
from .mariadb import MariaDB
from .mysqlconnector import MySQLConnector
from .mysqldb import MySQLdb
from .pg8000 import Pg8000
from .psycopg import Psycopg
from .psycopg2 import Psycopg2
from .pymysql import PyMySQL
from .sqlite3 import Sqlite3
from .unknown import Unknown, Watched, is_watched
from .wrapped import Wrapped

__all__ = [
    "AbandonedQuery",
    "Driver",
    "Idle",
    "State",
    "by_class",
    "driver_for",
    "errors_behind",
    "innermost",
    "is_known",
    "is_operational",
    "is_unfit",
    "prepare",
    "register",
    "server_is_full",
    "tune",
    "warn_if_blocking",
    "why_blocking",
    "with_plans",
]

log = logging.getLogger("geventpool")

_MOST_CLASSES = 1000  # some tracers make a class for each connection
_DEEPEST = 8  # two tracers, and something of the user's own; also an object that wraps itself

_UNKNOWN, _WATCHED = Unknown(), Watched()
_BY_MODULE: dict[str, Driver] = {
    driver.name: driver
    for driver in (
        *(PyMySQL(), MySQLConnector(), MySQLdb(), MariaDB()),
        *(Psycopg2(), Psycopg(), Pg8000(), Sqlite3()),
    )
}


_distrusted: WeakSet[type] = WeakSet()  # a driver's file could not prepare a connection of theirs
_said: set[str] = set()
_warned: set[str] = set()


class _ByClass(dict[type, Driver]):
    def __missing__(self, kind: type) -> Driver:
        if len(self) >= _MOST_CLASSES:
            self.clear()
        self[kind] = driver = _find(kind)
        return driver


by_class: dict[type, Driver] = _ByClass()
"""What is known of the DBAPI that a class of connections comes from; knows every class."""


def driver_for(connection: object) -> Driver:
    """What is known of a connection's DBAPI. Never switches greenlets.

    Its functions take the connection as it is, whatever that is wrapped in.
    """
    driver = by_class[type(connection)]
    return _seen_through(_see(connection)[0]) if driver is _OPAQUE else driver


def innermost(connection: object) -> Any:
    """The driver's own connection, whatever it is wrapped in. Never switches greenlets."""
    return _see(connection)[1]


def register(driver: Driver) -> None:
    """Makes all pools know one more DBAPI, or an object of your own around a connection.

    To be called before a pool opens connections of that kind. Never switches greenlets.

    Args:
        driver: of a subclass of `Driver`. It is for all classes of connections from the module `name`
            and those below it, and wins over what was known of that.

    Raises:
        ConfigError: it cannot be used.
    """
    if not isinstance(driver, Driver):
        cure = "give an instance of a subclass of geventpool.drivers.Driver"
        raise ConfigError("driver", driver, cure)
    name: Any = driver.name
    if (
        not isinstance(name, str)
        or name == _UNKNOWN.name
        or not all(part.isidentifier() for part in name.split("."))
    ):
        cure = "give the name of the module that the connections' class comes from"
        raise ConfigError(f"{type(driver).__name__}.name", name, cure)
    _BY_MODULE[name] = driver
    _distrusted.clear()
    by_class.clear()


def prepare(connection: object) -> Driver:
    """Has the driver's file prepare a connection that was just opened. May switch greenlets, to log.

    What is not known, or not as the file expects it, is told once for each class, and not trusted.

    Returns:
        What is known of it from now on.
    """
    driver, kind = driver_for(connection), type(connection)
    if driver is _UNKNOWN:
        _say(kind, "there is no driver for it")
    try:
        driver.adopt(connection)
    except Exception as error:
        innermost = type(_see(connection)[1])
        _distrusted.add(innermost)
        by_class.pop(innermost, None)
        _say(innermost, f"it cannot be prepared ({type(error).__name__}: {error})")
        return _UNKNOWN
    if driver is _UNKNOWN:
        driver = driver_for(connection)  # it has another class now, if it can be watched
    if driver is _UNKNOWN and not _may_wrap(connection):
        by_class[kind] = driver  # else each look at it would look for something inside
    return driver


def warn_if_blocking(driver: Driver, connection: Any) -> None:
    """Says once for each driver in a process if it blocks the hub."""
    cure = None if driver.name in _warned else driver.blocks_hub(connection)
    if cure is not None:
        _warned.add(driver.name)
        warnings.warn(cure, BlockingDriverWarning, stacklevel=3)


def _may_wrap(one: Any) -> bool:
    """Is there something inside of it, now or perhaps later?"""
    try:
        return hasattr(one, "__wrapped__")
    except Exception:  # whatever an object of the user's does when it is asked
        return True


def is_operational(error: BaseException) -> bool:
    """Is it about reaching the server, as while that restarts, and not about how it was asked?

    An `OperationalError`, as PEP 249 defines it, or an `OSError` that a driver has passed on or wrapped.
    """
    return any(
        isinstance(one, OSError)
        or any(kind.__name__ == "OperationalError" for kind in type(one).__mro__)
        for one in (error, error.__cause__, error.__context__)
    )


def server_is_full(error: BaseException) -> bool:
    """Has a connect failed because the server has no room for one more connection? Never switches.

    Args:
        error: the DBAPI's own.
    """
    return driver_for(error).server_is_full(error)


def is_unfit(connection: object, error: BaseException) -> bool:
    """Does an error say that the server of a connection is no longer the one? Never switches."""
    return driver_for(connection).is_unfit(connection, error)


def errors_behind(connection: object, error: BaseException) -> list[BaseException]:
    """The driver's own error; or whatever it is, and what it was made of. Never switches."""
    if driver_for(error).name == driver_for(connection).name:
        return [error]
    return [one for one in (error, error.__cause__, error.__context__) if one is not None]


def with_plans() -> list[str]:
    """The names of the DBAPI modules through which statements can be prepared. Never switches."""
    return [name for name, driver in _BY_MODULE.items() if driver.plans is not None]


def is_known(module_name: str) -> bool:
    """Is there a file for this DBAPI? Never switches."""
    return _of_module(module_name) is not None


def why_blocking(module_name: str) -> str | None:
    """If each connection of a DBAPI that is imported blocks the hub: the cure. Never switches."""
    driver = _of_module(module_name)
    return None if driver is None else driver.blocks_hub(None)


def tune(module_name: str) -> None:
    """Makes a DBAPI open connections without stalling the hub, where it does and there is a cure.

    Args:
        module_name: name of the DBAPI module, which the caller has imported.
    """
    driver = _of_module(module_name)
    if driver is not None:
        driver.tune()


def _find(kind: type) -> Driver:
    if kind in _distrusted:
        return _UNKNOWN
    for base in kind.__mro__:
        driver = _of_module(base.__module__)
        if driver is not None:
            return driver
    return _WATCHED if is_watched(kind) else _OPAQUE


def _of_module(name: str) -> Driver | None:
    while name:
        if name in _BY_MODULE:
            return _BY_MODULE[name]
        name = name.rpartition(".")[0]
    return None


def _see(connection: Any) -> tuple[Driver, Any]:
    """The innermost connection that a driver is known for, or else what was given. Never switches."""
    seen = connection
    for _ in range(_DEEPEST):
        driver = by_class[type(seen)]
        if driver is not _OPAQUE:
            return driver, seen
        try:
            seen = seen.__wrapped__
        except Exception:  # whatever an object of the user's does when it is asked
            break
    return _UNKNOWN, connection


_OPAQUE = Wrapped(_UNKNOWN, _see)


@functools.lru_cache(maxsize=100)
def _seen_through(driver: Driver) -> Driver:
    return driver if driver is _UNKNOWN else Wrapped(driver, _see)


def _say(kind: type, why: str) -> None:
    name = f"{kind.__module__}.{kind.__qualname__}"
    if name in _said or name.startswith("geventpool."):
        return
    _said.add(name)
    log.warning(
        "geventpool does not know connections of the class %s: %s. They are pooled without trust: a "
        "rollback is sent on every return, nobody watches them while they are idle, and a query that is "
        "killed is not cancelled on the server. The cure: if it stands around a driver's connection, give "
        "it an attribute __wrapped__ that is this connection; or tell what is known of it by "
        "geventpool.drivers.register",
        name,
        why,
    )
