"""What becomes of a pool that is disposed of, or is told other settings, while it is used."""

from __future__ import annotations

import gc
import logging
import weakref
from typing import Any

import gevent
import pytest

from geventpool import ConnectionPool
from geventpool.sizing import fixed
from geventpool.sqlalchemy import GeventPool
from geventpool.testing import FakeDriver, settle


def sizes(pool: Any) -> tuple[int, int, int]:
    stats = pool.stats()
    return stats.idle, stats.in_use, stats.opening


def test_what_is_lent_at_dispose_is_closed_when_it_comes_back(driver, clock) -> None:
    pool = ConnectionPool(driver.connect, clock=clock, min_idle=2, max_size=4)
    lent = [pool.connection() for _ in range(3)]
    lent.pop().close()
    pool.core.dispose()
    assert sizes(pool) == (0, 2, 0)
    for one in lent:
        one.close()
    settle()
    assert (driver.open_connections, pool.stats().size) == ([], 0)
    assert pool.stats().closed == {"disposed": 3}


def test_an_open_in_flight_at_dispose_is_closed_if_nobody_waits_for_it(driver, clock) -> None:
    driver.connect_time = 1
    pool = ConnectionPool(driver.connect, clock=clock)
    caller = gevent.spawn(pool.connection)
    settle()
    caller.kill()
    pool.core.dispose()
    clock.advance(2)
    assert (len(driver.connections), driver.open_connections) == (1, [])


def test_those_in_line_at_dispose_are_served_and_what_they_give_back_is_closed(
    driver, clock
) -> None:
    driver.connect_time = 1
    pool = ConnectionPool(driver.connect, clock=clock, max_size=2, timeout=30)
    served = []

    def client() -> None:
        with pool.connection() as connection:
            served.append(connection)
            clock.sleep(0.1)

    callers = [gevent.spawn(client) for _ in range(6)]
    clock.advance(0.5)
    pool.core.dispose()
    clock.advance(0.55)
    assert pool.stats().in_use == 1, "no old caller is a reason to keep anything"
    assert pool.core.is_dormant
    clock.advance(20)
    assert all(caller.successful() for caller in callers)
    assert len(served) == 6
    assert (driver.open_connections, pool.stats().size) == ([], 0)
    assert pool.core.is_dormant


def test_only_a_new_request_wakes_a_pool(driver, clock) -> None:
    pool = ConnectionPool(driver.connect, clock=clock, max_size=2)
    pool.connection().close()
    pool.core.dispose()
    entry = pool.core.acquire(5, is_new=False)
    pool.core.release(entry)
    settle()
    assert driver.open_connections == []
    pool.connection().close()
    assert sizes(pool) == (1, 0, 0)


def test_a_check_that_a_dispose_interrupts_wakes_nothing(driver, clock) -> None:
    pool = ConnectionPool(driver.connect, clock=clock, max_size=2, ping_after=1)
    pool.connection().close()
    clock.advance(2)
    driver.call_time = 1
    driver.connections[0].is_open = False
    caller = gevent.spawn(pool.connection)  # pings, finds it dead and opens another
    clock.advance(0.5)
    pool.core.dispose()
    clock.advance(5)
    caller.get(block=False).close()
    clock.advance(5)
    assert len(driver.connections) == 2
    assert driver.open_connections == []


@pytest.mark.parametrize("setting", [{"min_idle": 2}, {"max_size": 3}, {"timeout": 1}])
def test_what_is_configured_after_dispose_keeps_nothing(driver, clock, setting) -> None:
    pool = ConnectionPool(driver.connect, clock=clock)
    pool.warm_up()
    lent = pool.connection()
    pool.core.dispose()
    pool.configure(**setting)
    lent.close()
    clock.advance(1000)
    assert driver.open_connections == []
    assert driver.attempts == 1


def test_a_pool_that_was_warmed_up_is_so_again_when_it_wakes(driver, clock) -> None:
    pool = ConnectionPool(driver.connect, clock=clock, min_idle=3)
    pool.warm_up()
    settle()
    pool.core.dispose()
    settle()
    assert driver.open_connections == []
    pool.configure(min_idle=4)
    settle()
    assert driver.open_connections == []
    pool.connection().close()
    clock.advance(1)
    assert len(driver.open_connections) == 4


def test_warming_up_wakes_a_pool(driver, clock) -> None:
    pool = ConnectionPool(driver.connect, clock=clock, min_idle=2)
    pool.core.dispose()
    pool.warm_up()
    clock.advance(1)
    assert sizes(pool) == (2, 0, 0)


def test_a_recreated_pool_is_warm_as_the_one_before(clock) -> None:
    driver = FakeDriver()
    pool = GeventPool(driver.connect, min_idle=2, sizing=fixed(idle_timeout=0))
    pool.warm_up()
    settle()
    pool.dispose()
    new = pool.recreate()
    settle()
    assert driver.open_connections == []
    new.connect().close()
    settle()
    assert len(driver.open_connections) == 2


