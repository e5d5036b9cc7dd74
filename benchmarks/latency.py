"""What a request takes across a network, and how many there are in a second: a proxy delays each message.

python -m benchmarks.latency
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import gevent
from psycogreen.gevent import patch_psycopg
from sqlalchemy import create_engine, text
from sqlalchemy.engine import Engine, make_url
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool, QueuePool

from geventpool.sqlalchemy import GeventPool
from tests.integration.proxy import Proxy

from .measure import Scale, spread
from .result import Figure, Section, Table
from .run import Serve, main

OURS, WAITS = "GeventPool, behind", "GeventPool"
PLAIN, PINGS = "QueuePool", "QueuePool, pre-ping"
MOST, GREENLETS = 5, 20
TUNED = {"pool_size": MOST, "max_overflow": 0}
POOLS: Mapping[str, dict[str, Any]] = {
    OURS: {"poolclass": GeventPool, "pool_reset_on_return": "behind"},
    WAITS: {"poolclass": GeventPool},
    PLAIN: {"poolclass": QueuePool},
    PINGS: {"poolclass": QueuePool, "pool_pre_ping": True},
}
DRIVERS = (
    ("mariadb", "pymysql", "PyMySQL"),
    ("postgresql", "psycopg", "psycopg"),
    ("postgresql", "psycopg2", "psycopg2"),
)
DELAYS = (0.0, 0.0005, 0.001, 0.005)
"""Seconds, each way."""

TARGETS = {"PyMySQL": 0.6, "psycopg": 0.5}
"""Of a request's time with a tuned QueuePool that pings, at a round trip of 1 ms."""

QUERY = text("select number from latency")
TIMES = 20
ROUNDS = 3  # in the quick form
WARM = 10
Times = dict[str, list[float]]


def measure(scale: Scale, serve: Serve) -> list[Section]:
    """Of a request that reads through a session, and closes it."""
    patch_psycopg()
    figures: list[Figure] = []
    rows: list[list[str]] = []
    for server, driver, name in DRIVERS if scale.is_full else DRIVERS[:2]:
        for delay in DELAYS:
            with _engines(serve(server), driver, delay) as engines:
                spans, rates = _measure(engines, delay, scale)
            where = f"{name}, {delay * 1e3:g} ms each way"
            figures += _judge(name, where, delay, spans, rates)
            rows += [
                [
                    where,
                    pool,
                    f"{statistics.median(spans[pool]) * 1e3:.2f}",
                    f"{statistics.median(rates[pool]):,.0f}",
                ]
                for pool in POOLS
            ]
    return [
        Section(
            "A request across a network",
            f"A session reads a row and is closed. Time: of one greenlet, with a pause after each "
            f"request, in turns. Requests/s: {GREENLETS} greenlets on {MOST} connections, without a "
            "pause.",
            figures,
            [Table(["where", "pool", "ms", "requests/s"], rows)],
        )
    ]


def _judge(name: str, where: str, delay: float, spans: Times, rates: Times) -> list[Figure]:
    def ratio(of: Times, other: str) -> list[float]:
        return [mine / theirs for mine, theirs in zip(of[OURS], of[other], strict=True)]

    is_judged = delay == 0.0005
    return [
        spread(f"{where}: time / {PINGS}", ratio(spans, PINGS), TARGETS.get(name))
        if is_judged
        else spread(f"{where}: time / {PINGS}", ratio(spans, PINGS)),
        spread(f"{where}: time / {PLAIN}", ratio(spans, PLAIN)),
        spread(f"{where}: time / {WAITS}", ratio(spans, WAITS), None if delay else 1.03),
        spread(
            f"{where}: requests/s / {PINGS}",
            ratio(rates, PINGS),
            1.5 if is_judged else None,
            is_least=True,
        ),
        spread(
            f"{where}: requests/s / {WAITS}",
            ratio(rates, WAITS),
            None if delay else 0.97,
            is_least=True,
        ),
    ]


@contextmanager
def _engines(server: Any, driver: str, delay: float) -> Iterator[dict[str, Engine]]:
    url = make_url(server.url(driver))
    beside = create_engine(url, poolclass=NullPool)
    with beside.begin() as connection:
        connection.execute(text("drop table if exists latency"))
        connection.execute(text("create table latency (number int)"))
        connection.execute(text("insert into latency values (1)"))
    with Proxy(server.host, server.port) as proxy:
        through = url.set(host=proxy.host, port=proxy.port)
        engines = {name: create_engine(through, **TUNED, **more) for name, more in POOLS.items()}
        for engine in engines.values():
            gevent.joinall([gevent.spawn(_warm, engine) for _ in range(MOST)], raise_error=True)
        proxy.delay(delay)
        yield engines
        proxy.delay(0.0)
        for engine in engines.values():
            engine.dispose()


def _warm(engine: Engine) -> None:
    with engine.connect() as connection:
        for _ in range(WARM):
            connection.execute(QUERY).all()
        gevent.sleep(0.05)  # each has one of its own


def _request(engine: Engine) -> None:
    with Session(engine) as session:
        session.execute(QUERY).all()


def _measure(engines: dict[str, Engine], delay: float, scale: Scale) -> tuple[Times, Times]:
    spans: Times = {name: [] for name in engines}
    rates: Times = {name: [] for name in engines}
    names = list(engines)
    for _ in range(scale.rounds if scale.is_full else ROUNDS):
        for name in names:
            spans[name].append(_time(lambda engine=engines[name]: _request(engine), delay))
            rates[name].append(_rate(engines[name], scale.busy_seconds))
        names.reverse()
    return spans, rates


def _time(request: Callable[[], object], delay: float) -> float:
    spans = []
    for _ in range(TIMES):
        gevent.sleep(3.0 * delay + 0.001)  # what nobody waits for is over by then
        began = time.perf_counter()
        request()
        spans.append(time.perf_counter() - began)
    return statistics.median(spans)


def _rate(engine: Engine, seconds: float) -> float:
    count, began = 0, time.perf_counter()
    ends = began + seconds

    def work() -> None:
        nonlocal count
        while time.perf_counter() < ends:
            _request(engine)
            count += 1

    gevent.joinall([gevent.spawn(work) for _ in range(GREENLETS)], raise_error=True)
    return count / (time.perf_counter() - began)


if __name__ == "__main__":
    main(measure)
