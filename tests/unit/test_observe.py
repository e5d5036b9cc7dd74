"""Observers of pools: holders, thresholds, call sites and figures, with a clock that obeys."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable
from typing import Any

import gevent
import pytest
from sqlalchemy import create_engine, text

import geventpool.observe
from geventpool import ConfigError, ConnectionPool
from geventpool.observe.holds import ACTIVE, IDLE, IN_TRANSACTION
from geventpool.sqlalchemy import GeventPool
from geventpool.testing import FakeClock, settle


def sqlite() -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:")
    connection.execute("create table t (a int, b text)")
    return connection


@pytest.fixture
def pool(clock: FakeClock) -> ConnectionPool:
    """A raw pool of real connections, whose driver knows of transactions."""
    return ConnectionPool(sqlite, clock=clock, max_size=2)


def rounded(value: Any) -> Any:
    return round(value, 3) if isinstance(value, float) else value


class Recorder:
    """A listener that writes down what it is told."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *arguments: self.calls.append((name, *arguments))


def test_a_listener_is_told_of_everything_that_happens_to_an_entry(driver, clock) -> None:
    driver.connect_time = 0.2
    pool = ConnectionPool(driver.connect, clock=clock, max_size=1)
    recorder: Any = Recorder()
    pool.core.add_listener(recorder)

    def use() -> None:
        entry = pool.core.acquire(5.0)
        clock.sleep(0.5)
        pool.core.release(entry, is_clean=True)

    for _ in range(2):
        gevent.spawn(use)
        clock.advance(0.3)
    clock.advance(2.0)
    pool.close()
    settle()
    [entry] = {call[1] for call in recorder.calls if call[0] == "lent"}
    told = [tuple(map(rounded, call)) for call in recorder.calls]
    assert told == [
        ("opened", entry, 0.2),
        ("waited", 0.2, "connecting"),
        ("lent", entry, 0.2),
        ("returned", entry, 0.5),
        ("waited", 0.4, "saturated"),
        ("lent", entry, 0.4),
        ("returned", entry, 0.5),
        ("closed", entry, "closed"),
    ]


def test_a_listener_is_told_why_a_caller_is_refused(driver, clock) -> None:
    pool = ConnectionPool(driver.connect, clock=clock, max_size=1, timeout=0, max_waiting=0)
    recorder: Any = Recorder()
    with gevent.Timeout(60):
        pool.warm_up()
        settle()
        entry = pool.core.acquire(0)
        pool.core.add_listener(recorder)
        for timeout in (0, 1):
            with pytest.raises(geventpool.PoolTimeout):
                pool.core.acquire(timeout)
        pool.core.discard(entry, "invalidated")
    names = [call for call in recorder.calls if call[0] == "refused"]
    assert names == [("refused", "saturated"), ("refused", "overloaded")]
    assert [call[0] for call in recorder.calls[-2:]] == ["returned", "closed"]


def test_a_holder_is_shown_with_its_state_and_its_call_site(pool, clock) -> None:
    observer = geventpool.observe.attach(pool)
    with pool.connection() as connection:
        clock.advance(1.0)
        [holder] = observer.holders()
        assert (holder.state, holder.held_for, holder.in_transaction_for) == (IDLE, 1.0, None)
        assert "test_observe.py" in holder.site
        connection.execute("insert into t values (1, 'x')")
        clock.advance(2.0)
        [holder] = observer.holders()
        assert (holder.state, holder.in_transaction_for, holder.idle_for) == (
            IN_TRANSACTION,
            2.0,
            2.0,
        )
        assert holder.query == "insert into t values (?, …)"
        assert holder.executed_at[-1][2] == holder.taken_at[-1][2]
        connection.commit()
        [holder] = observer.holders()
        assert (holder.state, holder.in_transaction_for) == (IDLE, None)
        clock.advance(1.0)
        connection.execute("insert into t values (2, 'x')")
        assert observer.holders()[0].in_transaction_for == 0.0  # of the second one
        connection.rollback()
    assert observer.holders() == []


def test_a_connection_in_a_query_is_active(driver, clock) -> None:
    driver.call_time = 1.0
    pool = ConnectionPool(driver.connect, clock=clock, reset_on_return=None)
    observer = geventpool.observe.attach(pool)

    def query() -> None:
        with pool.connection() as connection:
            cursor = connection.cursor()
            cursor.execute("select 'planted'")

    greenlet = gevent.spawn(query)
    clock.advance(1.5)
    [holder] = observer.holders()
    assert (holder.state, holder.query, holder.busy) == (ACTIVE, "select ?", 0.5)
    assert any(line[2] == "query" for line in holder.now_at)
    clock.advance(5.0)
    greenlet.join()
    assert observer.figures.query.total == 1.0