def test_draining_after_dispose_waits_for_what_is_lent(driver, clock) -> None:
    pool = ConnectionPool(driver.connect, clock=clock)
    lent = pool.connection()
    pool.core.dispose()
    drainer = gevent.spawn(pool.drain, 100)
    settle()
    assert not drainer.dead
    lent.close()
    settle()
    assert drainer.value is True
    assert driver.open_connections == []


def test_an_aged_connection_of_a_disposed_pool_has_no_successor(driver, clock) -> None:
    pool = ConnectionPool(driver.connect, clock=clock, recycle=100, reclaim_after=None)
    driver.connect_time = 1
    pool.warm_up()
    clock.advance(2)
    driver.is_down = True
    clock.advance(91)  # its successor is wanted, and cannot be opened
    lent = pool.connection()
    assert pool.core.upkeep.ages.ageing
    pool.core.dispose()
    driver.is_down = False
    clock.advance(3)
    attempts = driver.attempts  # the last may have been under way
    lent.close()
    clock.advance(1000)
    assert driver.open_connections == []
    assert driver.attempts == attempts


def test_who_asks_while_a_dispose_closes_leaves_nothing_behind() -> None:
    """An engine has its old pool until all is closed, and that takes time."""
    driver = FakeDriver()
    pool = GeventPool(driver.connect, max_size=4, min_idle=2)
    pool.connect().close()
    asked = []

    def ask() -> None:
        asked.append(pool.connect())

    def close() -> None:
        gevent.spawn(ask).join()
        driver.connections[0].is_open = False

    driver.connections[0].close = close  # type: ignore[method-assign]
    pool.dispose()
    assert len(asked) == 1
    asked.pop().close()
    settle()
    assert driver.open_connections == []


