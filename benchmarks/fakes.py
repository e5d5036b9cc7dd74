"""Connections without a server and pools without anything, so that only a pool is measured."""

from __future__ import annotations

import itertools
import math
import resource
import socket
import time
from collections import deque
from collections.abc import Callable
from operator import methodcaller
from typing import Any

import pymysql
from sqlalchemy.pool import NullPool, Pool, QueuePool, StaticPool

from geventpool.config import PoolConfig
from geventpool.core.handlers import Handlers
from geventpool.core.pool import ResourcePool
from geventpool.sizing import adaptive
from geventpool.sqlalchemy import GeventPool


class Plain:
    """A connection of a DBAPI that nobody knows: no socket, and no word about transactions.

    It has a `cursor`, by which geventpool sees that its methods can be watched.
    """

    def rollback(self) -> None:
        """Does nothing."""

    commit = close = cursor = rollback


class Silent(pymysql.connections.Connection):
    """PyMySQL's connection with a socket that nobody talks through.

    A pool that looks at the transaction's state and watches the socket does all of that with it. The
    rollback that the others send costs nothing here.
    """

    def __init__(self) -> None:
        # A datagram's, because it is open all by itself, with one descriptor.
        self._sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._result = None
        self.server_status = 0
        self.client_flag = 0

    def rollback(self) -> None:
        """As after an answer of the server's."""
        self.server_status = 0

    commit = rollback

    def close(self) -> None:
        """Closes the socket."""
        self._force_close()

    def _force_close(self) -> None:
        if self._sock is not None:
            self._sock.close()
            self._sock = None

    __del__ = _force_close


class NoDriver(Handlers):
    """Handlers of a core pool whose resources are plain objects."""

    def open(self) -> object:
        """A new one."""
        return object()

    def is_clean(self, _resource: object) -> bool:
        """Always."""
        return True

    def close(self, _resource: object, _cause: str) -> None:
        """Does nothing."""


class DequePool(Pool):
    """The least that a pool can do, behind SQLAlchemy's own record and proxied connection."""

    def __init__(self, creator: Callable[[], Any], **arguments: Any) -> None:
        super().__init__(creator, **arguments)
        self._idle: deque[Any] = deque()

    def _do_get(self) -> Any:
        return self._idle.pop() if self._idle else self._create_connection()

    def _do_return_conn(self, record: Any) -> None:
        self._idle.append(record)

    def dispose(self) -> None:
        """Closes what is idle."""
        while self._idle:
            self._idle.pop().close()


class QuantilePool(DequePool):
    """Sized by a Poisson quantile that is summed up at each return, which is how SAAutoPool does it.

    Decayed means of connections in use and of checkouts per second; kept is the least number that would
    be exceeded less often than once in `interval` seconds.
    """

    interval, half_life = 30.0, 60.0

    def __init__(self, creator: Callable[[], Any], **arguments: Any) -> None:
        super().__init__(creator, **arguments)
        self._mean = self._rate = 0.0
        self._in_use = 0
        self._last = time.time()

    def _do_get(self) -> Any:
        self._count(1)
        self._rate += math.log(2) / self.half_life
        return super()._do_get()

    def _do_return_conn(self, record: Any) -> None:
        self._count(-1)
        if self._in_use + len(self._idle) < self._most():
            super()._do_return_conn(record)
        else:
            record.close()

    def _count(self, change: int) -> None:
        now = time.time()
        weight = math.exp((self._last - now) * math.log(2) / self.half_life)
        self._mean = self._in_use + (self._mean - self._in_use) * weight
        self._rate *= weight
        self._last = now
        self._in_use += change

    def _most(self) -> int:
        chance = total = math.exp(-self._mean)
        wanted = 1.0 - 1.0 / max(2.0, self.interval * self._rate)
        level = 0
        while total < wanted:
            level += 1
            chance *= self._mean / level
            total += chance
        return level + 1


CLOSE = methodcaller("close")
"""Gives back what was lent, without a Python frame of its own."""

OURS = "GeventPool"
FIFO = "QueuePool FIFO"


def sqlalchemy_pools(creator: Callable[[], Any], size: int = 5) -> dict[str, Pool]:
    """The pools for SQLAlchemy that can be told apart by their cost; ours with its defaults.

    Args:
        creator: opens a connection.
        size: of `QueuePool`, without overflow.
    """
    return {
        OURS: GeventPool(creator),
        FIFO: QueuePool(creator, pool_size=size, max_overflow=0),
        "QueuePool LIFO": QueuePool(creator, pool_size=size, max_overflow=0, use_lifo=True),
        "NullPool": NullPool(Plain),
        "StaticPool": StaticPool(creator),
        "deque, SQLAlchemy's fairy": DequePool(creator),
        "sized as SAAutoPool": QuantilePool(creator),
    }


def bare_core(config: PoolConfig | None = None) -> ResourcePool:
    """The core without any driver."""
    return ResourcePool(NoDriver(), adaptive(), config or PoolConfig())


def open_all(pool: Pool, count: int) -> None:
    """Sees to it that so many connections are open and idle."""
    for lent in [pool.connect() for _ in range(count)]:
        lent.close()


def allow_files(count: int) -> None:
    """Allows so many descriptors, if the machine does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < count:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(count, hard), hard))


def from_stock(connections: list[Any]) -> Callable[[], Any]:
    """A creator that hands out connections that are there already."""
    stock = itertools.chain(connections)
    return lambda: next(stock)
