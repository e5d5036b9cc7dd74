"""What kills cost those whom they do not hit: 200 greenlets on 10 connections, 25 kills a second.

python -m benchmarks.kills
"""

from __future__ import annotations

import random
import statistics
import time

import gevent
from psycogreen.gevent import patch_psycopg
from sqlalchemy import create_engine, text
from sqlalchemy.engine import Engine
from sqlalchemy.pool import QueuePool

from geventpool.sqlalchemy import GeventPool

from .measure import Scale, spread
from .result import Section, Table
from .run import Serve, main

GREENLETS, CONNECTIONS = 200, 10
KILLS_PER_SECOND = 25
NAP = 0.02
WARM = 1.0
SEED = 4711
OURS, THEIRS = "GeventPool", "QueuePool"
PLACES = (
    ("PyMySQL on MariaDB", "mariadb", "pymysql"),
    ("psycopg on PostgreSQL", "postgresql", "psycopg"),
    ("psycopg2 on PostgreSQL", "postgresql", "psycopg2"),
    ("pg8000 on PostgreSQL", "postgresql", "pg8000"),
)


class Crowd:
    """Greenlets that send one request after the other, some of which are killed in the middle.

    Attributes:
        done: requests that came to their end.
        killed: those that did not.
    """

    def __init__(self, engine: Engine, kills_per_second: float) -> None:
        self._engine = engine
        self._rate = kills_per_second
        self._nap = text(f"select {'sleep' if engine.name == 'mysql' else 'pg_sleep'}({NAP})")
        self._holders: set[gevent.Greenlet] = set()
        self._is_over = False
        self.done = self.killed = 0

    def run(self, seconds: float) -> float:
        """Requests a second that are done, while so many seconds go by."""
        workers = [gevent.spawn(self._work) for _ in range(GREENLETS)]
        while self.done < WARM * GREENLETS:  # all connections are open by then
            gevent.sleep(0.01)
        killer = gevent.spawn(self._kill)
        gevent.sleep(seconds / 4)
        before, began = self.done, time.perf_counter()
        gevent.sleep(seconds)
        rate = (self.done - before) / (time.perf_counter() - began)
        self._is_over = True
        gevent.joinall([*workers, killer], raise_error=True)
        return rate

    def _work(self) -> None:
        me = gevent.getcurrent()
        while not self._is_over:
            try:
                with self._engine.connect() as connection:
                    self._holders.add(me)
                    try:
                        connection.execute(self._nap)
                        connection.execute(text("select 1")).scalar_one()
                    finally:
                        self._holders.discard(me)
            except gevent.Timeout:
                self.killed += 1
            else:
                self.done += 1

    def _kill(self) -> None:
        """Kills holders, because a kill in line costs nobody else anything."""
        chance = random.Random(SEED)
        loop = gevent.get_hub().loop
        while self._rate and not self._is_over:
            gevent.sleep(chance.expovariate(self._rate))
            if self._holders:
                loop.run_callback(self._strike, chance.choice([*self._holders]))

    def _strike(self, victim: gevent.Greenlet) -> None:
        if victim in self._holders:
            victim.throw(gevent.Timeout())


def measure(scale: Scale, serve: Serve) -> list[Section]:
    """Every driver that can be killed in the middle of a query."""
    patch_psycopg()
    return [_section(scale, *place, serve) for place in PLACES]


def _section(scale: Scale, place: str, server: str, driver: str, serve: Serve) -> Section:
    url = serve(server).url(driver)
    goodputs: dict[str, list[float]] = {OURS: [], THEIRS: []}
    rates: dict[tuple[str, float], list[float]] = {}
    for turn in range(max(1, scale.rounds // 2)):
        for name in (OURS, THEIRS) if turn % 2 else (THEIRS, OURS):
            pair = []
            for kills in (0, KILLS_PER_SECOND):
                engine = _engine(url, name)
                pair.append(max(1.0, Crowd(engine, kills).run(2 * scale.busy_seconds)))
                engine.dispose()
                rates.setdefault((name, kills), []).append(pair[-1])
            goodputs[name].append(pair[1] / pair[0])
    least = 0.8 if driver == "pymysql" else None
    return Section(
        f"Goodput while {KILLS_PER_SECOND} requests a second are killed, {place}",
        f"Requests done a second with kills, divided by those without, by {GREENLETS} greenlets on "
        f"{CONNECTIONS} connections; a request naps for {NAP * 1e3:g} ms on the server. The kills hit "
        "holders. QueuePool leaves the killed queries at work, and has more connections meanwhile than "
        "its maximum; GeventPool ends them first.",
        [
            spread(f"{name}, with kills / without", found, target, is_least=True)
            for (name, found), target in zip(goodputs.items(), (least, None), strict=True)
        ],
        [
            Table(
                ["requests a second", "kills a second", "median"],
                [
                    [name, f"{kills:g}", f"{statistics.median(found):.0f}"]
                    for (name, kills), found in sorted(rates.items())
                ],
            )
        ],
    )


def _engine(url: str, name: str) -> Engine:
    if name == OURS:
        return create_engine(url, poolclass=GeventPool, max_size=CONNECTIONS)
    return create_engine(url, poolclass=QueuePool, pool_size=CONNECTIONS, max_overflow=0)


if __name__ == "__main__":
    main(measure)
