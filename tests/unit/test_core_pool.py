"""The core pool by the rules of docs/design.md, on a fake clock and a fake driver."""

from __future__ import annotations

import dataclasses
import gc
import json
import math
import sys
from collections.abc import Callable
from typing import Any

import gevent
import pytest
from gevent import get_hub, getcurrent

from benchmarks.fakes import Silent
from geventpool import ConnectionPool, PoolClosed, PoolTimeout
from geventpool.sizing import fixed
from geventpool.testing import FakeClock, FakeDriver, settle


class Kill(BaseException):
    """Neither an Exception nor anything that gevent knows."""


@pytest.fixture
def make(clock: FakeClock, driver: FakeDriver) -> Callable[..., ConnectionPool]:
    def make(**settings: Any) -> ConnectionPool:
        settings.setdefault("sizing", fixed(idle_timeout=10))
        return ConnectionPool(driver.connect, clock=clock, **settings)

    return make


def borrow(pool: ConnectionPool, times: int = 1) -> list[Any]:
    return [pool.connection() for _ in range(times)]


def check(pool: ConnectionPool) -> None:
    pool.core.ledger.check()
    stats = pool.stats()
    assert stats.idle + stats.in_use + stats.opening + stats.closing == stats.size <= stats.max_size


def switches_of(call: Callable[[], object]) -> int:
    """How often the hub got a turn while `call` ran."""
    turns = []
    callback = get_hub().loop.run_callback(turns.append, 1)
    call()
    callback.stop()
    return len(turns)


def test_a_sequential_client_never_opens_a_second_connection(make, driver) -> None:
    pool = make()
    for _ in range(10_000):
        with pool.connection():
            pass
    assert driver.attempts == 1
    assert pool.stats().checkouts == 10_000


def test_a_warm_checkout_and_its_return_never_switch(make) -> None:
    pool = make(reset_on_return=None)
    pool.connection().close()
    assert switches_of(lambda: pool.connection().close()) == 0


def test_the_connection_returned_last_is_lent_first(make) -> None:
    pool = make()
    first, second = borrow(pool, 2)
    first.close()
    second.close()
    assert pool.connection().connection is second.connection


def test_fifo_on_request_lends_the_connection_returned_first(make) -> None:
    pool = make(use_lifo=False)
    first, second = borrow(pool, 2)
    first.close()
    second.close()
    assert pool.connection().connection is first.connection


def test_waiters_are_served_in_order_and_newcomers_queue_behind_them(make) -> None:
    pool = make(max_size=1)
    held = pool.connection()
    served: list[int] = []

    def client(number: int) -> None:
        connection = pool.connection()
        served.append(number)
        connection.close()

    greenlets = [gevent.spawn(client, number) for number in range(5)]
    settle()
    held.close()  # handed to 0 although this greenlet goes on and asks again at once
    again = pool.connection()
    served.append(99)
    again.close()
    gevent.joinall(greenlets)
    assert served == [0, 1, 2, 3, 4, 99]


def test_a_timeout_says_all_the_figures_and_leaves_the_line(make, clock) -> None:
    pool = make(max_size=1, timeout=3)
    held = borrow(pool)
    waiter = gevent.spawn(pool.connection)
    settle()
    clock.advance(2.9)
    assert not waiter.dead
    clock.advance(0.2)
    with pytest.raises(PoolTimeout, match=r"max 1, idle 0, in use 1, opening 0, waiting 0"):
        waiter.get()
    assert pool.stats().timeouts == 1
    assert held


def test_one_deadline_covers_the_wait_and_the_connect(make, driver, clock) -> None:
    driver.connect_time = 5
    pool = make(timeout=2)
    waiter = gevent.spawn(pool.connection)
    clock.advance(2.1)
    with pytest.raises(PoolTimeout):
        waiter.get()
    clock.advance(3)
    assert pool.stats().idle == 1, "the connect outlives its caller and joins the pool"


