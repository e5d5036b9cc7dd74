"""Servers that are down, full or slow, and connections that grow old."""

from __future__ import annotations

import gc
import logging
import weakref
from typing import Any

import gevent
import pytest

from geventpool import ConnectionPool, PoolTimeout
from geventpool.core.pace import Pace
from geventpool.drivers import is_operational
from geventpool.sqlalchemy import GeventPool
from geventpool.testing import FakeClock, FakeDriver, settle


def fail(pool: ConnectionPool, error: type[Exception], times: int) -> None:
    for _ in range(times):
        with pytest.raises(error):
            pool.connection()


def test_a_server_that_is_down_is_not_asked_by_each_caller(driver, clock) -> None:
    driver.is_down = True
    pool = ConnectionPool(driver.connect, clock=clock)
    fail(pool, driver.Error, 3)
    callers = []
    for _ in range(100):
        callers += [gevent.spawn(pool.connection) for _ in range(10)]
        clock.advance(0.1)
    assert 40 <= driver.attempts - 3 <= 80, "in ten seconds, with pauses of up to a quarter of one"
    clock.advance(0.25)
    assert {type(caller.exception) for caller in callers} == {driver.OperationalError}


def test_nobody_is_told_of_an_attempt_that_began_before_he_asked(driver, clock) -> None:
    driver.is_down = True
    driver.connect_time = 0.1
    pool = ConnectionPool(driver.connect, clock=clock)
    clock.call_later(0.3, lambda: None, ref=False)
    first = gevent.spawn(fail, pool, driver.Error, 3)
    clock.advance(0.4)
    assert first.successful()
    in_the_pause = gevent.spawn(pool.connection)
    settle()
    assert not in_the_pause.dead
    while driver.attempts == 3:
        clock.advance(0.01)
    later = gevent.spawn(pool.connection)
    clock.advance(0.1)
    assert isinstance(in_the_pause.exception, driver.OperationalError)
    assert not later.dead
    driver.is_down = False
    clock.advance(0.35)
    later.get(block=False).close()


def test_who_cannot_wait_for_the_next_attempt_is_told_the_last_error(driver, clock) -> None:
    driver.is_down = True
    pool = ConnectionPool(driver.connect, clock=clock)
    fail(pool, driver.Error, 3)
    for timeout in (0, 0.01):
        with pytest.raises(driver.OperationalError):
            pool.connection(timeout=timeout)
    assert driver.attempts == 3


@pytest.mark.parametrize(
    ("settings", "takes"),
    [
        ({"timeout": 0}, 0.0),
        ({"timeout": 1}, 0.9),  # less than an attempt and the pause before it
        ({"shed_after": 0.05}, 0.0),
        ({"max_waiting": 1, "max_size": 1}, 0.0),
    ],
)
def test_while_a_server_is_down_its_error_is_told_to_who_cannot_wait(
    settings, takes, driver, clock
) -> None:
    driver.is_down, driver.connect_time = True, takes
    pool = ConnectionPool(driver.connect, clock=clock, **{"timeout": 9, **settings})
    for _ in range(5):
        gevent.spawn(pool.connection, timeout=9)
        clock.advance(2)
    attempts, callers = driver.attempts, []
    for _ in range(50):
        callers += [gevent.spawn(pool.connection) for _ in range(2)]
        clock.advance(0.1)
    clock.advance(2)
    assert {type(caller.exception) for caller in callers} == {driver.OperationalError}
    assert driver.attempts > attempts, "and asked it whether it is back"
    driver.is_down, driver.connect_time = False, 0.0
    later = gevent.spawn(lambda: pool.connection(timeout=9).close())
    clock.advance(1)
    assert later.successful()
    pool.connection(timeout=0).close()


def test_callers_of_many_processes_do_not_all_come_back_at_once() -> None:
    paces = [Pace() for _ in range(20)]
    for pace in paces:
        for _ in range(8):
            pace.failed(OSError(), 0.0, 0.0, may_be_restart=False, server_is_full=False)
    retries = {pace.opens_at(is_awaited=True) for pace in paces}
    assert len(retries) > 10
    assert max(retries) <= 0.25


def test_an_outage_that_is_over_within_a_second_costs_nobody_an_error(driver, clock) -> None:
    pool = ConnectionPool(driver.connect, clock=clock)
    pool.connection().invalidate()
    before = driver.attempts
    driver.is_down = True
    callers = []
    for _ in range(60):
        callers.append(gevent.spawn(pool.connection))
        clock.advance(0.01)
    assert not any(caller.dead for caller in callers)
    assert 2 <= driver.attempts - before <= 6, "they share the attempts, with pauses between"
    driver.is_down = False
    clock.advance(0.41)
    for caller in callers:
        caller.get(block=False).close()
        settle()


