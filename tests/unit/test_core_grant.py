"""A cap that somebody outside sets while the pool runs."""

from __future__ import annotations

import math
from typing import Any

import gevent
import pytest

from geventpool import ConfigError, ConnectionPool, PoolTimeout
from geventpool.testing import settle


def test_a_lower_grant_closes_what_is_idle_now_and_what_is_in_use_when_it_comes_back(
    driver, clock
) -> None:
    pool = ConnectionPool(driver.connect, clock=clock, max_size=5)
    lent = [pool.connection() for _ in range(5)]
    lent.pop().close()
    pool.core.grant(2)
    settle()
    assert len(driver.open_connections) == 4
    for one in lent:
        one.close()
        settle()
    assert len(driver.open_connections) == 2
    assert pool.stats().closed == {"resized": 3}
    assert pool.stats().max_size == 2


def test_the_smaller_one_of_grant_and_setting_holds(driver, clock) -> None:
    pool = ConnectionPool(driver.connect, clock=clock, max_size=3)
    assert pool.stats().max_size == 3
    pool.core.grant(8)
    assert pool.stats().max_size == 3
    pool.resize(10)
    assert pool.stats().max_size == 8
    pool.core.grant(math.inf)
    assert pool.stats().max_size == 10


def test_a_higher_grant_serves_those_in_line_at_once(driver, clock) -> None:
    pool = ConnectionPool(driver.connect, clock=clock, max_size=10, timeout=None)
    pool.core.grant(1)
    held = pool.connection()
    callers = [gevent.spawn(pool.connection) for _ in range(3)]
    clock.advance(1)
    assert not any(caller.dead for caller in callers)
    pool.core.grant(4)
    clock.advance(0)
    assert all(caller.successful() for caller in callers)
    assert len(driver.open_connections) == 4
    held.close()


def test_with_nothing_granted_callers_wait_until_their_deadline_and_are_told_why(
    driver, clock
) -> None:
    pool = ConnectionPool(driver.connect, clock=clock, timeout=1)
    pool.core.grant(0)
    late = gevent.spawn(pool.connection)
    clock.advance(2)
    assert isinstance(late.exception, PoolTimeout)
    assert late.exception.why == "saturated"
    served = gevent.spawn(pool.connection)
    clock.advance(0.5)
    assert (driver.attempts, served.dead) == (0, False)
    pool.core.grant(1)
    clock.advance(0)
    assert served.successful()


def test_warming_up_stays_below_the_grant(driver, clock) -> None:
    pool = ConnectionPool(driver.connect, clock=clock, min_idle=5)
    pool.core.grant(2)
    pool.warm_up()
    clock.advance(1)
    assert len(driver.open_connections) == 2


@pytest.mark.parametrize("most", [-1, math.nan, -math.inf, None, "many"])
def test_what_is_no_number_of_connections_is_refused(driver, most: Any) -> None:
    pool = ConnectionPool(driver.connect)
    with pytest.raises(ConfigError, match="grant"):
        pool.core.grant(most)
    assert pool.stats().max_size == pool.config.max_size


def test_a_part_of_a_connection_is_none(driver, clock) -> None:
    pool = ConnectionPool(driver.connect, clock=clock, max_size=5, min_idle=1, reclaim_after=None)
    pool.core.grant(0.5)
    pool.warm_up()
    clock.advance(1)
    assert (driver.attempts, pool.stats().max_size) == (0, 0)
    pool.core.grant(2.5)
    callers = [gevent.spawn(pool.connection, timeout=1) for _ in range(3)]
    clock.advance(2)
    assert len(driver.open_connections) == pool.stats().max_size == 2
    assert [caller.successful() for caller in callers] == [True, True, False]
