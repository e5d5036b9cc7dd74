"""A pytest plugin for SQLAlchemy's own tests: `QueuePool` is GeventPool, under monkey-patching.

The stand-in has QueuePool's own defaults, and shows what those tests look at inside of a QueuePool as
views of a GeventPool. After a garbage collection the hub gets a turn, because our finalizers do no I/O
and leave the returning to a greenlet.
"""

# ruff: noqa: E402
from gevent import monkey

monkey.patch_all()

import gevent
import sqlalchemy.pool
import sqlalchemy.pool.impl
import sqlalchemy.testing.util

from geventpool.config import split_cap
from geventpool.sqlalchemy import GeventPool


class _Queue:
    """What the tests ask of `QueuePool._pool`."""

    def __init__(self, pool):
        self._pool = pool
        self.use_lifo = pool.config.use_lifo
        self.maxsize = pool.size()

    def empty(self):
        return self._pool.checkedin() == 0

    @property
    def queue(self):
        return [entry.resource for entry in self._pool.core.ledger.idle] + self._pool._spares

    @queue.setter
    def queue(self, records):
        # Two tests throw records without a connection away.
        self._pool._spares[:] = [record for record in self._pool._spares if record in records]


class QueuePool(GeventPool):
    """GeventPool with the defaults and the insides of QueuePool."""

    core = None  # test_recreate_state compares the attributes that a class does not have

    def __init__(
        self, creator, pool_size=5, max_overflow=10, timeout=30.0, use_lifo=False, **arguments
    ):
        super().__init__(creator, pool_size, max_overflow, timeout, use_lifo, **arguments)

    _overflow = property(GeventPool.overflow)
    _pool = property(_Queue)

    @property
    def _max_overflow(self):
        return split_cap(self.config, self.size())[1]

    @_max_overflow.setter
    def _max_overflow(self, overflow):
        self.configure(max_overflow=overflow)


sqlalchemy.QueuePool = sqlalchemy.pool.QueuePool = sqlalchemy.pool.impl.QueuePool = QueuePool


def _then_a_turn(collect):
    def collect_and_turn(*arguments, **keywords):
        collected = collect(*arguments, **keywords)
        gevent.idle()
        return collected

    return collect_and_turn


for _name in ("gc_collect", "lazy_gc"):
    setattr(sqlalchemy.testing.util, _name, _then_a_turn(getattr(sqlalchemy.testing.util, _name)))