def test_a_longer_outage_is_told_to_those_in_line_after_a_second_and_to_others_by_the_next_attempt(
    driver, clock
) -> None:
    pool = ConnectionPool(driver.connect, clock=clock)
    pool.connection().invalidate()
    driver.is_down = True
    first = gevent.spawn(pool.connection)
    clock.advance(0.9)
    second = gevent.spawn(pool.connection)
    clock.advance(0.09)
    assert not first.dead
    clock.advance(0.02)
    assert [type(one.exception) for one in (first, second)] == [driver.OperationalError] * 2
    attempts = driver.attempts
    others = [gevent.spawn(pool.connection) for _ in range(10)]
    clock.advance(0.25)
    assert [type(one.exception) for one in others] == [driver.OperationalError] * 10
    assert driver.attempts == attempts + 1
    driver.is_down = False
    clock.advance(1)
    pool.connection().close()
    driver.is_down = True  # the next outage has a second of its own
    pool.connection().invalidate()
    third = gevent.spawn(pool.connection)
    clock.advance(0.9)
    assert not third.dead
    third.kill()


def test_a_short_outage_ends_nobodys_wait_for_a_return(driver, clock) -> None:
    pool = ConnectionPool(driver.connect, clock=clock, max_size=3)
    held = pool.connection()
    driver.is_down = True
    callers = [gevent.spawn(pool.connection) for _ in range(3)]
    clock.advance(0.9)
    assert not any(caller.dead for caller in callers)
    held.close()
    settle()
    assert callers[0].successful()
    gevent.killall(callers[1:])


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, gevent.Timeout, FakeDriver.Error])
def test_what_no_restart_causes_is_told_at_once(driver, clock, error) -> None:
    def connect() -> Any:
        if driver.is_down:
            raise error
        return driver.connect()

    pool = ConnectionPool(connect, clock=clock)
    pool.connection().invalidate()
    driver.is_down = True
    with pytest.raises(error):
        pool.connection()


def test_errors_of_reaching_the_server_are_those_that_a_restart_causes() -> None:
    wrapped = FakeDriver.Error("cannot connect")
    wrapped.__cause__ = ConnectionRefusedError()
    assert is_operational(wrapped)
    assert is_operational(FakeDriver.OperationalError())
    assert not is_operational(FakeDriver.Error())
    assert not is_operational(ValueError())


def test_a_hanging_attempt_holds_up_nobody_who_comes_later(driver, clock) -> None:
    driver.is_down = True
    pool = ConnectionPool(driver.connect, clock=clock, connect_timeout=5, timeout=30)
    fail(pool, driver.Error, 3)
    clock.advance(1)
    driver.connect_time = 1000
    first = gevent.spawn(pool.connection)
    clock.advance(2)
    assert not first.dead
    fail(pool, driver.Error, 1)
    clock.advance(4)
    assert first.dead


def full(driver: FakeDriver, clock: FakeClock, most: int, **settings: Any) -> ConnectionPool:
    """A pool at a server that has room for so many."""

    def connect() -> Any:
        if len(driver.open_connections) >= most:
            driver.attempts += 1
            raise driver.Error("too many connections")
        return driver.connect()

    pool = ConnectionPool(connect, clock=clock, **settings)
    pool.core.handlers.server_is_full = lambda error: "too many" in str(error)  # type: ignore[method-assign]
    return pool


def test_while_the_server_is_full_callers_wait_for_a_return(driver, clock) -> None:
    pool = full(driver, clock, most=2, max_size=10)

    def client() -> None:
        with pool.connection():
            clock.sleep(0.5)

    clients = [gevent.spawn(client) for _ in range(10)]
    clock.advance(10)
    assert all(one.successful() for one in clients)
    assert len(driver.connections) == 2
    assert driver.attempts < 30


def test_with_nothing_of_our_own_they_wait_for_room_until_their_deadline(driver, clock) -> None:
    others = [driver.connect(), driver.connect()]
    pool = full(driver, clock, most=2, max_size=10, timeout=3)
    late = gevent.spawn(pool.connection)
    clock.advance(4)
    with pytest.raises(PoolTimeout, match="too many connections"):
        late.get()
    served = gevent.spawn(pool.connection)
    clock.advance(1)
    assert not served.dead
    others[0].close()
    clock.advance(1.1)
    assert served.successful()


def test_an_open_ahead_that_fails_is_logged_ever_more_seldom(driver, clock, caplog) -> None:
    driver.is_down = True
    pool = ConnectionPool(driver.connect, clock=clock)
    pool.warm_up()
    clock.advance(60)
    assert 60 < driver.attempts < 130
    assert len([record for record in caplog.records if record.levelno == logging.WARNING]) == 7


def ages_of(pool: ConnectionPool, clock: FakeClock, seconds: int) -> list[tuple[int, int]]:
    """Size and closed, each second."""
    seen = []
    for _ in range(seconds):
        clock.advance(1)
        seen.append((pool.stats().size, pool.stats().closed.get("expired", 0)))
    return seen