def test_timeout_zero_never_switches_and_opens_for_the_next(make, driver) -> None:
    pool = make(max_size=1, reset_on_return=None)

    def refused() -> None:
        with pytest.raises(PoolTimeout):
            pool.connection(timeout=0)

    assert switches_of(refused) == 0
    settle()
    held = pool.connection(timeout=0)
    assert switches_of(refused) == 0
    held.close()
    assert driver.attempts == 1


def test_a_connect_outlives_a_killed_caller(make, driver, clock) -> None:
    driver.connect_time = 1
    pool = make()
    caller = gevent.spawn(pool.connection)
    clock.advance(0.5)
    caller.kill()
    clock.advance(1)
    stats = pool.stats()
    assert (stats.idle, stats.opened, stats.waiting) == (1, 1, 0)


@pytest.mark.parametrize("error", [gevent.GreenletExit, gevent.Timeout, Kill])
def test_a_killed_waiter_leaves_the_line(make, error) -> None:
    pool = make(max_size=1)
    held = pool.connection()
    victim, next_one = gevent.spawn(pool.connection), gevent.spawn(pool.connection)
    settle()
    victim.kill(error())
    assert isinstance(victim.exception or victim.value, error), "the kill comes out as itself"
    held.close()
    assert next_one.get().connection is held.connection
    check(pool)


@pytest.mark.parametrize("error", [gevent.GreenletExit, gevent.Timeout, Kill])
def test_a_waiter_killed_after_it_was_served_passes_the_connection_on(make, error) -> None:
    pool = make(max_size=1)
    held = pool.connection()
    victim, next_one = gevent.spawn(pool.connection), gevent.spawn(pool.connection)
    settle()
    victim.kill(error(), block=False)
    held.close()  # serves the victim, whose kill is on its way
    settle()
    assert isinstance(victim.exception or victim.value, error)
    assert next_one.get().connection is held.connection
    check(pool)


def test_a_stale_wake_up_does_not_disturb_the_next_wait_of_a_killed_greenlet(make, clock) -> None:
    pool = make(max_size=1)
    held = pool.connection()
    done = []

    def victim() -> None:
        try:
            pool.connection()
        except gevent.GreenletExit:
            clock.sleep(10)
            done.append(clock.now())

    greenlet = gevent.spawn(victim)
    settle()
    start = clock.now()
    gevent.get_hub().loop.run_callback(greenlet.throw, gevent.GreenletExit)
    held.close()
    settle()
    assert not done
    clock.advance(10)
    assert done == [start + 10]


def test_an_open_that_fails_is_told_to_its_caller_and_frees_the_place(make, driver) -> None:
    driver.is_down = True
    pool = make(max_size=1)
    with pytest.raises(driver.Error, match="down"):
        pool.connection()
    driver.is_down = False
    with pool.connection():
        check(pool)
    assert pool.stats().open_errors == 1


def test_while_the_server_is_down_callers_share_one_attempt(make, driver, clock) -> None:
    driver.is_down, driver.connect_time = True, 1
    pool = make()
    callers = [gevent.spawn(pool.connection) for _ in range(50)]
    clock.advance(1.1)
    assert {type(caller.exception) for caller in callers} == {driver.OperationalError}
    assert driver.attempts == 1
    assert len({id(caller.exception) for caller in callers}) == 50


def test_a_failed_open_does_not_fail_those_whom_a_return_can_serve(make, driver, clock) -> None:
    pool = make(max_size=3)
    held = pool.connection()
    driver.is_down = True
    callers = [gevent.spawn(pool.connection) for _ in range(3)]
    settle()
    clock.advance(0.01)
    held.close()
    settle()
    served = [caller for caller in callers if caller.successful()]
    assert len(served) == 1
    check(pool)


