"""A pytest plugin for SQLAlchemy's own tests: `QueuePool` is GeventPool, under monkey-patching.

The stand-in has QueuePool's own defaults, keeps as many connections idle, and shows what those tests
look at inside of a QueuePool as views of a GeventPool. After a garbage collection the hub gets a turn,
because our finalizers do no I/O and leave the returning to a greenlet.
"""

# ruff: noqa: E402
from gevent import monkey

monkey.patch_all()

import functools
import math

import gevent
import sqlalchemy.pool
import sqlalchemy.pool.impl
import sqlalchemy.testing.util
from gevent import get_hub, getcurrent

from geventpool.config import split_cap
from geventpool.sizing.policy import Fixed
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


class _Retention(Fixed):
    """What QueuePool keeps idle: `pool_size`, whatever is in use; the rest is closed on return."""

    def __init__(self, most_idle):
        super().__init__(0, 1_000_000, 0.0)
        self._most_idle = most_idle
        self._in_use = 0
        self.min_idle = self.max_size = None  # the pool's own

    def fresh(self):
        return _Retention(self._most_idle)

    def rose(self, now, in_use):
        self._in_use = in_use

    fell = rose

    def closes_at(self, now, size, idle_since):
        return now if size - self._in_use > self._most_idle else math.inf


_retention = functools.cache(_Retention)  # equal settings are one object: a test compares them


def _release(core, release, *arguments, **keywords):
    """QueuePool closes the surplus before it comes back; our pool does so in a greenlet."""
    release(*arguments, **keywords)
    core.upkeep.react(core.clock.now())
    if core.ledger.closing and getcurrent() is not get_hub():
        gevent.idle()


class QueuePool(GeventPool):
    """GeventPool with the defaults and the insides of QueuePool."""

    core = None  # test_recreate_state compares the attributes that a class does not have

    def __init__(
        self, creator, pool_size=5, max_overflow=10, timeout=30.0, use_lifo=False, **arguments
    ):
        arguments |= {"sizing": _retention(pool_size or math.inf), "min_idle": 0}
        super().__init__(creator, pool_size, max_overflow, timeout, use_lifo, **arguments)

        self.core.release = functools.partial(_release, self.core, self.core.release)

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