def test_a_query_whose_greenlet_is_killed_counts_as_an_error(driver, clock) -> None:
    driver.call_time = 1.0
    pool = ConnectionPool(driver.connect, clock=clock, reset_on_return=None)
    observer = geventpool.observe.attach(pool)

    def query() -> None:
        with pool.connection() as connection:
            connection.cursor().execute("select 1")

    greenlet = gevent.spawn(query)
    clock.advance(1.25)
    greenlet.kill()
    [told] = observer.queries.report()
    assert (told.calls, told.errors, told.total) == (1, 1, 0.25)
    assert observer.holders() == []


def test_idle_in_transaction_is_warned_of_once_and_told_when_it_ends(pool, clock, caplog) -> None:
    geventpool.observe.attach(pool, idle_in_transaction_after=5.0, held_after=None)
    with pool.connection() as connection:
        connection.execute("insert into t values (1, 'planted')")
        clock.advance(4.9)
        assert not caplog.records
        clock.advance(20.0)
        [record] = caplog.records
        said = record.getMessage()
        assert "idle in transaction" in said
        assert all(title in said for title in ("taken at", "last query sent at", "now at"))
        assert "test_observe.py" in said
        connection.rollback()
    settle()
    assert "returned after 24.9 s" in caplog.records[1].getMessage()
    assert len(caplog.records) == 2
    assert "planted" not in caplog.text


def test_work_in_a_transaction_is_not_idle(pool, clock, caplog) -> None:
    geventpool.observe.attach(pool, idle_in_transaction_after=5.0, held_after=None)
    with pool.connection() as connection:
        for number in range(10):
            connection.execute("insert into t values (?, 'x')", (number,))
            clock.advance(3.0)
        connection.commit()
    assert not caplog.records


def test_held_for_too_long_is_warned_of_also_without_a_transaction(pool, clock, caplog) -> None:
    geventpool.observe.attach(pool, held_after=10.0)
    with pool.connection():
        clock.advance(11.0)
    settle()
    said = [record.getMessage() for record in caplog.records]
    assert "held for too long" in said[0]
    assert "returned after 11 s" in said[1]


def test_kill_closes_the_connection_under_its_holder(pool, clock, caplog) -> None:
    geventpool.observe.attach(pool, idle_in_transaction_after=1.0, kill=True)
    with pool.connection() as connection:
        connection.execute("insert into t values (1, 'x')")
        clock.advance(2.0)
        assert "It is closed now." in caplog.text
        assert pool.stats().closed == {"killed": 1}
        with pytest.raises(sqlite3.ProgrammingError):
            connection.execute("select 1")
    stats = pool.stats()
    assert (stats.in_use, stats.size) == (0, 0)
    pool.core.ledger.check()


def test_a_greenlet_that_ends_with_a_connection_is_a_leak_with_its_line(
    driver, clock, caplog
) -> None:
    pool = ConnectionPool(driver.connect, clock=clock)
    observer = geventpool.observe.attach(pool)
    kept: list[Any] = []

    def leak() -> None:
        kept.append(pool.connection())

    gevent.spawn(leak).join()
    clock.advance(2.0)
    assert observer.warnings == {"leak": 1}
    assert "in leak" in observer.recent[0]["site"]
    leaks = [said for said in map(logging.LogRecord.getMessage, caplog.records) if ": leak" in said]
    assert len(leaks) == 1
    assert "in leak" in leaks[0]


def test_nothing_runs_while_nothing_is_lent(pool, clock) -> None:
    before = clock.pending
    geventpool.observe.attach(pool, held_after=1.0, idle_in_transaction_after=1.0)
    with pool.connection():
        pass
    clock.advance(100.0)
    assert clock.pending == before


def test_busy_against_held_finds_who_waits_with_a_connection_in_hand(driver, clock) -> None:
    driver.call_time = 0.5
    pool = ConnectionPool(driver.connect, clock=clock, reset_on_return=None)
    observer = geventpool.observe.attach(pool)

    def good() -> None:
        with pool.connection() as connection:
            connection.cursor().execute("select 1")

    def bad() -> None:
        with pool.connection() as connection:
            connection.cursor().execute("select 1")
            clock.sleep(9.0)

    for function in (good, bad):
        gevent.spawn(function)
        clock.advance(20.0)
    worst, best = observer.usage.report()
    assert "in bad" in worst.to_json()["site"]
    assert (worst.count, worst.held, worst.busy) == (1, 10.0, 0.5)
    assert (best.held, best.busy) == (1.0, 0.5)


def test_figures_agree_with_the_pools_own(driver, clock) -> None:
    driver.connect_time = 0.02
    pool = ConnectionPool(driver.connect, clock=clock, max_size=2)
    observer = geventpool.observe.attach(pool, figures_only=True)

    def use() -> None:
        with pool.connection():
            clock.sleep(0.1)

    for _ in range(10):
        gevent.spawn(use)
    clock.advance(10.0)
    stats, figures = pool.stats(), observer.figures
    assert sum(figures.acquire.counts) == stats.checkouts == 10
    assert figures.hold.total == pytest.approx(stats.hold_seconds)
    assert figures.acquire.total == pytest.approx(stats.wait_seconds)
    assert sum(figures.open.counts) == stats.opened
    assert not observer.watcher.holds