def opening_each_second(pool, clock, callers: int) -> list[int]:
    """How many opens are in flight at the begin of each second, while so many callers wait."""
    greenlets = [gevent.spawn(pool.connection) for _ in range(callers)]
    in_flight = []
    for _ in range(5):
        settle()
        in_flight.append(pool.stats().opening)
        clock.advance(1)
    assert all(greenlet.successful() for greenlet in greenlets)
    return in_flight


def test_once_a_server_has_answered_all_who_have_waited_for_as_long_as_an_open_takes_are_served(
    make, driver, clock
) -> None:
    driver.connect_time = 1
    pool = make(max_size=50, timeout=None)
    assert opening_each_second(pool, clock, 30) == [1, 29, 0, 0, 0], "two connects at the longest"
    assert driver.attempts == 30


def test_a_server_that_comes_back_is_opened_to_by_and_by(make, driver, clock) -> None:
    driver.connect_time, driver.is_down = 1, True
    pool = make(max_size=50, timeout=None)
    refused = gevent.spawn(pool.connection)
    clock.advance(2)
    assert isinstance(refused.exception, driver.Error)
    assert pool.core.upkeep.pace.ramp == 1
    driver.is_down = False
    assert opening_each_second(pool, clock, 30)[:4] == [1, 2, 27, 0], "three successes are proof"


def test_warm_connections_that_come_back_spare_the_connects(make, driver, clock) -> None:
    driver.connect_time = 0.150
    pool = make(max_size=50, sizing="adaptive", reset_on_return=None, reclaim_after=None)
    warm = [gevent.spawn(pool.connection) for _ in range(5)]
    clock.advance(5)
    for greenlet in warm:
        greenlet.get().close()
    opened_before = driver.attempts

    def client() -> None:
        with pool.connection():
            clock.sleep(0.002)

    start = clock.now()
    ends: list[float] = []
    for _ in range(50):
        gevent.spawn(client).link(lambda _: ends.append(clock.now()))
    for _ in range(100):
        clock.advance(0.001)
    assert len(ends) == 50
    assert max(ends) - start < 0.030
    assert driver.attempts <= opened_before + 1


def test_the_pool_shrinks_to_min_idle_by_itself_and_then_sets_no_timer(make, driver, clock) -> None:
    pool = make(min_idle=2)
    for connection in borrow(pool, 10):
        connection.close()
    clock.advance(1000)
    stats = pool.stats()
    assert (stats.idle, stats.size, dict(stats.closed)) == (2, 2, {"idle": 8})
    assert len(driver.open_connections) == 2
    assert clock.pending == 0


def test_min_idle_may_be_none_at_all(make, driver, clock) -> None:
    pool = make(min_idle=0)
    pool.connection().close()
    clock.advance(1000)
    assert pool.stats().size == 0
    assert clock.pending == 0


def test_without_the_cleaner_acquire_and_release_retire_what_is_due(make, driver, clock) -> None:
    pool = make(cleaner=False)
    for connection in borrow(pool, 5):
        connection.close()
    clock.advance(1000)
    assert pool.stats().size == 5
    assert clock.pending == 0
    pool.connection().close()
    settle()
    assert len(driver.open_connections) == 1


def test_warm_up_opens_min_idle_ahead_and_keeps_that_many(make, driver) -> None:
    pool = make(min_idle=3)
    assert driver.attempts == 0
    pool.warm_up()
    settle()
    assert pool.stats().idle == 3
    lost = pool.connection()
    lost.invalidate()
    settle()
    assert pool.stats().idle == 3


def test_warm_up_against_a_dead_server_backs_off(make, driver, clock) -> None:
    driver.is_down = True
    pool = make(min_idle=1)
    pool.warm_up()
    clock.advance(60)
    assert 5 < driver.attempts < 130
    driver.is_down = False
    clock.advance(10)
    assert pool.stats().idle == 1


