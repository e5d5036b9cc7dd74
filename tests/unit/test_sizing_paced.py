"""The ancestor's knobs, on fakes."""

from __future__ import annotations

import math
from typing import Any

import gevent
import pytest

from geventpool import ConnectionPool, PoolTimeout
from geventpool.errors import ConfigError
from geventpool.sizing import fixed, paced
from geventpool.testing import FakeClock, FakeDriver, settle


@pytest.fixture
def driver(clock: FakeClock) -> FakeDriver:
    return FakeDriver(clock, connect_time=0.1)


def make_pool(driver: FakeDriver, clock: FakeClock, **settings: Any) -> ConnectionPool:
    """Its greenlets end with what they took still in hand."""
    return ConnectionPool(driver.connect, clock=clock, reclaim_after=None, **settings)


def burst(pool: ConnectionPool, clock: FakeClock, size: int) -> None:
    """So many are in use at once, and all come back."""
    workers = [gevent.spawn(pool.connection, 100) for _ in range(size)]
    clock.advance(60)
    for worker in workers:
        worker.get(timeout=1).close()


def test_idle_connections_above_the_core_go_one_for_each_interval(
    clock: FakeClock, driver: FakeDriver
) -> None:
    pool = make_pool(driver, clock, sizing="fixed", core_size=2, retire_interval=5, min_idle=0)
    burst(pool, clock, 5)
    sizes = []
    for _ in range(6):
        sizes.append(len(driver.open_connections))
        clock.advance(5.001)
    assert sizes == [5, 4, 3, 2, 2, 2]


def test_as_many_as_the_quantity_go_at_once(clock: FakeClock, driver: FakeDriver) -> None:
    pool = make_pool(
        driver,
        clock,
        sizing="fixed",
        core_size=1,
        retire_interval=5,
        retire_quantity=2,
    )
    burst(pool, clock, 6)
    sizes = []
    for _ in range(4):
        sizes.append(len(driver.open_connections))
        clock.advance(5.001)
    assert sizes == [6, 4, 2, 1]


def test_above_the_core_a_caller_waits_for_a_return_before_one_is_opened(
    clock: FakeClock, driver: FakeDriver
) -> None:
    pool = make_pool(driver, clock, core_size=2, unload_timeout=2)
    held = [gevent.spawn(pool.connection) for _ in range(2)]
    clock.advance(1)
    third = gevent.spawn(pool.connection)
    clock.advance(1.95)
    assert driver.attempts == 2
    assert not third.ready()
    clock.advance(0.2)
    assert driver.attempts == 3
    third.get(timeout=1).close()
    fourth = gevent.spawn(pool.connection)
    settle()
    fourth.get(timeout=1)
    fifth = gevent.spawn(pool.connection)
    clock.advance(1)
    held[0].get(timeout=1).close()
    settle()
    assert fifth.ready()
    assert driver.attempts == 3


def test_who_does_not_wait_for_as_long_gets_none_opened(
    clock: FakeClock, driver: FakeDriver
) -> None:
    pool = make_pool(driver, clock, core_size=1, unload_timeout=2)
    first = gevent.spawn(pool.connection)
    clock.advance(1)
    second = gevent.spawn(pool.connection, 1)
    clock.advance(1.5)
    with pytest.raises(PoolTimeout):
        second.get(timeout=1)
    assert driver.attempts == 1
    assert first.ready()


def test_knobs_that_are_functions_are_asked_at_use(clock: FakeClock, driver: FakeDriver) -> None:
    core = [4]
    pool = make_pool(driver, clock, sizing="fixed", core_size=lambda: core[0], retire_interval=1)
    burst(pool, clock, 6)
    clock.advance(10)
    assert len(driver.open_connections) == 4
    core[0] = 2
    pool.connection().close()
    clock.advance(10)
    assert len(driver.open_connections) == 2


def test_a_function_that_fails_later_keeps_its_last_value() -> None:
    answers = iter([3])
    policy = paced(fixed(), core_size=lambda: next(answers))
    assert policy.closes_at(0.0, 3, 0.0) == math.inf
    assert policy.closes_at(0.0, 4, 0.0) == 600.0


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("core_size", -1),
        ("core_size", "5"),
        ("retire_interval", True),
        ("unload_timeout", lambda: "soon"),
        ("retire_quantity", math.nan),
    ],
)
def test_a_wrong_knob_is_named(name: str, value: object) -> None:
    with pytest.raises(ConfigError) as raised:
        ConnectionPool(lambda: None, **{name: value})
    assert raised.value.argument == name


def test_the_knobs_can_be_changed_while_the_pool_runs(clock: FakeClock, driver: FakeDriver) -> None:
    pool = make_pool(driver, clock, sizing="fixed", core_size=6, retire_interval=1)
    burst(pool, clock, 6)
    clock.advance(10)
    assert len(driver.open_connections) == 6
    pool.configure(core_size=3)
    pool.connection().close()
    clock.advance(10)
    assert len(driver.open_connections) == 3