def test_figures_only_leaves_the_drivers_objects_as_they_are(pool) -> None:
    geventpool.observe.attach(pool, figures_only=True)
    with pool.connection() as connection:
        assert type(connection) is sqlite3.Connection


def test_a_watched_connection_passes_on_what_it_does_not_know(pool) -> None:
    geventpool.observe.attach(pool)
    with pool.connection() as connection:
        connection.row_factory = sqlite3.Row
        cursor = connection.cursor()
        assert cursor.execute("select 1 as one") is cursor
        assert cursor.fetchone()["one"] == 1
        assert [tuple(row) for row in cursor.execute("select 2")] == [(2,)]
        with connection:
            connection.execute("insert into t values (1, 'x')")
        assert connection.execute("select count(*) from t").fetchone()[0] == 1
        assert connection.in_transaction is False


def test_detached_nothing_is_left(pool, clock) -> None:
    observer = geventpool.observe.attach(pool)
    with pool.connection():
        observer.detach()
    assert pool.core.listener is None
    with pool.connection() as connection:
        assert type(connection) is sqlite3.Connection
    geventpool.observe.attach(pool)  # a second one may come now


@pytest.fixture
def engine() -> Any:
    engine = create_engine("sqlite://", poolclass=GeventPool, max_size=1)
    yield engine
    engine.dispose()


def test_an_engines_queries_are_seen_however_they_are_sent(engine) -> None:
    observer = geventpool.observe.attach(engine)
    with engine.begin() as connection:
        connection.execute(text("create table t (a int)"))
        connection.execute(text("insert into t values (:a)"), [{"a": 1}, {"a": 2}])
        connection.exec_driver_sql("select a from t")
    raw = engine.raw_connection()
    cursor = raw.cursor()
    cursor.execute("select 7")
    assert cursor.fetchone() == (7,)
    raw.close()
    told = {query.text: (query.calls, query.rows) for query in observer.queries.report()}
    assert told == {
        "create table t (a int)": (1, 0),
        "insert into t values (?)": (1, 2),
        "select a from t": (1, 0),
        "select ?": (1, 0),
    }


def test_a_failing_query_of_an_engine_is_counted(engine) -> None:
    observer = geventpool.observe.attach(engine)
    with engine.connect() as connection:
        with pytest.raises(Exception, match="no such table"):
            connection.execute(text("select * from nowhere"))
        assert observer.holders()[0].state == IDLE
    [told] = observer.queries.report()
    assert (told.calls, told.errors) == (1, 1)


def test_an_engine_that_is_disposed_of_stays_watched(engine) -> None:
    observer = geventpool.observe.attach(engine)
    engine.dispose()
    with engine.connect() as connection:
        connection.execute(text("select 1"))
        assert len(observer.holders()) == 1
    assert observer.queries.report()[0].calls == 1
    observer.detach()
    engine.dispose()
    with engine.connect() as connection:
        connection.execute(text("select 1"))
    assert engine.pool.core.listener is None
    assert observer.queries.report()[0].calls == 1


def test_two_engines_are_told_apart() -> None:
    engines = [create_engine("sqlite://", poolclass=GeventPool, max_size=1) for _ in range(2)]
    observers = [geventpool.observe.attach(engine) for engine in engines]
    with engines[0].connect() as connection:
        connection.execute(text("select 1"))
    assert [len(observer.queries.report()) for observer in observers] == [1, 0]
    for engine in engines:
        engine.dispose()


def test_what_the_log_says_by_level(driver, clock, caplog) -> None:
    caplog.set_level(logging.DEBUG, "geventpool.pool")
    pool = ConnectionPool(driver.connect, clock=clock)
    geventpool.observe.attach(pool)
    with pool.connection():
        pass
    pool.close()
    settle()
    said = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert [level for level, _ in said] == ["INFO", "DEBUG", "INFO"]
    for (_, message), part in zip(
        said, ("opened connection", "checked out", "closed"), strict=True
    ):
        assert part in message


@pytest.mark.parametrize(
    ("settings", "argument"),
    [
        ({"stacks": 2}, "stacks"),
        ({"stacks": "all"}, "stacks"),
        ({"held_after": 0}, "held_after"),
        ({"held_after": True}, "held_after"),
        ({"idle_in_transaction_after": -1}, "idle_in_transaction_after"),
        ({"kill": 1}, "kill"),
        ({"max_fingerprints": 0}, "max_fingerprints"),
        ({"nonsense": 1}, "nonsense"),
    ],
)
def test_a_wrong_setting_is_named(pool, settings, argument) -> None:
    with pytest.raises(ConfigError) as caught:
        geventpool.observe.attach(pool, **settings)
    assert caught.value.argument == argument
    assert pool.core.listener is None


def test_what_is_no_pool_of_ours_is_refused(pool) -> None:
    geventpool.observe.attach(pool)
    foreign = create_engine("sqlite://")
    for target in (pool, foreign, None):
        with pytest.raises(ConfigError, match="target"):
            geventpool.observe.attach(target)
