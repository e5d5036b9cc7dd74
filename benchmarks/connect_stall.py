"""What one connect costs the whole worker.

python -m benchmarks.connect_stall

While a driver works by itself, and does not wait for the server, the hub stands still and with it every
greenlet of the process. Measured for each driver, as a user has it and as geventpool tunes it, in turns,
so that a machine that drifts does so for all of them:

- CPU seconds per connect (`time.process_time`), the median of all connects;
- the longest time that a greenlet that wants to run every millisecond had to wait during 20 connects,
  the median over the rounds.

Ratios are what to look at; the unit is the tuned PyMySQL, or pg8000, of the same run.
"""

from __future__ import annotations

import importlib
import inspect
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import gevent
from psycogreen.gevent import patch_psycopg

from geventpool.drivers import tune

from .measure import Scale
from .result import Section, Table
from .run import Serve, main

CONNECTS = 20
TICK = 0.001
SERVERS = ("mariadb", "postgresql")


@dataclass
class Variant:
    """A driver with certain settings.

    Attributes:
        name: how it is shown.
        connect: opens a connection.
        is_tuned: by us; `None`: there is nothing to tune.
        cpu: seconds of each connect.
        stalls: the longest stall of each round, in seconds.
    """

    name: str
    connect: Callable[[], Any]
    is_tuned: bool | None = None
    cpu: list[float] = field(default_factory=list)
    stalls: list[float] = field(default_factory=list)


def untune() -> None:
    """Puts back what `tune` has put in place."""
    from pg8000 import core
    from pymysql.connections import Connection

    Connection._create_ssl_ctx = inspect.unwrap(Connection._create_ssl_ctx)
    core._make_socket = inspect.unwrap(core._make_socket)


def tune_all() -> None:
    """As the pools do it."""
    tune("pymysql")
    tune("pg8000.dbapi")


def _ways(database: str, is_mariadb: bool) -> list[tuple[str, str, dict[str, Any], bool | None]]:
    """Name, module, the arguments that are its own, and whether we tune it."""
    own, libpq = {"database": database}, {"dbname": database}
    if is_mariadb:
        return [
            ("PyMySQL", "pymysql", own, False),
            ("PyMySQL, tuned", "pymysql", own, True),
            ("PyMySQL, ssl_disabled", "pymysql", {**own, "ssl_disabled": True}, None),
            ("mysqlclient (blocks)", "MySQLdb", own, None),
        ]
    return [
        ("pg8000", "pg8000.dbapi", own, False),
        ("pg8000, tuned", "pg8000.dbapi", own, True),
        ("pg8000, ssl_context=False", "pg8000.dbapi", {**own, "ssl_context": False}, None),
        ("psycopg", "psycopg", libpq, None),
        ("psycopg2 with psycogreen", "psycopg2", libpq, None),
    ]


def variants_of(server: Any, is_mariadb: bool) -> list[Variant]:
    """All ways to connect to a server whose driver is installed."""
    common = {
        "host": server.host,
        "port": server.port,
        "user": server.user,
        "password": server.password,
    }
    variants = []
    for name, module, own, is_tuned in _ways(server.database, is_mariadb):
        try:
            connect = importlib.import_module(module).connect
        except ImportError:
            print(f"NOT MEASURED: {module} is not installed")
            continue
        variants.append(Variant(name, lambda c=connect, a={**common, **own}: c(**a), is_tuned))
    return variants


def prepare(variant: Variant) -> None:
    """Tunes or not, and makes the connect that pays for the first time."""
    untune()
    if variant.is_tuned:
        tune_all()
    variant.connect().close()


def measure_cpu(variant: Variant) -> None:
    """CPU seconds of each of 20 connects."""
    prepare(variant)
    for _ in range(CONNECTS):
        began = time.process_time()
        connection = variant.connect()
        variant.cpu.append(time.process_time() - began)
        connection.close()


def measure_stall(variant: Variant) -> None:
    """The longest time that nobody else could run during 20 connects."""
    prepare(variant)
    longest = 0.0

    def tick() -> None:
        nonlocal longest
        last = time.perf_counter()
        while True:
            gevent.sleep(TICK)
            now = time.perf_counter()
            longest = max(longest, now - last - TICK)
            last = now

    ticker = gevent.spawn(tick)
    gevent.sleep(5 * TICK)
    longest = 0.0
    for _ in range(CONNECTS):
        variant.connect().close()
        gevent.sleep(0)
    gevent.sleep(2 * TICK)
    ticker.kill()
    variant.stalls.append(longest)


def report(variants: list[Variant]) -> Table:
    """The unit is the tuned driver's."""
    unit = next(variant for variant in variants if variant.is_tuned)
    cpu_unit, stall_unit = statistics.median(unit.cpu), statistics.median(unit.stalls)
    rows = []
    for variant in variants:
        cpu, stall = statistics.median(variant.cpu), statistics.median(variant.stalls)
        rows.append(
            [
                variant.name,
                f"{cpu / cpu_unit:.2f}",
                f"{cpu * 1e3:.2f} ms",
                f"{stall / stall_unit:.2f}",
                f"{stall * 1e3:.2f} ms",
            ]
        )
    return Table(
        ["driver", "CPU per connect, ratio", "CPU per connect", "longest stall, ratio", "stall"],
        rows,
    )


def measure(scale: Scale, serve: Serve) -> list[Section]:
    """All drivers that are installed."""
    patch_psycopg()
    sections = []
    for name in SERVERS:
        variants = variants_of(serve(name), name == "mariadb")
        for _ in range(max(1, scale.rounds // 2)):
            for variant in variants:
                measure_cpu(variant)
            for variant in variants:
                measure_stall(variant)
            print(".", end="", file=sys.stderr, flush=True)
        sections.append(
            Section(
                f"What a connect costs the whole worker, {name}",
                f"CPU seconds of a connect, and the longest time that nobody else could run during "
                f"{CONNECTS} of them: medians, beside the tuned driver's.",
                tables=[report(variants)],
            )
        )
    tune_all()
    return sections


if __name__ == "__main__":
    main(measure)
