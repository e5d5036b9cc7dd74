"""The raw pool beside the other pools of DBAPI connections, and beside gevent's own queue.

python -m benchmarks.raw
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import psycopg
from gevent.queue import LifoQueue

from geventpool import ConnectionPool

from .fakes import CLOSE, Silent, bare_core
from .measure import Sample, Scale, interleave, ratio, statement
from .result import Section
from .run import Serve, main

OURS = "acquire and release, psycopg"
OURS_SILENT = "acquire and release, PyMySQL's class"
OURS_BARE = "acquire and release, no driver"
OURS_WITH = "with pool.connection(), psycopg"
QUEUE = "LifoQueue get and put"
PSYCOPG_POOL = "psycopg_pool getconn and putconn"
PSYCOPG_WITH = "psycopg_pool with pool.connection()"
DBUTILS = "DBUtils connection and close"
DJANGO = "django-db-geventpool get and put"


def measure(scale: Scale, serve: Serve) -> list[Section]:
    """Everything in one process, against one PostgreSQL."""
    arguments = psycopg_arguments(serve("postgresql"))
    with ExitStack() as stack:
        samples = stack.enter_context(_ours(arguments))
        samples |= _theirs(arguments, stack)
        queue: LifoQueue[int] = LifoQueue()
        queue.put(1)
        samples[QUEUE] = statement("put(get())", get=queue.get, put=queue.put)
        times = interleave(samples, scale.rounds, scale.seconds)
    against_queue = [
        ratio(times, name, QUEUE, 4, 2) for name in (OURS, OURS_SILENT, OURS_BARE, OURS_WITH)
    ]
    return [
        Section(
            "The raw pool beside its peers",
            "One idle connection of a real PostgreSQL in each pool, CPU time; but elapsed time for "
            "django-db-geventpool, which asks the server at each borrow.",
            [
                ratio(times, OURS, PSYCOPG_POOL, 0.25, 0.10),
                ratio(times, OURS_WITH, PSYCOPG_WITH),
                ratio(times, OURS, DBUTILS),
                ratio(times, OURS, DJANGO),
            ],
        ),
        Section(
            "The raw pool beside gevent's queue",
            "The queue is compiled, and keeps no statistics, holders, sizes or sockets. With psycopg "
            "three of the driver's properties are read at each return; `no driver` has handlers that do "
            "nothing, so that the core is left.",
            against_queue,
        ),
    ]


class Peer(NamedTuple):
    """A pool of somebody else's.

    Attributes:
        name: what is measured of it.
        lend: takes a connection out.
        give_back: takes it back.
        connection: makes a context that does both, if there is one.
    """

    name: str
    lend: Callable[[], Any]
    give_back: Callable[[Any], object]
    connection: Callable[[], Any] | None = None


def psycopg_arguments(server: Any) -> dict[str, Any]:
    """For `psycopg.connect`."""
    return {
        "host": server.host,
        "port": server.port,
        "user": server.user,
        "password": server.password,
        "dbname": server.database,
    }


@contextmanager
def _ours(arguments: dict[str, Any]) -> Iterator[dict[str, Sample]]:
    pools = {
        OURS: ConnectionPool(lambda: psycopg.connect(**arguments)),
        OURS_SILENT: ConnectionPool(Silent),
    }
    cores = {name: pool.core for name, pool in pools.items()}
    cores[OURS_BARE] = bare_core()
    samples = {
        name: statement("release(acquire(30.0))", acquire=core.acquire, release=core.release)
        for name, core in cores.items()
    }
    samples[OURS_WITH] = statement(
        "with connection(): pass", time.process_time, connection=pools[OURS].connection
    )
    yield samples
    for pool in pools.values():
        pool.close()


def _theirs(arguments: dict[str, Any], stack: ExitStack) -> dict[str, Sample]:
    psycopgs = stack.enter_context(psycopg_pool(arguments))
    dbutils = stack.enter_context(dbutils_pool(arguments))
    django = stack.enter_context(django_pool(arguments))
    elapsed = time.perf_counter
    return {
        PSYCOPG_POOL: statement("put(get())", get=psycopgs.lend, put=psycopgs.give_back),
        PSYCOPG_WITH: statement("with lend(): pass", lend=psycopgs.connection),
        DBUTILS: statement("get().close()", get=dbutils.lend),
        DJANGO: statement("put(get())", elapsed, get=django.lend, put=django.give_back),
    }


@contextmanager
def psycopg_pool(arguments: dict[str, Any]) -> Iterator[Peer]:
    """The pool that comes with psycopg."""
    from psycopg_pool import ConnectionPool as Theirs

    with Theirs(kwargs=arguments, min_size=1, max_size=20, open=True) as pool:
        pool.wait()
        yield Peer("psycopg_pool", pool.getconn, pool.putconn, pool.connection)


@contextmanager
def dbutils_pool(arguments: dict[str, Any]) -> Iterator[Peer]:
    """DBUtils' pool for threads, as its documentation shows it."""
    from dbutils.pooled_db import PooledDB

    pool = PooledDB(psycopg, maxconnections=20, blocking=True, **arguments)
    yield Peer("DBUtils PooledDB", pool.connection, CLOSE)
    pool.close()


@contextmanager
def django_pool(arguments: dict[str, Any]) -> Iterator[Peer]:
    """django-db-geventpool's."""
    from django_db_geventpool.backends.postgresql_psycopg3.base import PostgresConnectionPool

    pool = PostgresConnectionPool(connect=_autocommit, MAX_CONNS=20, **arguments)
    yield Peer("django-db-geventpool", pool.get, pool.put)
    pool.close()


def _autocommit(**arguments: Any) -> Any:
    """A connection as Django has it."""
    return psycopg.connect(autocommit=True, **arguments)


if __name__ == "__main__":
    main(measure)