def test_a_connection_over_its_age_is_replaced_before_it_is_lent(make, driver, clock) -> None:
    pool = make(recycle=30)
    first = pool.connection()
    first.close()
    clock.advance(31)
    second = pool.connection()
    settle()
    assert second.connection is not first.connection
    assert not first.connection.is_open
    assert pool.stats().closed == {"expired": 1}


def test_an_idle_connection_is_pinged_only_after_ping_after(make, clock) -> None:
    pool = make(ping_after=60)
    pool.connection().close()
    clock.advance(59)
    pool.connection().close()
    assert pool.stats().pings == 0
    clock.advance(61)
    pool.connection().close()
    assert pool.stats().pings == 1


def test_a_dead_connection_found_by_a_ping_is_replaced_and_its_neighbours_are_suspect(
    make, driver, clock
) -> None:
    pool = make(ping_after=60, min_idle=3)
    for connection in borrow(pool, 3):
        connection.close()
    clock.advance(61)
    for connection in driver.connections:
        connection.is_open = False
    with pool.connection() as connection:
        assert connection.is_open
    assert pool.stats().closed["dead"] == 3


def test_pre_ping_asks_each_time_where_no_socket_can_be_watched(make) -> None:
    pool = make(pre_ping=True)
    for _ in range(3):
        pool.connection().close()
    assert pool.stats().pings == 2, "the first one was fresh"


def test_a_kill_during_the_ping_costs_the_connection_only(make, driver, clock) -> None:
    pool = make(pre_ping=True, max_size=1)
    pool.connection().close()
    driver.call_time = 1
    victim = gevent.spawn(pool.connection)
    settle()
    next_one = gevent.spawn(pool.connection)
    settle()
    victim.kill()
    clock.advance(5)
    assert next_one.get() is not None
    check(pool)


def test_a_kill_during_the_reset_costs_the_connection_only(make, driver, clock) -> None:
    pool = make(max_size=1)
    lent = pool.connection()
    driver.call_time = 1
    victim = gevent.spawn(lent.close)
    settle()
    next_one = gevent.spawn(pool.connection)
    settle()
    victim.kill()
    clock.advance(5)
    assert next_one.get().connection is not lent.connection
    check(pool)


def test_shrinking_the_cap_closes_idle_connections_now_and_used_ones_later(make, driver) -> None:
    pool = make(max_size=4)
    lent = borrow(pool, 4)
    lent[0].close()
    pool.resize(2)
    settle()
    assert len(driver.open_connections) == 3
    lent[1].close()
    settle()
    assert len(driver.open_connections) == 2
    with pytest.raises(PoolTimeout):
        pool.connection(timeout=0)
    del lent


def test_raising_the_cap_serves_those_who_wait(make) -> None:
    pool = make(max_size=1)
    held = borrow(pool)
    waiter = gevent.spawn(pool.connection)
    settle()
    pool.resize(2)
    assert waiter.get().connection is not held[0].connection


def test_closing_refuses_who_waits_and_closes_what_comes_back(make, driver) -> None:
    pool = make(max_size=1)
    held = pool.connection()
    waiter = gevent.spawn(pool.connection)
    settle()
    pool.close()
    with pytest.raises(PoolClosed):
        waiter.get()
    held.close()
    settle()
    assert driver.open_connections == []
    with pytest.raises(PoolClosed):
        pool.connection()


def test_draining_waits_for_what_is_in_use(make, clock) -> None:
    pool = make()
    held = pool.connection()
    assert not gevent.spawn(pool.drain, 0).get()
    drainer = gevent.spawn(pool.drain, 5)
    settle()
    assert not drainer.dead
    held.close()
    assert drainer.get() is True
    assert pool.drain(0) is True


def test_a_dropped_connection_comes_back_by_itself(make, driver) -> None:
    pool = make(max_size=1)
    pool.connection()
    gc.collect()
    settle()
    assert pool.stats().idle == 1
    assert driver.connections[0].calls == ["rollback"]


