"""What is known of each DBAPI: its socket, its transaction state, whether it is cooperative.

One small file for each, found by the name of the module that a connection's class comes from. Importing
these files imports no DBAPI.
"""

from __future__ import annotations

from .base import Driver, Ghost, Idle, State
from .mysqldb import MySQLdb
from .pg8000 import Pg8000
from .psycopg import Psycopg
from .psycopg2 import Psycopg2
from .pymysql import PyMySQL
from .sqlite3 import Sqlite3
from .unknown import Unknown

__all__ = [
    "Driver",
    "Ghost",
    "Idle",
    "State",
    "by_class",
    "driver_for",
    "errors_behind",
    "is_full",
    "is_operational",
    "is_unfit",
    "tune",
]

_UNKNOWN = Unknown()
_BY_MODULE: dict[str, Driver] = {
    driver.name: driver
    for driver in (PyMySQL(), MySQLdb(), Psycopg2(), Psycopg(), Pg8000(), Sqlite3())
}


class _ByClass(dict[type, Driver]):
    def __missing__(self, kind: type) -> Driver:
        self[kind] = driver = _find(kind)
        return driver


by_class: dict[type, Driver] = _ByClass()
"""What is known of the DBAPI that a class of connections comes from; knows every class."""


def driver_for(connection: object) -> Driver:
    """What is known of a connection's DBAPI. Never switches greenlets."""
    return by_class[type(connection)]


def is_operational(error: BaseException) -> bool:
    """Is it about reaching the server, as while that restarts, and not about how it was asked?

    An `OperationalError`, as PEP 249 defines it, or an `OSError` that a driver has passed on or wrapped.
    """
    return any(
        isinstance(one, OSError)
        or any(kind.__name__ == "OperationalError" for kind in type(one).__mro__)
        for one in (error, error.__cause__, error.__context__)
    )


def is_full(error: BaseException) -> bool:
    """Has a connect failed because the server has no room for one more connection? Never switches.

    Args:
        error: the DBAPI's own.
    """
    return driver_for(error).is_full(error)


def is_unfit(connection: object, error: BaseException) -> bool:
    """Does an error say that the server of a connection is no longer the one? Never switches."""
    return driver_for(connection).is_unfit(connection, error)


def errors_behind(connection: object, error: BaseException) -> list[BaseException]:
    """The driver's own error; or whatever it is, and what it was made of. Never switches."""
    if driver_for(error) is driver_for(connection):
        return [error]
    return [one for one in (error, error.__cause__, error.__context__) if one is not None]


def tune(module_name: str) -> None:
    """Makes a DBAPI open connections without stalling the hub, where it does and there is a cure.

    Args:
        module_name: name of the DBAPI module, which the caller has imported.
    """
    driver = _BY_MODULE.get(module_name.partition(".")[0])
    if driver is not None:
        driver.tune()


def _find(kind: type) -> Driver:
    for base in kind.__mro__:
        driver = _BY_MODULE.get(base.__module__.partition(".")[0])
        if driver is not None:
            return driver
    return _UNKNOWN