def test_an_old_connection_is_replaced_before_it_is_closed(driver, clock) -> None:
    pool = ConnectionPool(driver.connect, clock=clock, recycle=100, sizing="fixed")
    driver.connect_time = 0.5
    first = gevent.spawn(pool.connection)
    clock.advance(1)
    first.get().close()
    clock.advance(74)
    assert driver.attempts == 1
    attempts_before_close = []
    close = driver.connections[0].close
    driver.connections[0].close = lambda: (attempts_before_close.append(driver.attempts), close())
    clock.advance(17)
    assert attempts_before_close == [2], "the new one was there already"
    assert len(driver.open_connections) == 1
    assert pool.stats().idle == 1


def test_connections_opened_together_are_not_replaced_together(driver, clock) -> None:
    pool = ConnectionPool(driver.connect, clock=clock, recycle=1000, max_size=50, min_idle=20)
    pool.warm_up()
    settle()
    assert pool.stats().idle == 20
    sizes = ages_of(pool, clock, 920)
    expired = [count for _, count in sizes]
    first = next(second for second, count in enumerate(expired) if count)
    last = next(second for second, count in enumerate(expired) if count == 20)
    assert 740 <= first < last <= 910
    assert last - first > 60
    assert {size for size, _ in sizes} == {20}, "never fewer, and more only within a moment"


def test_an_old_connection_that_is_lent_is_replaced_when_it_comes_back(driver, clock) -> None:
    pool = ConnectionPool(driver.connect, clock=clock, recycle=100, reclaim_after=None)
    lent = pool.connection()
    clock.advance(95)
    assert (driver.attempts, lent.connection.is_open) == (1, True)
    lent.close()
    settle()
    assert driver.attempts == 2
    assert not lent.connection.is_open
    assert pool.stats().idle == 1


def test_without_room_for_both_the_old_one_goes_first(driver, clock) -> None:
    pool = ConnectionPool(driver.connect, clock=clock, recycle=100, max_size=1)
    pool.connection().close()
    clock.advance(95)
    assert pool.stats().size == 0
    with pool.connection() as connection:
        assert connection is driver.connections[1]


def test_a_surplus_connection_is_not_replaced_when_it_is_old(driver, clock) -> None:
    pool = ConnectionPool(driver.connect, clock=clock, recycle=1, sizing="fixed")
    both = [pool.connection(), pool.connection()]
    for connection in both:
        connection.close()
    clock.advance(0.95)
    assert len(driver.open_connections) == 1
    assert driver.attempts <= 3


def test_a_server_that_is_down_costs_no_old_connection(driver, clock) -> None:
    pool = ConnectionPool(driver.connect, clock=clock, recycle=100)
    pool.connection().close()
    driver.is_down = True
    clock.advance(95)
    assert driver.connections[0].is_open
    pool.connection().close()
    driver.is_down = False
    clock.advance(2)
    assert not driver.connections[0].is_open
    assert pool.stats().idle == 1


def test_a_pool_that_nobody_refers_to_any_more_renews_nothing(driver, clock) -> None:
    pool = ConnectionPool(driver.connect, clock=clock, recycle=100)
    pool.connection().close()
    settle()
    core = weakref.ref(pool.core)
    del pool
    gc.collect()
    clock.advance(1000)
    assert core() is None
    assert driver.attempts == 1


def test_a_pool_that_was_disposed_of_renews_nothing(driver, clock) -> None:
    pool = GeventPool(driver.connect, recycle=100)
    pool.core.clock = clock
    lent = pool.connect()
    clock.advance(95)
    pool.dispose()
    lent.close()
    clock.advance(1000)
    assert driver.attempts == 1


def test_disposing_loses_nobody_who_waits(driver, clock) -> None:
    others = [driver.connect()]
    pool = full(driver, clock, most=1, max_size=5)
    waiting = gevent.spawn(pool.connection)
    clock.advance(0.1)
    others[0].close()
    pool.core.dispose()
    clock.advance(2)
    assert waiting.successful()


@pytest.mark.parametrize("recycle", [0, 0.01])
def test_a_lifetime_of_nothing_is_no_reason_to_reconnect_all_the_time(
    driver, clock, recycle: float
) -> None:
    pool = ConnectionPool(driver.connect, clock=clock, recycle=recycle)
    pool.warm_up()
    clock.advance(100)
    assert driver.attempts <= 2


def test_a_creator_that_ends_its_greenlet_is_not_asked_without_a_pause(driver, clock) -> None:
    attempts = []

    def connect() -> None:
        attempts.append(1)
        raise gevent.GreenletExit

    pool = ConnectionPool(connect, clock=clock, timeout=1)
    waiting = gevent.spawn(pool.connection)
    clock.advance(2)
    assert isinstance(waiting.exception, PoolTimeout)
    assert len(attempts) < 50


def test_a_renewal_that_cannot_succeed_is_given_up_at_the_age(driver, clock) -> None:
    pool = ConnectionPool(driver.connect, clock=clock, recycle=100)
    pool.connection().close()
    driver.is_down = True
    clock.advance(200)
    attempts = driver.attempts
    clock.advance(3600)
    assert driver.attempts == attempts
    assert pool.stats().size == 0
