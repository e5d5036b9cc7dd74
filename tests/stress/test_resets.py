"""Random operations with rollbacks behind their callers: nobody finds a transaction of somebody else.

At each borrow the server itself is asked: `pg_stat_activity`, or InnoDB's list of transactions.
GEVENTPOOL_STRESS=1 makes 100,000 operations on each server.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import gevent
import pytest
from gevent.queue import Queue
from sqlalchemy import create_engine, event, text
from sqlalchemy.engine import Engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from geventpool.sqlalchemy import GeventPool

from ..integration.dbapi import innodb_transactions_of, open_connection, run, set_autocommit
from .server_side import IS_WHOLE, make_databases, new_random

OPERATIONS = 100_000 if IS_WHOLE else 600
GREENLETS = 8
MAX_SIZE = 4
ROWS = 50


def prepare(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("create table things (number int primary key, value int)"))
        for number in range(ROWS):
            connection.execute(text(f"insert into things values ({number}, 0)"))


@pytest.fixture(scope="module")
def url_of(request: pytest.FixtureRequest) -> Iterator[Callable[[str], str]]:
    yield from make_databases(request, "geventpool_resets", prepare)


class Ruler:
    """Asks the server at each borrow whether the connection is in a transaction."""

    def __init__(self, driver: str, url: str) -> None:
        self.is_mysql = driver == "pymysql"
        self.observers: Queue[Any] = Queue()
        self.found: list[str] = []
        self.looked = 0
        for _ in range(3):
            observer = open_connection(driver, url)
            set_autocommit(driver, observer, True)
            self.observers.put(observer)

    @contextmanager
    def observer(self) -> Iterator[Any]:
        observer = self.observers.get()
        try:
            yield observer
        finally:
            self.observers.put(observer)

    def borrowed(self, connection: Any, record: Any, _fairy: Any) -> None:
        # In a greenlet of its own: a borrower may be killed, and the observer is others', too.
        number = record.driver.server_id(connection)
        is_open = gevent.spawn(self.look, number).get()
        self.looked += 1
        if is_open:
            self.found.append(f"connection {number}: {is_open}")

    def look(self, number: int) -> Any:
        with self.observer() as observer:
            if self.is_mysql:
                return innodb_transactions_of(number, observer)
            return run(
                observer,
                f"select state, query from pg_stat_activity where pid = {number} and state <> 'idle'",
            )


class Kill(BaseException):
    """Neither an Exception nor anything that gevent knows."""


class Work:
    """What greenlets do with an engine."""

    def __init__(self, engine: Engine, chance: random.Random) -> None:
        self.engine = engine
        self.chance = chance
        nap = "sleep" if engine.dialect.name == "mysql" else "pg_sleep"
        self.nap = text(f"select {nap}(0.002)")

    def row(self) -> int:
        return self.chance.randrange(ROWS)

    def lock(self) -> Any:
        return text(f"select value from things where number = {self.row()} for update")

    def read(self) -> Any:
        return text(f"select value from things where number = {self.row()}")

    def write(self) -> Any:
        return text(f"update things set value = value + 1 where number = {self.row()}")

    def reads(self) -> None:
        with self.engine.connect() as connection:
            connection.execute(self.read()).all()

    def session(self) -> None:
        with Session(self.engine) as session:
            session.execute(self.read()).all()

    def locks(self) -> None:
        with self.engine.connect() as connection:
            connection.execute(self.lock()).all()

    def locks_its_own_row_twice(self) -> None:
        lock = text(f"{self.lock().text} nowait")
        for _ in range(2):
            with suppress(DBAPIError), self.engine.connect() as connection:
                connection.execute(lock).all()

    def leaves_an_update(self) -> None:
        with Session(self.engine) as session:
            session.execute(self.write())

    def commits(self) -> None:
        with self.engine.begin() as connection:
            connection.execute(self.write())

    def rolls_back(self) -> None:
        with self.engine.connect() as connection:
            connection.execute(self.write())
            connection.rollback()
            connection.execute(self.read()).all()

    def fails(self) -> None:
        with suppress(DBAPIError), self.engine.connect() as connection:
            connection.execute(self.write())
            connection.execute(text("select nothing from nowhere"))

    def drops(self) -> None:
        raw = self.engine.raw_connection()
        run(raw, self.write().text)
        del raw

    def raw(self) -> None:
        raw = self.engine.raw_connection()
        run(raw, self.write().text)
        raw.close()

    def is_killed(self) -> None:
        kind = self.chance.choice([Kill, gevent.GreenletExit])

        def work() -> None:
            with suppress(Kill), self.engine.connect() as connection:
                connection.execute(self.write())
                connection.execute(self.nap)

        victim = gevent.spawn(work)
        gevent.sleep(self.chance.random() * 0.01)
        victim.kill(kind)

    def __call__(self) -> None:
        kinds = [self.reads, self.session, self.locks, self.leaves_an_update, self.commits]
        rare = [self.rolls_back, self.fails, self.drops, self.raw, self.locks_its_own_row_twice]
        with suppress(DBAPIError):  # such as a deadlock of rows
            self.chance.choice([*kinds, *kinds, *rare, self.is_killed])()


@pytest.mark.parametrize("driver", ["pymysql", "psycopg", "psycopg2", "pg8000"])
def test_nobody_finds_a_transaction_of_somebody_else(driver: str, url_of) -> None:
    ruler = Ruler(driver, url_of(driver))
    engine = create_engine(
        url_of(driver), poolclass=GeventPool, max_size=MAX_SIZE, pool_reset_on_return="behind"
    )
    event.listen(engine, "checkout", ruler.borrowed)
    work = Work(engine, new_random())
    left, behind = OPERATIONS, 0

    def worker() -> None:
        nonlocal left, behind
        while left > 0 and not ruler.found:
            left -= 1
            work()
            behind += engine.pool.stats().resetting > 0

    began = time.monotonic()
    gevent.joinall([gevent.spawn(worker) for _ in range(GREENLETS)], raise_error=True)
    assert engine.pool.drain(30)
    print(f"{driver}: {ruler.looked} borrows in {time.monotonic() - began:.0f} s, {behind} behind")
    assert ruler.found == []
    assert ruler.looked > OPERATIONS / 2
    # How often depends on how busy the machine is.
    assert behind > 0, "the reset is behind its caller"
    stats = engine.pool.stats()
    assert (stats.in_use, stats.resetting, stats.waiting) == (0, 0, 0)
    engine.dispose()
    while not ruler.observers.empty():
        ruler.observers.get().close()
