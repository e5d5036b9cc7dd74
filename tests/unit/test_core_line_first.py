"""What the pool borrows for its own purposes, before everybody in line."""

from __future__ import annotations

from typing import Any

import gevent
import pytest

from geventpool import ConnectionPool, PoolOverloaded
from geventpool.core.closing import close_retired
from geventpool.recorder import record
from geventpool.simulator import read_traces
from geventpool.testing import settle

SECONDS = 1.0


def go_first(pool: ConnectionPool) -> gevent.Greenlet:
    greenlet = gevent.spawn(pool.core.acquire_first, SECONDS)
    settle()
    return greenlet


def test_what_is_idle_is_lent_at_once_and_counts_as_nobodys_checkout(driver, clock) -> None:
    pool = ConnectionPool(driver.connect, clock=clock)
    pool.connection().close()
    entry = pool.core.acquire_first(SECONDS)
    assert entry is not None
    assert pool.stats().in_use == 1
    pool.core.release(entry, is_clean=True)
    stats = pool.stats()
    assert (stats.idle, stats.in_use, stats.checkouts, stats.waits) == (1, 0, 1, 1)


def test_what_comes_back_goes_to_it_before_all_who_are_in_line(driver, clock) -> None:
    pool = ConnectionPool(driver.connect, clock=clock, max_size=1)
    held = pool.connection()
    in_line = gevent.spawn(pool.connection)
    settle()
    first = go_first(pool)
    held.close()
    settle()
    assert first.dead
    assert not in_line.dead
    pool.core.release(first.value, is_clean=True)
    in_line.get(timeout=5).close()
    pool.core.ledger.check()
    assert len(driver.connections) == 1
    assert pool.stats().waits == 2, "it is no caller"


def test_it_gives_up_when_nothing_comes_back_and_at_once_when_nothing_can(driver, clock) -> None:
    pool = ConnectionPool(driver.connect, clock=clock, max_size=1)
    held = pool.connection()
    first = go_first(pool)
    assert not first.dead
    clock.advance(SECONDS)
    assert first.dead
    assert first.value is None
    assert not pool.core.line.callers
    entry: Any = held._entry
    pool.core.upkeep.retire(entry, "abandoned")
    assert pool.core.acquire_first(SECONDS) is None, "all that there is, is being closed"
    close_retired(pool.core, pool.core.upkeep.closed, entry)
    pool.close()
    assert pool.core.acquire_first(SECONDS) is None, "closed"


def test_where_there_is_room_one_is_opened_for_it_unless_the_pool_was_disposed_of(
    driver, clock
) -> None:
    pool = ConnectionPool(driver.connect, clock=clock, max_size=2)
    held = pool.connection()
    entry: Any = held._entry
    pool.core.upkeep.retire(entry, "abandoned")
    first = go_first(pool)
    assert len(driver.connections) == 2
    pool.core.release(first.value, is_clean=True)
    assert pool.stats().idle == 1
    pool.core.dispose()
    assert pool.core.acquire_first(SECONDS) is None
    assert len(driver.connections) == 2
    close_retired(pool.core, pool.core.upkeep.closed, entry)


def test_max_waiting_and_shedding_do_not_count_it(driver, clock) -> None:
    pool = ConnectionPool(driver.connect, clock=clock, max_size=1, max_waiting=1, shed_after=0.1)
    held = pool.connection()
    first = go_first(pool)
    clock.advance(0.5)  # longer than shed_after
    in_line = gevent.spawn(pool.connection)
    settle()
    assert not in_line.dead
    with pytest.raises(PoolOverloaded, match="1 callers"):
        pool.connection()
    clock.advance(0.05)  # the line itself has not stood for long
    held.close()
    settle()
    pool.core.release(first.value, is_clean=True)
    in_line.get(timeout=5).close()
    assert pool.stats().timeout_reasons == {"overloaded": 1}


def test_nobody_is_preferred_to_it_when_callers_are_about_to_be_killed(driver, clock) -> None:
    pool = ConnectionPool(driver.connect, clock=clock, max_size=1, timeout=None)
    held = pool.connection()
    for _ in range(20):  # callers of this pool are killed when they are 0.5 s old
        pool.core.line.patience.ended(0.5, clock.now())
    first = go_first(pool)
    clock.advance(0.5)
    young = gevent.spawn(pool.connection)
    settle()
    held.close()
    settle()
    assert first.dead
    assert not young.dead
    pool.core.release(first.value, is_clean=True)
    young.get(timeout=5).close()


@pytest.mark.parametrize("is_served", [False, True])
def test_a_kill_passes_on_what_it_was_served(driver, clock, is_served: bool) -> None:
    pool = ConnectionPool(driver.connect, clock=clock, max_size=1)
    held = pool.connection()
    first = go_first(pool)
    in_line = gevent.spawn(pool.connection)
    settle()
    gevent.get_hub().loop.run_callback(first.throw, gevent.GreenletExit)
    if is_served:
        held.close()  # before the kill arrives
    settle()
    assert first.dead
    held.close()
    in_line.get(timeout=5).close()
    pool.core.ledger.check()
    assert (pool.stats().idle, pool.stats().in_use) == (1, 0)


def test_who_drains_a_pool_is_told_when_it_gives_up(driver, clock) -> None:
    pool = ConnectionPool(driver.connect, clock=clock, max_size=1)
    held = pool.connection()
    first = go_first(pool)
    drained = gevent.spawn(pool.drain, 100)
    settle()
    first.kill()
    assert not drained.dead
    held.close()
    assert drained.get(timeout=5)


def test_nobody_is_told_of_it(driver, clock, tmp_path) -> None:
    pool = ConnectionPool(driver.connect, clock=clock, max_size=1)
    recorder = record(pool, str(tmp_path))
    held = pool.connection()
    for is_killed in (False, True):
        first = go_first(pool)
        clock.advance(0.1)
        if is_killed:  # when it is served, and has not had its turn
            gevent.get_hub().loop.run_callback(first.throw, gevent.GreenletExit)
        held.close()
        settle()
        if not is_killed:
            pool.core.release(first.get(timeout=5), is_clean=True, is_callers=False)
        held = pool.connection()
    held.close()
    recorder.stop()
    assert [round(row[1], 1) for trace in read_traces(str(tmp_path)) for row in trace] == [
        0.1,
        0.1,
        0.0,
    ]
    assert pool.stats().hold_seconds == pytest.approx(0.2)
