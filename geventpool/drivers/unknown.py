"""Any other DBAPI: nothing of it is known, and so nothing is skipped.

It cannot tell whether it was left in the middle of an answer, and a rollback would read that answer as its
own, and so would the next borrower's questions, for ever. A connection that the pool opens is therefore
watched: the public methods of its class and of its cursors' classes note who is in them, and whether they
were left by anything but the database's own errors. What is written in C cannot be watched; it blocks
the hub as a rule, and so is not interrupted.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import sys
from collections.abc import Callable
from types import FunctionType
from typing import Any

from gevent import getcurrent

from .base import Driver, State
from .exchange import NOBODY, SPOILED, Exchange

UNKNOWN, BROKEN = State.UNKNOWN, State.BROKEN  # an enum's members are dear to look up

_watched_classes: dict[type, type] = {}


class Unknown(Driver):
    """A DBAPI that has no file of its own here."""

    def adopt(self, connection: Any) -> None:
        watch(connection, Exchange())

    def is_cut_by(self, connection: Any, error: BaseException) -> bool:
        return not isinstance(error, Exception)


class Watched(Unknown):
    """A connection of such a DBAPI whose class keeps account of exchanges."""

    def adopt(self, connection: Any) -> None:
        """It was, when it was opened."""

    def state(self, connection: Any) -> State:
        # As in `Exchange.is_open`, because it is asked at each return.
        return BROKEN if connection._geventpool_exchange.by else UNKNOWN

    def is_cut_by(self, connection: Any, error: BaseException) -> bool:
        return not (connection._geventpool_sees_all or isinstance(error, Exception))


def is_watched(kind: type) -> bool:
    """Is it a class that keeps account of exchanges? Never switches."""
    return getattr(kind, "_is_watched", False) is True


def watch(one: Any, exchange: Exchange) -> bool:
    """Gives a connection or a cursor a class that keeps account of exchanges, if it can have one.

    It cannot if it is written in C, has no room for an attribute, or its class wants no children.

    Returns:
        Whether it has one.
    """
    kind = type(one)
    if not is_watched(kind) and (hasattr(kind, "cursor") or hasattr(kind, "execute")):
        with contextlib.suppress(Exception):
            if kind not in _watched_classes:
                _watched_classes[kind] = _watched(kind)
            one._geventpool_exchange = exchange
            one.__class__ = _watched_classes[kind]
    return is_watched(type(one))


def _watched(kind: type) -> type:
    """The same class, but whoever calls a public method is in an exchange meanwhile."""
    namespace: dict[str, Any] = {
        "__doc__": kind.__doc__,
        "__module__": kind.__module__,
        "__qualname__": kind.__qualname__,
        "_is_watched": True,
        "_geventpool_sees_all": True,
    }
    packages = {base.__module__.partition(".")[0] for base in kind.__mro__[:-1]}
    for name in dir(kind):
        method = inspect.getattr_static(kind, name)
        if isinstance(method, FunctionType) and (name == "__next__" or not name.startswith("_")):
            namespace[name] = _watched_method(method, packages)
    return type(kind)(kind.__name__, (kind,), namespace)


def _watched_method(method: FunctionType, packages: set[str]) -> Callable[..., Any]:
    """The same method, as one exchange, or part of one."""
    makes_cursor = method.__name__ == "cursor"

    @functools.wraps(method)
    def call(self: Any, *arguments: Any, **keywords: Any) -> Any:
        exchange: Exchange = self._geventpool_exchange
        me = id(getcurrent())
        if exchange.by == me:
            return method(self, *arguments, **keywords)  # called by another of its methods
        exchange.by = SPOILED if exchange.by else me  # as in `join`, for one frame less
        before = sys.exc_info()[1]  # what the caller is handling already
        try:
            value = method(self, *arguments, **keywords)
        except BaseException as error:
            if not _is_answer(error, before, packages):
                exchange.spoil()
            exchange.end()
            raise
        if exchange.by == me:
            exchange.by = NOBODY
        if value is not None and (makes_cursor or hasattr(type(value), "fetchone")):
            self._geventpool_sees_all &= watch(value, exchange)
        return value

    return call


def _is_answer(error: BaseException, before: BaseException | None, packages: set[str]) -> bool:
    """Is it the DBAPI's own error, as PEP 249 names it, and not one that took an interruption's place?"""
    if isinstance(error, StopIteration):
        return True
    is_own = any(
        kind.__name__ in ("Error", "Warning") and kind.__module__.partition(".")[0] in packages
        for kind in type(error).__mro__
    )
    cause = error.__context__
    while is_own and cause is not None and cause is not before:
        is_own = isinstance(cause, Exception) and not isinstance(cause, OSError)
        cause = cause.__context__
    return is_own
