"""Transactions a second of one engine: 20 greenlets, begin; select by key; commit.

python -m benchmarks.transactions
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import gevent
from sqlalchemy import create_engine, event, text
from sqlalchemy.engine import Engine
from sqlalchemy.pool import NullPool, QueuePool

from geventpool.sqlalchemy import GeventPool

from .measure import Sample, Scale, Times, interleave, ratio, speed, spread
from .result import Figure, Section
from .run import Serve, main

GREENLETS = 20
ROWS = 1000
OURS = "GeventPool, nothing configured"
PLAIN = "QueuePool(20)"
PINGED = "QueuePool(20), pre-ping"
SMART = "QueuePool(20), smart reset by hand"
DEFAULT = "QueuePool, nothing configured"

QUERY = text("select value from bench_items where id = :id")
TWENTY = {"poolclass": QueuePool, "pool_size": GREENLETS, "max_overflow": 0}
IN_TRANSACTION = 1  # MySQL's SERVER_STATUS_IN_TRANS


def measure(scale: Scale, serve: Serve) -> list[Section]:
    """With PyMySQL on MariaDB and psycopg on PostgreSQL."""
    return [
        _compare(scale, "PyMySQL on MariaDB", serve("mariadb").url("pymysql")),
        _compare(scale, "psycopg on PostgreSQL", serve("postgresql").url("psycopg")),
    ]


def _compare(scale: Scale, place: str, url: str) -> Section:
    _fill(url)
    is_mysql = url.startswith("mysql")
    engines = {
        OURS: create_engine(url, poolclass=GeventPool),
        PLAIN: create_engine(url, **TWENTY),
        PINGED: create_engine(url, **TWENTY, pool_pre_ping=True),
        DEFAULT: create_engine(url, poolclass=QueuePool),
    }
    if is_mysql:
        engines[SMART] = _reset_smartly(create_engine(url, **TWENTY, pool_reset_on_return=None))
    elapsed, cpu = (
        interleave(
            {name: _sample(engine, timer) for name, engine in engines.items()},
            max(1, scale.rounds * 2 // 3),
            seconds,
        )
        for timer, seconds in (
            (time.perf_counter, scale.busy_seconds),
            (time.process_time, scale.busy_seconds / 2),
        )
    )
    opened = engines[OURS].pool.stats().size  # type: ignore[attr-defined]
    for engine in engines.values():
        engine.dispose()
    _drop(url)
    return Section(
        f"Transactions a second, {place}",
        f"Elapsed time of what takes about {scale.busy_seconds:g} s, in {GREENLETS} greenlets; the server "
        "is on the same machine, and each pool is used for a moment before its turn is timed. PyMySQL "
        "connects fast in all pools, because GeventPool has tuned it for the process. GeventPool had "
        f"{opened} connections at the end.",
        _figures(elapsed, is_mysql) + _cpu_figures(cpu),
        plot={
            "ladder": _ladder(elapsed),
            "unit": f"time of a transaction, {PINGED} = 1",
        },
    )


def _figures(times: Times, is_judged: bool) -> list[Figure]:
    limits = {PINGED: (1.35, 1.5), PLAIN: (1.15, 1.25)} if is_judged else {}
    figures = [speed(times, OURS, name, *limits.get(name, ())) for name in times if name != OURS]
    if is_judged:
        figures += [speed(times, SMART, PLAIN), speed(times, SMART, PINGED)]
    return figures


def _cpu_figures(times: Times) -> list[Figure]:
    return [
        ratio(times, OURS, name, what=f"CPU time of this process, {OURS} / {name}")
        for name in (PLAIN, PINGED)
    ]


def _ladder(times: Times) -> dict[str, list[float | None]]:
    ladder = {}
    for name, values in times.items():
        pairs = zip(values, times[PINGED], strict=True)
        one = spread(name, [mine / other for mine, other in pairs])
        ladder[name] = [one.value, one.low, one.high]
    return ladder


def _fill(url: str) -> None:
    _drop(url)
    engine = create_engine(url, poolclass=NullPool)
    with engine.begin() as connection:
        connection.execute(text("create table bench_items (id int primary key, value int)"))
        rows = [{"id": number, "value": number} for number in range(ROWS)]
        connection.execute(text("insert into bench_items values (:id, :value)"), rows)


def _drop(url: str) -> None:
    with create_engine(url, poolclass=NullPool).begin() as connection:
        connection.execute(text("drop table if exists bench_items"))


def _reset_smartly(engine: Engine) -> Engine:
    """What a user can do about needless rollbacks by hand."""

    @event.listens_for(engine, "reset")
    def reset(connection: Any, _record: object, _state: object) -> None:
        if connection.server_status & IN_TRANSACTION:
            connection.rollback()

    return engine


def _sample(engine: Engine, timer: Callable[[], float]) -> Sample:
    def sample(count: int) -> float:
        _run(engine, GREENLETS)
        began = timer()
        done = _run(engine, count)
        return (timer() - began) * count / done

    return sample


def _run(engine: Engine, count: int) -> int:
    """Runs so many transactions, or a few more: as many in each greenlet."""
    each = -(-count // GREENLETS)
    clients = [gevent.spawn(_client, engine, number, each) for number in range(GREENLETS)]
    gevent.joinall(clients, raise_error=True)
    return each * GREENLETS


def _client(engine: Engine, number: int, count: int) -> None:
    for turn in range(count):
        with engine.begin() as connection:
            connection.execute(QUERY, {"id": (number * 31 + turn) % ROWS}).scalar()


if __name__ == "__main__":
    main(measure)
