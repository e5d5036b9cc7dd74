"""Our errors as Django's, so that an `except OperationalError` sees them too."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.db import InterfaceError, OperationalError
from django.db.utils import DatabaseErrorWrapper

from geventpool.errors import (
    ConfigError,
    ConnectTimeout,
    PoolClosed,
    PoolDeadlock,
    PoolOverloaded,
    PoolTimeout,
)
from geventpool.plans import PlanLost


class DjangoPoolTimeout(PoolTimeout, OperationalError):
    """No connection in time."""


class DjangoPoolDeadlock(PoolDeadlock, OperationalError):
    """Every holder of a connection waits for another one."""


class DjangoPoolOverloaded(PoolOverloaded, OperationalError):
    """The line is too long."""


class DjangoConnectTimeout(ConnectTimeout, OperationalError):
    """A connect took too long."""


class DjangoPoolClosed(PoolClosed, InterfaceError):
    """The pool is no more."""


class DjangoPlanLost(PlanLost, OperationalError):
    """A prepared plan is gone, and the transaction with it."""


class PoolImproperlyConfigured(ConfigError, ImproperlyConfigured):
    """A setting of `DATABASES[alias]` cannot be used; the text names it, its value and the cure."""


class WatchedErrors(DatabaseErrorWrapper):
    """Django's, which makes its errors of the driver's; the pool sees these before."""

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        if kind is None:
            return
        self.wrapper.saw(error)
        super().__exit__(kind, error, traceback)


_OURS: dict[type[Exception], Any] = {
    PoolTimeout: DjangoPoolTimeout,
    PoolDeadlock: DjangoPoolDeadlock,
    PoolOverloaded: DjangoPoolOverloaded,
    ConnectTimeout: DjangoConnectTimeout,
}


def as_djangos(error: PoolTimeout | PoolClosed) -> Exception:
    """The same error, of a class that is Django's as well."""
    if isinstance(error, PoolClosed):
        return DjangoPoolClosed(str(error))
    again: Exception = _OURS.get(type(error), DjangoPoolTimeout)(str(error), error.why)
    return again