def test_a_connection_dropped_in_a_cycle_and_collected_in_the_hub_comes_back(make) -> None:
    pool = make(max_size=1)
    cycle: list[Any] = [pool.connection()]
    cycle.append(cycle)
    del cycle
    get_hub().loop.run_callback(gc.collect)
    settle()
    assert pool.stats().idle == 1
    assert getcurrent() is not get_hub()


def test_returning_twice_is_harmless_through_the_door_and_a_bug_below_it(make) -> None:
    pool = make()
    lent = pool.connection()
    entry = lent._entry
    lent.close()
    lent.close()
    with pytest.raises(AssertionError, match="bug"):
        pool.core.release(entry)


def test_a_kill_while_idle_connections_are_closed_leaves_none_behind(make, driver, clock) -> None:
    pool = make()
    for connection in borrow(pool, 3):
        connection.close()
    closing = gevent.spawn(pool.close)

    def slow_close() -> None:
        clock.sleep(1)
        driver.connections[2].is_open = False

    driver.connections[2].close = slow_close  # type: ignore[method-assign]
    settle()
    closing.kill()
    clock.advance(5)
    assert pool.stats().size == 0
    assert [connection.is_open for connection in driver.connections[:2]] == [False, False]


@pytest.mark.parametrize("idle", [1, 5])
def test_a_warm_acquire_is_two_frames_and_a_release_four(idle: int) -> None:
    pool = ConnectionPool(Silent)  # in real time
    for _ in range(2):
        for connection in borrow(pool, idle):
            connection.close()
    for entry in pool.core.ledger.entries:
        entry.quiet_until = math.inf  # however long this machine takes, the last look holds

    def frames_of(call: Callable[[], Any]) -> tuple[Any, list[str]]:
        frames: list[str] = []

        def note(frame: Any, kind: str, _: object) -> None:
            if kind == "call" and frame.f_globals["__name__"].startswith("geventpool."):
                frames.append(frame.f_code.co_name)

        sys.setprofile(note)
        try:
            return call(), frames
        finally:
            sys.setprofile(None)

    entry, acquiring = frames_of(lambda: pool.core.acquire(None))
    assert acquiring == ["acquire", "took"]
    _, releasing = frames_of(lambda: pool.core.release(entry))
    assert releasing == ["release", "is_clean", "state", "fell"]
    pool.close()


def test_stats_are_a_frozen_snapshot_that_tells_all(make, clock) -> None:
    pool = make(max_size=2)
    first, second = borrow(pool, 2)
    waiter = gevent.spawn(pool.connection)
    settle()
    clock.advance(1)
    stats = pool.stats()
    first.close()
    settle()
    assert (stats.in_use, stats.waiting, stats.idle, stats.size) == (2, 1, 0, 2)
    with pytest.raises(AttributeError):
        stats.in_use = 0  # type: ignore[misc]
    later = pool.stats()
    assert later.waits == 3
    assert later.wait_seconds == 1
    assert sum(later.wait_counts) == 3
    assert later.hold_seconds == 1
    assert json.loads(json.dumps(dataclasses.asdict(later)))["opened"] == 2
    assert "2 opened, 0 closed" in pool.status()
    assert waiter.get().connection is first.connection
    assert second


def test_who_would_give_up_before_a_later_open_is_done_gets_one_at_once(driver, clock) -> None:
    """The sizing would have it wait for as long as an open takes, because a return is likely."""
    driver.connect_time = 2
    pool = ConnectionPool(driver.connect, clock=clock, max_size=2, reclaim_after=None)
    first = gevent.spawn(pool.connection)
    clock.advance(3)
    first.get().close()
    for _ in range(50):  # each is held for a tenth of a second
        lent = pool.connection(timeout=0)
        clock.advance(0.1)
        lent.close()
    held = pool.connection(timeout=0)
    driver.connect_time = 0.1
    hasty = gevent.spawn(pool.connection, timeout=1)
    clock.advance(0.2)
    assert hasty.successful()
    held.close()