def test_who_asks_before_the_new_pool_is_there_leaves_nothing_behind(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What is logged on the way may switch greenlets."""
    driver = FakeDriver()
    pool = GeventPool(driver.connect, max_size=4, echo=True)
    asked: list[Any] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.getMessage().startswith(("Pool disposed", "Pool recreating")):
                gevent.spawn(lambda: asked.append(pool.connect())).join()

    handler = Handler()
    pool.logger.logger.addHandler(handler)
    try:
        pool.dispose()
        pool.recreate()
    finally:
        pool.logger.logger.removeHandler(handler)
    assert len(asked) == 2
    while asked:
        asked.pop().close()
    settle()
    assert driver.open_connections == []


def test_another_thread_disposes_of_a_pool_in_use(driver) -> None:
    pool = ConnectionPool(driver.connect)
    idle, used = pool.connection(), pool.connection()
    idle.close()
    gevent.get_hub().threadpool.apply(pool.core.dispose)
    assert sizes(pool) == (0, 1, 0)
    gevent.get_hub().threadpool.apply(used.close)
    settle()
    assert driver.open_connections == []


@pytest.mark.parametrize("way", ["dispose", "close"])
def test_a_finalizer_in_the_hub_disposes_without_a_switch(driver, way) -> None:
    pool = ConnectionPool(driver.connect)
    pool.connection().close()
    close = driver.connections[0].close

    def slow_close() -> None:
        gevent.sleep(0)
        close()

    driver.connections[0].close = slow_close
    errors: list[BaseException] = []

    def finalize() -> None:
        try:
            getattr(pool.core, way)()
        except BaseException as error:
            errors.append(error)

    gevent.get_hub().loop.run_callback(finalize)
    settle()
    gevent.sleep(0.01)
    assert errors == []
    assert driver.open_connections == []


def test_a_finalizer_in_another_threads_hub_disposes_without_a_wait(driver) -> None:
    pool = ConnectionPool(driver.connect)
    pool.connection().close()
    errors: list[BaseException] = []

    def in_thread() -> None:
        def finalize() -> None:
            try:
                pool.core.dispose()
            except BaseException as error:
                errors.append(error)

        gevent.get_hub().loop.run_callback(finalize)
        gevent.sleep(0.01)

    gevent.get_hub().threadpool.apply(in_thread)
    with gevent.Timeout(60):
        while driver.open_connections:
            gevent.sleep(0)
    assert errors == []


def test_a_pool_of_which_a_connection_is_all_that_is_left_closes_it_in_the_end(driver) -> None:
    pool = GeventPool(driver.connect)
    lent = pool.connect()
    pool.dispose()
    gone = weakref.ref(pool)
    del pool
    gc.collect()
    lent.close()
    settle()
    assert driver.open_connections == []
    del lent
    gc.collect()
    assert gone() is None


# Settings.


def test_a_lower_cap_is_one_cause(driver, clock) -> None:
    pool = ConnectionPool(driver.connect, clock=clock, max_size=5)
    lent = [pool.connection() for _ in range(5)]
    for one in lent[:2]:
        one.close()
    pool.resize(2)
    for one in lent[2:]:
        one.close()
    settle()
    assert pool.stats().closed == {"resized": 3}
    assert len(driver.open_connections) == 2


def test_a_return_that_brings_the_pool_to_no_less_than_its_cap_is_kept(driver, clock) -> None:
    pool = ConnectionPool(driver.connect, clock=clock, max_size=3, min_idle=2)
    lent = [pool.connection() for _ in range(3)]
    pool.resize(2)
    lent[0].invalidate()
    settle()
    lent[1].close()
    lent[2].close()
    settle()
    assert pool.stats().closed == {"invalidated": 1}
    assert sizes(pool) == (2, 0, 0)


def test_an_open_that_ends_above_a_lowered_cap_is_closed(driver, clock) -> None:
    driver.connect_time = 1
    pool = ConnectionPool(driver.connect, clock=clock, max_size=4, reclaim_after=None)
    callers = [gevent.spawn(pool.connection) for _ in range(4)]
    clock.advance(1.5)
    gevent.killall(callers[1:])
    assert sizes(pool) == (0, 1, 3)
    pool.resize(1)
    clock.advance(5)
    assert sizes(pool) == (0, 1, 0)
    assert driver.open_connections == driver.connections[:1]
    assert pool.stats().closed == {"resized": 3}
    callers[0].value.close()


def test_a_new_lifetime_counts_for_what_is_open(driver, clock) -> None:
    pool = ConnectionPool(driver.connect, clock=clock, sizing="fixed", min_idle=2, max_size=9)
    pool.connection().close()
    pool.configure(recycle=100)
    clock.advance(95)
    assert not driver.connections[0].is_open
    assert driver.connections[1].is_open
    pool.configure(recycle=1000)
    clock.advance(700)
    assert driver.connections[1].is_open
    pool.configure(recycle=10)
    clock.advance(1)
    assert not driver.connections[1].is_open
    pool.configure(recycle=-1)
    last = driver.attempts
    clock.advance(10_000)
    assert driver.attempts == last


def test_a_new_lifetime_counts_for_what_is_lent(driver, clock) -> None:
    pool = ConnectionPool(driver.connect, clock=clock, recycle=100, max_size=1, reclaim_after=None)
    lent = pool.connection()
    clock.advance(95)  # due, when it comes back
    pool.configure(recycle=-1)
    lent.close()
    assert driver.connections[0].is_open
    lent = pool.connection()
    pool.configure(recycle=50)
    lent.close()
    settle()
    assert not driver.connections[0].is_open
    assert pool.stats().closed == {"expired": 1}


def test_what_was_told_to_be_replaced_is_so_whatever_its_lifetime(driver, clock) -> None:
    pool = ConnectionPool(driver.connect, clock=clock, max_size=1)
    lent = pool.connection()
    pool.core.expire_all()
    pool.configure(recycle=1000)
    lent.close()
    settle()
    assert not driver.connections[0].is_open


def test_what_is_being_opened_can_be_told_to_expire_as_well(driver, clock) -> None:
    driver.connect_time = 1
    pool = ConnectionPool(driver.connect, clock=clock, max_size=1, reclaim_after=None)
    caller = gevent.spawn(pool.connection)
    settle()
    pool.core.expire_all(True)
    clock.advance(2)
    caller.get(block=False).close()
    settle()
    assert pool.stats().closed == {"expired": 1}


def test_sqlalchemys_door_heeds_a_new_recycle_for_what_is_open() -> None:
    driver = FakeDriver()
    pool = GeventPool(driver.connect, recycle=1000)
    pool.connect().close()
    record = pool.core.ledger.idle[0].resource
    record.starttime -= 500
    pool.connect().close()
    assert driver.connections[0].is_open
    pool.configure(recycle=100)
    pool.connect().close()
    settle()
    assert not driver.connections[0].is_open


def test_a_short_unload_timeout_does_not_wait_for_a_long_one_in_front(driver, clock) -> None:
    seconds = [0.0]
    pool = ConnectionPool(
        driver.connect, clock=clock, core_size=1, unload_timeout=lambda: seconds[0], timeout=100
    )
    lent = pool.connection()
    seconds[0] = 30.0
    patient = gevent.spawn(pool.connection)
    clock.advance(1)
    seconds[0] = 2.0
    hasty = gevent.spawn(pool.connection)
    clock.advance(1.9)
    assert driver.attempts == 1
    clock.advance(0.2)
    assert driver.attempts >= 2
    assert patient.successful(), "first come, first served"
    clock.advance(0.1)
    assert hasty.successful()
    del lent
