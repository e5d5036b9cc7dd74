"""A DBAPI connection and its cursors that tell a watcher what is done with them.

They stand for the driver's objects and pass on whatever they do not know. A driver's C function that
insists on its own type gets it as `connection.driver_object`, and `cursor.driver_object`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

from .holds import Hold


class Watcher(Protocol):
    """Who is told: the pool's listener."""

    def cursor_by(self, hold: Hold) -> None:
        """A cursor is being made."""

    def query_began(self, hold: Hold, text: str, connection: Any) -> None:
        """A query is being sent on the driver's connection."""

    def query_ended(
        self, hold: Hold, rows: int, connection: Any = None, *, is_error: bool = False
    ) -> None:
        """It is over."""

    def transaction_ended(self, hold: Hold) -> None:
        """A commit or a rollback is being sent."""


_OWN = ("_watcher", "_hold", "driver_object", "_connection")


class _Proxy:
    """Passes on what it does not know."""

    __slots__ = ("_connection", "_hold", "_watcher", "driver_object")

    def __init__(self, watcher: Watcher, hold: Hold, driver_object: Any, connection: Any) -> None:
        for name, value in zip(_OWN, (watcher, hold, driver_object, connection), strict=True):
            object.__setattr__(self, name, value)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.driver_object, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.driver_object, name, value)

    def __delattr__(self, name: str) -> None:
        delattr(self.driver_object, name)

    def __repr__(self) -> str:
        return f"<watched {self.driver_object!r}>"

    def __enter__(self) -> Any:
        entered = self.driver_object.__enter__()
        return self if entered is self.driver_object else entered

    def __exit__(self, *error: object) -> Any:
        self._leave()
        return self.driver_object.__exit__(*error)

    def _leave(self) -> None:
        """The block ends."""

    def _run(self, name: str, query: Any, arguments: Any, keywords: Any) -> Any:
        """Sends a query, and is told how it ends whatever comes."""
        watcher, hold = self._watcher, self._hold
        watcher.query_began(hold, text_of(query, self.driver_object), self._connection)
        is_error = True
        result = None
        try:
            result = getattr(self.driver_object, name)(query, *arguments, **keywords)
            is_error = False
            return self if result is self.driver_object else result
        finally:
            cursor = result if hasattr(result, "rowcount") else self.driver_object
            rows = -1 if is_error else rows_of(cursor)
            watcher.query_ended(hold, rows, self._connection, is_error=is_error)


class Cursor(_Proxy):
    """A cursor whose queries are told of."""

    __slots__ = ()

    def execute(self, query: Any, *arguments: Any, **keywords: Any) -> Any:
        """As the driver's."""
        return self._run("execute", query, arguments, keywords)

    def executemany(self, query: Any, *arguments: Any, **keywords: Any) -> Any:
        """As the driver's."""
        return self._run("executemany", query, arguments, keywords)

    def callproc(self, query: Any, *arguments: Any, **keywords: Any) -> Any:
        """As the driver's."""
        return self._run("callproc", query, arguments, keywords)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.driver_object)

    def __next__(self) -> Any:
        return next(self.driver_object)


class Connection(_Proxy):
    """A connection whose cursors, commits and rollbacks are told of."""

    __slots__ = ()

    def __init__(self, watcher: Watcher, hold: Hold, connection: Any) -> None:
        super().__init__(watcher, hold, connection, connection)

    def cursor(self, *arguments: Any, **keywords: Any) -> Cursor:
        """As the driver's, but watched."""
        self._watcher.cursor_by(self._hold)
        made = self.driver_object.cursor(*arguments, **keywords)
        return Cursor(self._watcher, self._hold, made, self.driver_object)

    def commit(self) -> Any:
        """As the driver's."""
        self._watcher.transaction_ended(self._hold)
        return self.driver_object.commit()

    def rollback(self) -> Any:
        """As the driver's."""
        self._watcher.transaction_ended(self._hold)
        return self.driver_object.rollback()

    def execute(self, query: Any, *arguments: Any, **keywords: Any) -> Any:
        """As that of the drivers whose connections have it."""
        return self._run("execute", query, arguments, keywords)

    def _leave(self) -> None:
        self._watcher.transaction_ended(self._hold)


def text_of(query: Any, cursor: Any) -> str:
    """A query as text; drivers take bytes and objects of their own, too. Never switches."""
    if isinstance(query, str):
        return query
    try:
        if isinstance(query, (bytes, bytearray)):
            return query.decode()
        return str(query.as_string(cursor))
    except Exception:
        return type(query).__name__


def rows_of(cursor: Any) -> int:
    """How many rows a query has found or changed; -1: the driver does not say. Never switches."""
    try:
        rows = cursor.rowcount
    except Exception:
        return -1
    # PyMySQL's number for "not known yet" is the largest of its type.
    return rows if isinstance(rows, int) and 0 <= rows < 2**63 else -1
