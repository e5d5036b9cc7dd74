"""How often a request waits for the server before it goes on: counted on the wire.

python -m benchmarks.round_trips
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gevent
from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from psycogreen.gevent import patch_psycopg
from sqlalchemy import create_engine, text
from sqlalchemy.engine import Engine, make_url
from sqlalchemy.orm import Session
from sqlalchemy.pool import QueuePool

from geventpool.sqlalchemy import GeventPool
from tests.integration.wire import Wire

from .measure import Scale
from .result import Figure, Section, Table
from .run import Serve, main

OURS, BEHIND = "GeventPool", "GeventPool, behind"
POOLS: dict[str, dict[str, Any]] = {
    OURS: {"poolclass": GeventPool},
    BEHIND: {"poolclass": GeventPool, "pool_reset_on_return": "behind"},
    f"{BEHIND}, pre-ping": {
        "poolclass": GeventPool,
        "pool_reset_on_return": "behind",
        "pool_pre_ping": True,
    },
    "QueuePool": {"poolclass": QueuePool},
    "QueuePool, pre-ping": {"poolclass": QueuePool, "pool_pre_ping": True},
}
DRIVERS = (
    ("mariadb", "pymysql", "PyMySQL"),
    ("postgresql", "psycopg", "psycopg"),
    ("postgresql", "psycopg2", "psycopg2"),
    ("postgresql", "pg8000", "pg8000"),
)
DJANGO = ("pymysql", "psycopg", "psycopg2")
TIMES = 10
WARM = 10  # psycopg prepares what it has seen five times
LEAST = {"PyMySQL": (1, 2), "psycopg": (2, 3), "psycopg2": (2, 3), "pg8000": (2, 5)}
"""What the driver's own BEGIN leaves of a request: one that only reads, and one that commits."""

READS, WRITES, ORM, FLASK = "only reads", "writes and commits", "ORM session", "Flask view"
QUERY = text("select count(*) from trips")
INSERT = text("insert into trips values (1)")
ROOT = Path(__file__).parents[1]


def measure(_scale: Scale, serve: Serve) -> list[Section]:
    """Counted by a proxy between the program and the server."""
    patch_psycopg()
    counts = {
        name: {pool: _count_all(serve(server), driver, more) for pool, more in POOLS.items()}
        for server, driver, name in DRIVERS
    }
    figures = [
        Figure(f"{name}, behind, {what}", counts[name][BEHIND][kind], target=most, stretch=most)
        for name, least in LEAST.items()
        for kind, what, most in ((READS, READS, least[0]), (WRITES, WRITES, least[1]))
    ]
    rows = [
        [name, pool, *(f"{found[kind]:g}" for kind in (READS, WRITES, ORM, FLASK))]
        for name, pools in counts.items()
        for pool, found in pools.items()
    ]
    return [
        Section(
            "Round trips that a request waits for",
            f"The mean of {TIMES} requests on a connection that is open: answers of the server that "
            "have come when the request is over. A request that only reads is closed without a "
            "commit. PyMySQL sends no BEGIN; the others send one before the first query, in a round "
            "trip of its own, and pg8000 three for a rollback or a commit.",
            figures,
            [
                Table(["driver", "pool", READS, WRITES, ORM, FLASK], rows),
                Table(["Django", "backend", "autocommit", "atomic"], _django(serve)),
            ],
        )
    ]


def _count_all(server: Any, driver: str, more: dict[str, Any]) -> dict[str, float]:
    with Wire(server.host, server.port) as wire:
        url = make_url(server.url(driver)).set(port=wire.port)
        engine = create_engine(url, **more)
        with engine.begin() as connection:
            connection.execute(text("drop table if exists trips"))
            connection.execute(text("create table trips (number int)"))
        counts = {
            kind: count(wire, request) for kind, request in _requests(engine, url, more).items()
        }
        engine.dispose()
    return counts


def _requests(engine: Engine, url: Any, more: dict[str, Any]) -> dict[str, Callable[[], Any]]:
    def reads() -> None:
        with engine.connect() as connection:
            connection.execute(QUERY).all()

    def writes() -> None:
        with engine.begin() as connection:
            connection.execute(INSERT)

    def orm() -> None:
        with Session(engine) as session:
            session.execute(QUERY).all()

    app = Flask(__name__)
    app.config["SQLALCHEMY_DATABASE_URI"] = url
    app.config["SQLALCHEMY_ENGINE_OPTIONS"] = more
    database = SQLAlchemy(app)
    app.add_url_rule("/", "one", lambda: str(database.session.execute(QUERY).scalar()))
    client = app.test_client()
    return {READS: reads, WRITES: writes, ORM: orm, FLASK: lambda: client.get("/")}


def count(wire: Wire, request: Callable[[], object]) -> float:
    """How many answers a request waits for, as the mean of some. Switches greenlets."""
    for _ in range(WARM):
        request()
    waited = 0
    for _ in range(TIMES):
        _settle(wire)
        wire.reset()
        request()
        waited += wire.answers
    _settle(wire)
    return waited / TIMES


def _settle(wire: Wire) -> None:
    """Waits until everything that was asked is answered, also what nobody waits for."""
    gevent.sleep(0.02)
    while wire.answers < wire.round_trips:
        gevent.sleep(0.005)


def _django(serve: Serve) -> list[list[str]]:
    """Each in a process of its own, because Django has one set of settings in each."""
    rows = []
    for driver in DJANGO:
        server = serve("mariadb" if driver == "pymysql" else "postgresql")
        command = [sys.executable, "-m", "benchmarks.django.trips", driver, server.url(driver)]
        told = subprocess.run(
            command, cwd=ROOT, env=os.environ, capture_output=True, check=True, timeout=120
        )
        found: dict[str, dict[str, float]] = json.loads(told.stdout)
        rows += [
            [driver, name, f"{one['autocommit']:g}", f"{one['atomic']:g}"]
            for name, one in found.items()
        ]
    return rows


if __name__ == "__main__":
    main(measure)
