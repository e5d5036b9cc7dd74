"""Pooled DBAPI connections without any framework.

import pymysql
from geventpool import ConnectionPool

pool = ConnectionPool(lambda: pymysql.connect(host="127.0.0.1", user="shop", database="shop"))
with pool.connection() as connection:
with connection.cursor() as cursor:
cursor.execute("select 1")
connection.commit()
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from types import TracebackType
from typing import Any

from gevent import getcurrent

from . import drivers
from .base_pool import FOR_ASYNCIO, BasePool, ConnectionHandlers
from .config import make_config, shows_settings
from .core.clock import Clock
from .core.entry import IN_USE, Entry
from .core.pool import ResourcePool
from .core.registry import look_for_fork, unforked
from .errors import ConfigError, PoolClosed
from .setting import NOT_GIVEN


class PooledConnection:
    """A lent connection. Use it in a `with` statement, or call `close()` to give it back.

    One that is dropped without either comes back by itself.

    Attributes:
        connection: the driver's own connection object.
    """

    __slots__ = ("_entry", "_pool", "connection")

    def __init__(self, pool: ConnectionPool, entry: Entry) -> None:
        self._pool = pool
        self._entry: Entry | None = entry
        self.connection = entry.resource

    def close(self) -> None:
        """Gives the connection back. A second call does nothing. May switch greenlets (reset)."""
        entry, self._entry = self._entry, None
        if entry is not None:
            self._pool.core.release(entry)

    def invalidate(self) -> None:
        """Has the connection closed instead of given back. Never switches greenlets."""
        entry, self._entry = self._entry, None
        if entry is not None:
            self._pool.core.discard(entry, "invalidated")

    def saw(self, error: BaseException) -> bool:
        """Has the pool look at an error; what leaves a `with` block, it sees by itself. Never switches.

        Returns:
            It says that the server is no longer the one, and so the connection will not be lent again.
        """
        entry = self._entry
        return entry is not None and self._pool._saw(entry, entry.resource, error)

    def __enter__(self) -> Any:
        self._own()
        return self.connection

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        entry = self._entry
        if error is not None and entry is not None:
            self.saw(error)
            if drivers.driver_for(entry.resource).is_cut_by(entry.resource, error):
                self.invalidate()
                return
        self.close()  # which asks the driver whether it was left in the middle of anything

    def __getattr__(self, name: str) -> Any:
        if self._entry is None:
            raise PoolClosed(f"{name!r} of a connection that was given back to {self._pool!r}")
        self._own()
        return getattr(self.connection, name)

    def _own(self) -> None:
        """It may have been handed from one greenlet to another: who uses it, holds it."""
        if not unforked:
            look_for_fork()  # it is the parent's
        entry = self._entry
        if entry is not None and entry.owner is not None and entry.owner is not getcurrent():
            self._pool.core.take_over(entry)

    def __del__(self) -> None:
        # Garbage collection may run anywhere, in the hub too, so nothing is sent from here.
        entry = self._entry
        if entry is not None and entry.state is IN_USE and not sys.is_finalizing():
            self._pool.core.abandon(entry)


@shows_settings
class ConnectionPool(BasePool):
    """A pool of DBAPI connections.

    Args:
        connect: opens a connection, without arguments.
        name: for messages and figures; by default that of the function's module.
        clock: for tests: a `geventpool.testing.FakeClock`.
        **settings: each with its meaning.

    Raises:
        ConfigError: a setting cannot be used.
    """

    def __init__(
        self,
        connect: Callable[[], Any],
        *,
        name: str | None = None,
        clock: Clock | None = None,
        **settings: Any,
    ) -> None:
        if not callable(connect):
            raise ConfigError("connect", connect, "give a function that opens a connection")
        if inspect.iscoroutinefunction(connect):
            raise ConfigError("connect", connect, FOR_ASYNCIO)
        if name is not None and not isinstance(name, str):
            raise ConfigError("name", name, "give text")
        self._given = settings
        self.config = make_config(**settings)
        self._connect = connect
        self.core = ResourcePool(
            ConnectionHandlers(self, self._open, connect),
            self.config.policy(),
            self.config,
            name=name or "pool",
            clock=clock,
        )

    def connection(self, timeout: float | None = NOT_GIVEN) -> PooledConnection:
        """Lends a connection. Never switches greenlets when one is idle.

        Args:
            timeout: seconds to wait, connecting included; 0: take what is idle or fail; `None`: for
                ever; by default the pool's `timeout`.

        Raises:
            PoolTimeout: none came in time.
            PoolClosed: the pool is closed.
            Exception: what the driver raised when it could not connect.
        """
        entry = self.core.acquire(self.config.timeout if timeout is NOT_GIVEN else timeout)
        pooled = PooledConnection(self, entry)
        listener = self.core.listener
        if listener is not None:
            try:
                pooled.connection = listener.handed_out(entry, pooled.connection)
            except BaseException:  # killed while that was being logged
                pooled.close()
                raise
        return pooled

    def status(self) -> str:
        """All figures in one line."""
        return self.core.status()

    def _open(self) -> Any:
        connection = self._connected(self._connect)
        self._adopt(connection, self._connect)
        return connection
