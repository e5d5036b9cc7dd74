"""`pool.connect().close()` with pre-ping on both sides, against real servers.

python -m benchmarks.pre_ping
"""

from __future__ import annotations

import time

from sqlalchemy import create_engine
from sqlalchemy.pool import QueuePool

from geventpool.sqlalchemy import GeventPool

from .fakes import OURS
from .measure import Scale, interleave, ratio, statement
from .result import Section
from .run import Serve, main

THEIRS = "QueuePool"


def measure(scale: Scale, serve: Serve) -> list[Section]:
    """With PyMySQL on MariaDB and psycopg on PostgreSQL."""
    return [
        _compare(scale, "PyMySQL on MariaDB", serve("mariadb").url("pymysql")),
        _compare(scale, "psycopg on PostgreSQL", serve("postgresql").url("psycopg")),
    ]


def _compare(scale: Scale, place: str, url: str) -> Section:
    engines = {
        name: create_engine(url, poolclass=kind, pool_pre_ping=True)
        for name, kind in ((OURS, GeventPool), (THEIRS, QueuePool))
    }
    for engine in engines.values():
        engine.connect().close()  # the dialect asks its first questions
    samples = {
        name: statement("connect().close()", time.perf_counter, connect=engine.pool.connect)
        for name, engine in engines.items()
    }
    times = interleave(samples, scale.rounds, scale.seconds)
    pings = engines[OURS].pool.stats().pings  # type: ignore[attr-defined]
    for engine in engines.values():
        engine.dispose()
    return Section(
        f"One checkout with pre-ping, {place}",
        "Elapsed time. GeventPool looks at the socket at each checkout and asks the server only about "
        f"what was idle for more than a second; here it asked {pings} times.",
        [ratio(times, OURS, THEIRS, 0.05, 0.02)],
    )


if __name__ == "__main__":
    main(measure)
