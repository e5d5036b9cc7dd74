"""Load through PgBouncer, which gives transactions, is killed and restarted; callers are killed, too.

No answer is wrong, what was committed is there once, and errors meet only those who ask while PgBouncer is
down.
"""

from __future__ import annotations

import bisect
import contextlib
import itertools
import os
import random
import time
from dataclasses import dataclass, field
from typing import Any

import gevent
import pytest

from geventpool import ConnectionPool
from tests.integration.dbapi import (
    POSTGRESQL,
    eventually,
    module_of,
    open_connection,
    run,
    set_autocommit,
)
from tools.proxies import PgBouncer

IS_WHOLE = bool(os.environ.get("GEVENTPOOL_STRESS"))
SECONDS = float(os.environ.get("GEVENTPOOL_PGBOUNCER_SECONDS", "30" if IS_WHOLE else "4"))
WORKERS, CLIENTS, SESSIONS = 20, 10, 4


@dataclass
class Load:
    """Requests all the time, and how each one ended.

    Attributes:
        name: the DBAPI's.
        url: PgBouncer's.
        seed: of all that is random.
        committed: what the database has said it keeps.
        failed: when each request with an error began and ended, and the error.
        downs: when PgBouncer was gone, and when it was back.
        opened: when connects have succeeded.
        killed: callers.
    """

    name: str
    url: str
    seed: int
    committed: list[int] = field(default_factory=list)
    failed: list[tuple[float, float, Exception]] = field(default_factory=list)
    downs: list[tuple[float, float]] = field(default_factory=list)
    opened: list[float] = field(default_factory=list)
    killed: int = 0

    def __post_init__(self) -> None:
        self.pool = ConnectionPool(self.connect, max_size=CLIENTS)
        self.random = random.Random(self.seed)
        self.numbers = itertools.count(1)
        self.workers = [gevent.spawn(self.work) for _ in range(WORKERS)]

    def connect(self) -> Any:
        connection = open_connection(self.name, self.url)
        self.opened.append(time.monotonic())
        return connection

    def work(self) -> None:
        while True:
            began = time.monotonic()
            try:
                self.request()
            except module_of(self.name).Error as error:
                self.failed.append((began, time.monotonic(), error))
            except OSError as error:  # pg8000 leaves those of its socket as they are
                self.failed.append((began, time.monotonic(), error))
            gevent.sleep(self.random.random() * 0.01)

    def request(self) -> None:
        number = next(self.numbers)
        with self.pool.connection() as connection:
            cursor = connection.cursor()
            cursor.execute("select txid_current(), %s + 0, pg_sleep(%s)", (number, self.pause()))
            transaction, echo, _ = cursor.fetchone()
            assert echo == number, "another one's answer"
            cursor.execute("insert into bounced values (%s) returning txid_current()", (number,))
            assert cursor.fetchone()[0] == transaction, "two transactions"
            connection.commit()
        self.committed.append(number)

    def pause(self) -> float:
        """Most are short; some last until they are killed, in most cases."""
        return 0.3 if self.random.random() < 0.05 else self.random.random() * 0.01

    def kill_one(self) -> None:
        place = self.random.randrange(WORKERS)
        self.workers[place].kill()
        self.workers[place] = gevent.spawn(self.work)
        self.killed += 1

    def bring_down(self, bouncer: PgBouncer) -> None:
        began = time.monotonic()
        if self.random.random() < 0.5:
            bouncer.kill()
            gevent.sleep(self.random.random() * 0.5)
            bouncer.start()
        else:
            bouncer.restart()
        self.downs.append((began, time.monotonic()))

    def stop(self) -> None:
        for worker in self.workers:
            assert worker.exception is None
        gevent.killall(self.workers)

    def without_outages(self) -> list[tuple[float, float, Exception]]:
        """Errors of requests of which no part was while PgBouncer was down."""
        return [
            (began, ended, error)
            for began, ended, error in self.failed
            if not any(began <= up and ended >= down for down, up in self.downs)
        ]

    def longest_return(self) -> float:
        """Seconds from PgBouncer's return to the pool's next connect."""
        firsts = [bisect.bisect_left(self.opened, up) for _, up in self.downs]
        return max(
            self.opened[first] - up for first, (_, up) in zip(firsts, self.downs, strict=True)
        )


@pytest.mark.parametrize("name", POSTGRESQL if IS_WHOLE else ["psycopg"])
def test_restarts_of_a_transaction_pooler_cost_no_answer_and_errors_only_meanwhile(
    postgresql: Any, pgbouncer_program: None, name: str
) -> None:
    with (
        contextlib.closing(open_connection("psycopg", postgresql.url("psycopg"))) as observer,
        PgBouncer(postgresql, pool_mode="transaction", default_pool_size=SESSIONS) as bouncer,
    ):
        set_autocommit("psycopg", observer, True)
        run(observer, "drop table if exists bounced")
        run(observer, "create table bounced (number integer)")
        load = Load(name, bouncer.url(name), seed=random.randrange(10**6))
        pool = load.pool
        ends_at = time.monotonic() + SECONDS
        while time.monotonic() < ends_at:
            for _ in range(10 if IS_WHOLE else 5):
                gevent.sleep(load.random.random() * 0.2)
                load.kill_one()
            load.bring_down(bouncer)
        before = len(load.committed)
        assert eventually(lambda: len(load.committed) > before + WORKERS), "it goes on"
        load.stop()
        figures = (
            f"{name}, seed {load.seed}, {SECONDS:g} s: {len(load.committed)} commits, {load.killed} "
            f"callers killed, {len(load.downs)} restarts, {len(load.failed)} errors, of which "
            f"{len(load.without_outages())} when it was up; the next connect up to "
            f"{load.longest_return():.2f} s later; {pool.stats().cancelled} queries cancelled"
        )
        print(figures)
        assert load.without_outages() == [], figures
        kept = [number for (number,) in run(observer, "select number from bounced")]
        assert len(kept) == len(set(kept)), figures
        assert not set(load.committed) - set(kept), figures
        active = "select count(*) from pg_stat_activity where query like '%pg_sleep%' and state = 'active'"
        assert eventually(lambda: run(observer, active + " and pid <> pg_backend_pid()") == [(0,)])
        assert eventually(lambda: pool.stats().in_use == pool.stats().closing == 0)
        pool.close()
        run(observer, "drop table bounced")
