"""How often a transaction waits for the server: begin, select, commit, give back.

python -m benchmarks.round_trips
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.pool import NullPool, QueuePool

from geventpool.sqlalchemy import GeventPool
from tests.integration.wire import Wire

from .measure import Scale
from .result import Figure, Section, Table
from .run import Serve, main

POOLS: dict[str, dict[str, Any]] = {
    "GeventPool": {"poolclass": GeventPool},
    "GeventPool, pre-ping": {"poolclass": GeventPool, "pool_pre_ping": True},
    "QueuePool": {"poolclass": QueuePool},
    "QueuePool, pre-ping": {"poolclass": QueuePool, "pool_pre_ping": True},
    "NullPool": {"poolclass": NullPool},
}
DRIVERS = (("mariadb", "pymysql"), ("postgresql", "psycopg"), ("postgresql", "pg8000"))
TIMES = 5
WARM = 10  # psycopg prepares what it has seen five times


def measure(_scale: Scale, serve: Serve) -> list[Section]:
    """Counted by a proxy between the program and the server."""
    counts = {
        driver: {name: _count(serve(server), driver, pool) for name, pool in POOLS.items()}
        for server, driver in DRIVERS
    }
    figures = [
        Figure(f"{name}, PyMySQL", counts["pymysql"][name], target=2, stretch=2)
        for name in ("GeventPool", "GeventPool, pre-ping")
    ]
    rows = [[name, *(f"{counts[driver][name]:g}" for _, driver in DRIVERS)] for name in POOLS]
    return [
        Section(
            "Round trips of begin; select; commit; give back",
            f"The mean of {TIMES} transactions on a connection that is open; NullPool's include the "
            "connect. PyMySQL sends no BEGIN; psycopg and pg8000 send one before the first query, "
            "in a round trip of its own.",
            figures,
            [Table(["round trips", "PyMySQL", "psycopg", "pg8000"], rows)],
        )
    ]


def _count(server: Any, driver: str, pool: dict[str, Any]) -> float:
    with Wire(server.host, server.port) as wire:
        url = make_url(server.url(driver)).set(port=wire.port)
        engine = create_engine(url, **pool)
        query = text("select 1")
        for _ in range(WARM):
            with engine.begin() as connection:
                connection.execute(query)
        wire.reset()
        for _ in range(TIMES):
            with engine.begin() as connection:
                connection.execute(query)
        trips = wire.round_trips
        engine.dispose()
    return trips / TIMES


if __name__ == "__main__":
    main(measure)
