"""How large must the hard cap be? Throughput of one worker by cap, as a share of its best.

python -m benchmarks.default_cap

One process, 200 greenlets without a pause between their transactions, GeventPool with each cap in turn
and interleaved, for a transaction of which the server's part is 0, 5 and 20 ms (a lock, a disk, another
host). Beyond some cap the worker's own CPU is the limit and more connections only cost the server.
"""

from __future__ import annotations

import random
import statistics
import sys
import time

import gevent
from sqlalchemy import create_engine, text

from geventpool.sqlalchemy import GeventPool

from .measure import Scale
from .result import Section, Table
from .run import Serve, main

CAPS = (2, 5, 10, 15, 20, 30, 50, 80)
SERVER_SECONDS = (0.0, 0.005, 0.020)
GREENLETS, WARM_SECONDS = 200, 0.5


def transactions_per_second(url: str, cap: int, server_seconds: float, seconds: float) -> float:
    """Of one worker with this cap."""
    engine = create_engine(url, poolclass=GeventPool, max_size=cap, pool_timeout=None)
    nap = "sleep" if engine.dialect.name == "mysql" else "pg_sleep"
    work = text(f"select {nap}({server_seconds})" if server_seconds else "select 1")
    done = 0

    def client() -> None:
        nonlocal done
        while True:
            with engine.begin() as connection:
                connection.execute(work)
            done += 1

    clients = [gevent.spawn(client) for _ in range(GREENLETS)]
    gevent.sleep(WARM_SECONDS)
    with gevent.Timeout(10, False):
        while engine.pool.stats().opening:  # type: ignore[attr-defined]
            gevent.sleep(0.1)
    done, began = 0, time.perf_counter()
    gevent.sleep(seconds)
    while not done:  # so short a look says nothing, but it is no error
        gevent.sleep(seconds)
    rate = done / (time.perf_counter() - began)
    gevent.killall(clients)
    engine.dispose()
    return rate


def measure(scale: Scale, serve: Serve) -> list[Section]:
    """With PyMySQL on MariaDB and psycopg on PostgreSQL."""
    places = (("mariadb", "pymysql"), ("postgresql", "psycopg"))
    sections = []
    for server, driver in places:
        url = serve(server).url(driver)
        rows = [_shares(scale, url, seconds) for seconds in SERVER_SECONDS]
        header = ["server's part", *(f"cap {cap}" for cap in CAPS)]
        sections.append(
            Section(
                f"Throughput by cap, {driver} on {server}",
                f"{GREENLETS} greenlets without a pause between their transactions; the share of the best "
                "cap's throughput, median of the rounds.",
                tables=[Table(header, rows)],
            )
        )
    return sections


def _shares(scale: Scale, url: str, server_seconds: float) -> list[str]:
    rates: dict[int, list[float]] = {cap: [] for cap in CAPS}
    for _ in range(max(1, scale.rounds // 7)):
        for cap in random.sample(CAPS, len(CAPS)):
            seconds = 1.5 * scale.busy_seconds
            rates[cap].append(transactions_per_second(url, cap, server_seconds, seconds))
        print(".", end="", file=sys.stderr, flush=True)
    medians = {cap: statistics.median(rates[cap]) for cap in CAPS}
    best = max(medians.values())
    return [f"{server_seconds * 1000:g} ms", *(f"{medians[cap] / best:.0%}" for cap in CAPS)]


if __name__ == "__main__":
    main(measure)
