"""SQLite databases in memory behind SQLAlchemy: in a program's threads, asked for twice, already begun."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from gevent import getcurrent
from sqlalchemy import event
from sqlalchemy.pool import Pool

from .. import drivers
from .proxy import RecordPool

if TYPE_CHECKING:
    from sqlalchemy.pool import PoolProxiedConnection


def expect(pool: RecordPool, dialect: Any) -> None:
    """Prepares a new pool for that its database may be in memory. Never switches.

    The first connection that is opened tells whether it is.
    """
    if getattr(dialect, "name", "") == "sqlite" and hasattr(dialect, "dispatch"):
        pool.connect = OneConnection(pool)  # type: ignore[method-assign]
        event.listen(dialect, "do_connect", _allow_threads)  # the second time, it does nothing


def settle(pool: RecordPool) -> None:
    """A connection has been opened, and so it is known what the database is. Never switches."""
    is_expected = isinstance(pool.connect, OneConnection)
    if is_expected and not pool.has_one_connection:
        del pool.connect


def _allow_threads(dialect: Any, _record: Any, _arguments: Any, keywords: dict[str, Any]) -> None:
    """SQLAlchemy makes a connection to a database in memory for one thread: its pool has one for each.

    Ours lends it to one caller at a time, in whatever thread. (1.4 leaves it to the driver's default.)
    """
    if "check_same_thread" in keywords or dialect.driver == "pysqlite":
        keywords["check_same_thread"] = False


class OneConnection:
    """Stands for a pool's `connect` as long as the pool's one connection may be its database.

    A greenlet, or thread, that has it gets it again, as from the pool that SQLAlchemy has for such
    databases; everybody else waits in line.
    """

    def __init__(self, pool: RecordPool) -> None:
        self._pool = pool
        self._holder: Any = None
        self._fairy: Callable[[], Any] = lambda: None

    def __call__(self) -> PoolProxiedConnection:
        fairy = self._fairy() if self._holder is getcurrent() else None
        if fairy is not None and fairy.dbapi_connection is not None:
            again: PoolProxiedConnection = fairy._checkout_existing()
            return again
        lent = type(self._pool).connect(self._pool)
        if self._pool.has_one_connection:
            self._holder, self._fairy = getcurrent(), weakref.ref(lent)
        return lent


def why_kept(pool: Pool) -> str | None:
    """Why a pool of SQLAlchemy's is not to be replaced by ours; `None`: it may be. Never switches."""
    name = type(pool).__name__
    if name in ("StaticPool", "AssertionPool"):
        return (
            f"its {name} shares one connection on purpose (a database in memory lives in its one "
            "connection); leave it"
        )
    records = getattr(getattr(pool, "_pool", None), "queue", ())
    held = [record.dbapi_connection for record in records]
    if getattr(pool, "_all_conns", None) or any(
        one is not None and drivers.driver_for(one).is_in_memory(one) for one in held
    ):
        return "its open connections are its database in memory; wrap it before its first use"
    return None
