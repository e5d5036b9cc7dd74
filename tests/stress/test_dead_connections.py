"""Idle connections are killed while 100 greenlets keep the hub from its turns; who borrows one afterwards?

A process of its own kills, and notes when each connection is gone from the server. Whoever borrowed it
before that was in mid-query, and fails with any pool; whoever borrowed it later was lent a dead one.

In its short form 30 are killed for each driver; with GEVENTPOOL_STRESS=1 it is 300.
"""

from __future__ import annotations

import random
import struct
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import gevent
import pytest
from gevent import subprocess
from sqlalchemy import create_engine, text
from sqlalchemy.engine import Engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import QueuePool

from geventpool.sqlalchemy import GeventPool

from ..integration.dbapi import ALL, MYSQL, module_of
from .server_side import IS_WHOLE, make_databases, new_random

ROUNDS = 300 if IS_WHOLE else 30
GREENLETS, CONNECTIONS = 100, 10
COMPUTES = 0.001
ASKS_ONCE_IN = 30
LONGEST = 600 if IS_WHOLE else 90

KILLER = """
import random, sys, time
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

url, seed, rounds = sys.argv[1:]
numbers = random.Random(seed)
engine = create_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
is_mysql = engine.dialect.name == "mysql"
if is_mysql:
    everybody = "select id from information_schema.processlist"
    idle = everybody + " where db = database() and command = 'Sleep'"
    kill = "kill {}"
else:
    everybody = "select pid from pg_stat_activity"
    idle = everybody + " where datname = current_database() and state = 'idle'"
    kill = "select pg_terminate_backend({})"
with engine.connect() as connection:
    def ids(query):
        return list(connection.execute(text(query)).scalars())

    seen = {}

    def settled():
        # Not those that are just being opened: these are not idle, for all that the server says.
        now = time.monotonic()
        return [one for one in ids(idle) if now - seen.setdefault(one, now) > 1]

    for _ in range(int(rounds)):
        victims = settled()
        while not victims:
            time.sleep(0.01)
            victims = settled()
        victim = numbers.choice(victims)
        try:
            connection.execute(text(kill.format(victim)))
        except Exception:
            continue  # it has ended by itself
        while victim in ids(everybody):
            pass
        print(victim, time.monotonic(), flush=True)
        time.sleep(numbers.uniform(0, 0.05))
"""


@pytest.fixture(scope="module")
def url_of(request: pytest.FixtureRequest) -> Iterator[Callable[[str], str]]:
    yield from make_databases(request, "geventpool_dead", lambda engine: None)


def number_of(name: str, connection: Any) -> int:
    """The server's number of a connection, without asking the server."""
    if name in MYSQL:
        return int(connection.thread_id())
    if name == "pg8000":
        return int(struct.unpack_from("!i", connection._backend_key_data)[0])
    return int(connection.info.backend_pid)


@dataclass
class Busy:
    """Greenlets that compute all the time, and ask now and then.

    Attributes:
        asked: questions that were answered.
        failed: the server's number of the connection, and when it was asked for, of those that failed.
            Not when it was there: the process may have lost its core between the pool's look and that.
    """

    name: str
    engine: Engine
    asked: int = 0
    failed: list[tuple[int, float]] = field(default_factory=list)
    goes_on: bool = True

    def work(self, seed: int) -> None:
        numbers = random.Random(seed)
        while self.goes_on:
            until = time.perf_counter() + COMPUTES
            while time.perf_counter() < until:
                pass
            if numbers.randrange(ASKS_ONCE_IN) == 0:
                self.ask()
            gevent.sleep(0)

    def ask(self) -> None:
        number, asked = 0, time.monotonic()
        try:
            with self.engine.connect() as connection:
                number = number_of(self.name, connection.connection.dbapi_connection)
                assert connection.execute(text(f"select {number}")).scalar_one() == number
            self.asked += 1
        except (DBAPIError, OSError):  # pg8000's own errors come as they are
            if number:  # else it was killed while it was being opened
                self.failed.append((number, asked))


def lent_dead(name: str, url: str, kind: type[Any]) -> tuple[int, int]:
    """How many were lent dead, and how many died in mid-query."""
    engine = create_engine(
        url,
        poolclass=kind,
        pool_size=CONNECTIONS,
        max_overflow=0,
        **({"min_idle": CONNECTIONS} if kind is GeventPool else {}),
    )
    for connection in [engine.connect() for _ in range(CONNECTIONS)]:
        connection.close()
    busy = Busy(name, engine)
    workers = [gevent.spawn(busy.work, seed) for seed in range(GREENLETS)]
    seed = str(new_random().random())
    arguments = [sys.executable, "-c", KILLER, url, seed, str(ROUNDS)]
    told = subprocess.run(arguments, stdout=subprocess.PIPE, timeout=LONGEST, check=True).stdout
    busy.goes_on = False
    gevent.joinall(workers, timeout=30, raise_error=True)
    engine.dispose()
    died = {int(number): float(at) for number, at in map(bytes.split, told.splitlines())}
    dead = [number for number, asked in busy.failed if died.get(number, 1e18) < asked]
    print(
        f"{kind.__name__}: {len(died)} killed, {busy.asked} answered, {len(dead)} lent dead, "
        f"{len(busy.failed) - len(dead)} died in mid-query"
    )
    assert len(died) > ROUNDS / 2
    return len(dead), len(busy.failed) - len(dead)


@pytest.mark.parametrize("name", ALL)
def test_no_connection_is_lent_after_it_was_killed_however_busy_the_hub_is(
    url_of: Callable[[str], str], name: str
) -> None:
    module_of(name)
    dead, _ = lent_dead(name, url_of(name.lower()), GeventPool)
    assert dead == 0


@pytest.mark.parametrize("name", ["pymysql", "psycopg"])
def test_queue_pool_lends_some_of_them(url_of: Callable[[str], str], name: str) -> None:
    dead, _ = lent_dead(name, url_of(name), QueuePool)
    assert dead > 0
