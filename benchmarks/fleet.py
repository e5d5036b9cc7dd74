"""How long does a worker wait for its first connection, beside another one's that are idle?

python -m benchmarks.fleet
"""

from __future__ import annotations

from gevent import monkey

monkey.patch_all()

import os  # noqa: E402
import statistics  # noqa: E402
import subprocess  # noqa: E402
import sys  # noqa: E402
import tempfile  # noqa: E402
import time  # noqa: E402
from typing import Any  # noqa: E402

import gevent  # noqa: E402
import pymysql  # noqa: E402
from gevent.event import Event  # noqa: E402
from sqlalchemy import make_url  # noqa: E402

from geventpool import ConnectionPool  # noqa: E402

from .measure import Scale  # noqa: E402
from .result import Figure, Section, Table  # noqa: E402
from .run import Serve, main  # noqa: E402

SIZE = 20
TIMES = 48  # a round
SPARE_AFTER = 0.1
"""Seconds after which the other worker's connections have been idle for long enough."""


def connect(url: str) -> Any:
    """A connection of PyMySQL's."""
    where = make_url(url)
    return pymysql.connect(
        host=where.host or "",
        port=where.port or 3306,
        user=where.username,
        password=str(where.password),
        database=where.database,
    )


def member(url: str, directory: str) -> ConnectionPool:
    """A pool of the fleet."""
    return ConnectionPool(
        lambda: connect(url), fleet=directory, fleet_size=SIZE, fleet_name="measured", breakeven=1e6
    )


def fill() -> None:
    """The other worker: for each line it is given, it opens all that the fleet may have."""
    pool = member(*sys.argv[2:])
    while gevent.get_hub().threadpool.apply(sys.stdin.readline):  # it would block the hub
        is_over, holders = Event(), []

        def hold(is_over: Event = is_over) -> None:
            with pool.connection():
                is_over.wait()

        holders = [gevent.spawn(hold) for _ in range(SIZE)]
        while pool.stats().in_use < SIZE:
            gevent.sleep(0.001)
        is_over.set()
        gevent.joinall(holders)
        print("full", flush=True)


def measure(scale: Scale, serve: Serve) -> list[Section]:
    """Each time all of the fleet's connections are idle in the other process."""
    url = serve("mariadb").url("pymysql")
    starved, plain = [], []
    with tempfile.TemporaryDirectory() as directory:
        pool = member(url, directory)
        other = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.fleet", "fill", url, directory],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
            env={**os.environ},
        )
        assert other.stdin is not None
        assert other.stdout is not None
        for _ in range(TIMES * scale.rounds):
            other.stdin.write("fill\n")
            other.stdout.readline()
            gevent.sleep(SPARE_AFTER)
            began = time.perf_counter()
            with pool.connection():
                starved.append(time.perf_counter() - began)
            pool.core.close_idle("disposed")
            began = time.perf_counter()
            connect(url).close()
            plain.append(time.perf_counter() - began)
        other.stdin.close()
        other.wait(10)
        other.stdout.close()
        pool.close()
    return [section(starved, plain)]


def section(starved: list[float], plain: list[float]) -> Section:
    """What is reported."""
    times = {"a starved worker's first connection": starved, "a connect alone": plain}
    rows = [[what, *(f"{part * 1e3:.2f}" for part in _parts(all_))] for what, all_ in times.items()]
    beyond = (_parts(starved)[1] - statistics.median(plain)) * 1e3
    return Section(
        "A worker without connections beside one that has all, idle",
        f"{len(starved):,} times, MariaDB on loopback; milliseconds. The fleet has {SIZE}. A permit that "
        "is given back is another's 10 ms later, when the server has counted one less.",
        [Figure("p99 of what is waited beyond a connect, ms", beyond, target=20)],
        [Table(["what", "p50", "p99"], rows)],
    )


def _parts(times: list[float]) -> tuple[float, float]:
    cut = statistics.quantiles(times, n=100)
    return cut[49], cut[98]


if __name__ == "__main__":
    if sys.argv[1:2] == ["fill"]:
        fill()
    else:
        main(measure)
