"""Pools of one fleet: who gets a permit, who gives one up, and what that takes."""

from __future__ import annotations

import gc
from collections import Counter
from typing import Any

import gevent
import pytest
from gevent.event import Event

from geventpool import ConnectionPool, PoolTimeout
from geventpool.fleet.permits import LINGERS
from geventpool.fleet.share import TURN
from geventpool.observe.prometheus import exposition
from geventpool.testing import FakeClock, FakeConnection, settle
from tests.fleets import Table


@pytest.fixture
def table() -> Table:
    return Table()


@pytest.fixture
def two(table, driver, clock) -> tuple[ConnectionPool, ConnectionPool]:
    """Two pools with four connections between them."""
    return table.pool(driver.connect, clock, 4), table.pool(driver.connect, clock, 4)


class Loans(list[Any]):
    """What greenlets have borrowed that live as long as they hold it."""

    def __init__(self) -> None:
        super().__init__()
        self.is_over = Event()

    def hold(self, pool: ConnectionPool) -> None:
        with pool.connection() as connection:
            self.append(connection)
            self.is_over.wait()

    def give_back(self) -> None:
        self.is_over.set()
        settle()


def borrow(pool: ConnectionPool, number: int) -> Loans:
    loans = Loans()
    for _ in range(number):
        gevent.spawn(loans.hold, pool)
    settle()
    return loans


def hold(pool: ConnectionPool, clock: FakeClock, seconds: float, served: Counter[Any]) -> None:
    while True:
        with pool.connection():
            served[pool] += 1
            clock.sleep(seconds)


MOVES = LINGERS + 0.001
"""Seconds until what one pool has given back is another's."""


def test_all_pools_together_open_no_more_than_the_fleets_size(two, driver) -> None:
    lent = borrow(two[0], 3), borrow(two[1], 3)
    assert [len(one) for one in lent] == [3, 1]
    assert len(driver.open_connections) == 4


def test_what_is_idle_goes_to_who_waits_elsewhere_and_no_more_than_that(two, driver, clock) -> None:
    borrow(two[0], 4).give_back()
    clock.advance(1)
    waiting = borrow(two[1], 1)
    clock.advance(MOVES)
    assert len(waiting) == 1
    assert two[0].stats().closed == {"resized": 1}
    assert len(driver.open_connections) == 4


def test_a_pool_that_nobody_uses_goes_down_to_nothing(two, driver, clock) -> None:
    borrow(two[0], 4).give_back()
    clock.advance(1)
    waiting = borrow(two[1], 4)
    clock.advance(TURN + 4 * MOVES)
    assert len(waiting) == 4
    assert two[0].stats().size == 0


def test_what_was_in_use_a_moment_ago_is_not_taken_away(two, driver, clock) -> None:
    driver.connect_time = 0.1
    lent = borrow(two[0], 2), borrow(two[1], 2)
    clock.advance(1)
    lent[0].give_back()
    waiting = borrow(two[1], 1)
    clock.advance(0.09)
    assert two[0].stats().size == 2
    clock.advance(0.02)
    assert two[0].stats().size == 1
    clock.advance(0.1)
    assert len(waiting) == 1


def test_when_all_are_busy_who_has_more_than_its_share_gives_back_what_is_returned(
    two, clock
) -> None:
    lent = borrow(two[0], 4)
    waiting = borrow(two[1], 4), borrow(two[0], 4)
    clock.advance(TURN)
    assert not any(waiting)
    lent.give_back()
    clock.advance(2 * MOVES)
    assert (two[0].stats().in_use, two[1].stats().in_use) == (2, 2)


def test_more_pools_than_connections_take_turns(table, driver, clock) -> None:
    pools = [table.pool(driver.connect, clock, 2, timeout=None) for _ in range(5)]
    served: Counter[Any] = Counter()
    holders = [gevent.spawn(hold, pool, clock, 0.01, served) for pool in pools for _ in range(2)]
    for _ in range(100):
        clock.advance(TURN / 5)
        assert len(driver.open_connections) <= 2
    assert min(served.values()) >= 0.7 * sum(served.values()) / 5, served
    gevent.killall(holders)


def test_a_checkout_and_a_return_have_nothing_to_do_with_the_fleet(two, table, clock) -> None:
    borrow(two[0], 2).give_back()
    before = table.told.copy()
    for _ in range(100):
        with two[0].connection():
            pass
        clock.advance(0.001)
    assert table.told == before


def test_while_nobody_is_short_nobody_is_woken(two, table, clock) -> None:
    lent = borrow(two[0], 2), borrow(two[1], 2)
    clock.advance(10)
    lent[0].give_back()
    lent[1].give_back()
    clock.advance(10)
    assert table.told["wakes"] == 0
    assert table.told["takes"] == 4


def test_who_is_balanced_wakes_nobody_however_many_wait(two, table, driver, clock) -> None:
    borrow(two[0], 6)
    borrow(two[1], 6)
    lent = borrow(two[1], 6)
    clock.advance(1)
    before = table.told["wakes"]
    for _ in range(10):
        clock.advance(TURN)
    assert not lent
    assert table.told["wakes"] == before


def test_the_figures_tell_of_the_fleet(two, clock) -> None:
    borrow(two[0], 3).give_back()
    borrow(two[1], 2)
    clock.advance(1)
    told = [pool.stats() for pool in two]
    assert [one.fleet_size for one in told] == [4, 4]
    assert [one.fleet_granted for one in told] == [2, 2]
    assert [one.fleet_demand for one in told] == [0, 2]
    assert str(told[1]).endswith("2 of the fleet's 4")


@pytest.mark.usefixtures("no_pools_of_other_tests")
def test_the_sum_over_workers_has_the_fleets_size_once(two, clock) -> None:
    borrow(two[0], 3)
    borrow(two[1], 1)
    told = exposition().decode()
    assert 'geventpool_fleet_size{pool="pool"} 4.0' in told
    assert 'geventpool_fleet_granted{pool="pool"} 4.0' in told
    assert 'geventpool_fleet_demand{pool="pool"} 4.0' in told
    assert 'geventpool_fleet_overdrawn_total{pool="pool"} 0.0' in told


def test_who_waits_in_vain_is_told_that_it_is_for_the_fleet(two, clock) -> None:
    borrow(two[0], 4)
    late = gevent.spawn(two[1].connection, timeout=1)
    clock.advance(2)
    assert isinstance(late.exception, PoolTimeout)
    assert late.exception.why == "fleet"
    assert "fleet_size" in str(late.exception)
    assert two[1].stats().timeout_reasons == {"fleet": 1}


def test_when_nobody_waits_any_more_all_is_as_before(two, table, clock) -> None:
    lent = borrow(two[0], 4)
    late = gevent.spawn(two[1].connection, timeout=1)
    clock.advance(2)
    assert late.dead
    lent.give_back()
    clock.advance(2)
    assert two[0].stats().max_size == 1000
    assert not two[0].core.listeners
    assert clock.pending <= 1, "but for the idle connections' own"
    assert len(borrow(two[0], 4)) == 4


def test_who_waits_for_another_process_keeps_its_own_alive(two, clock, monkeypatch) -> None:
    """And nothing else of a fleet does: without a deadline, the hub would have nothing left to do."""
    kept: list[bool] = []

    def call_later(seconds: float, call: Any, *, ref: bool) -> Any:
        kept.append(ref)
        return FakeClock.call_later(clock, seconds, call, ref=ref)

    monkeypatch.setattr(clock, "call_later", call_later)
    lent = borrow(two[0], 4)
    clock.advance(1)
    kept.clear()
    late = gevent.spawn(two[1].connection, timeout=None)
    clock.advance(1)
    assert any(kept)
    late.kill(block=False)
    clock.advance(1)
    kept.clear()
    lent.give_back()
    clock.advance(1)
    assert not any(kept)


def test_a_failed_connect_gives_its_permit_back(two, driver, table, clock) -> None:
    driver.is_down = True
    failed = [gevent.spawn(two[0].connection, timeout=0.5) for _ in range(3)]
    clock.advance(5)
    assert all(one.exception for one in failed)
    assert table.taken == 0
    driver.is_down = False
    clock.advance(5)
    assert len(borrow(two[1], 4)) == 4


def test_a_permit_is_given_back_when_the_connection_is_closed_and_not_before(
    table, driver, clock
) -> None:
    class Slow(FakeConnection):
        def close(self) -> None:
            clock.sleep(1)

    pool = table.pool(lambda: Slow(driver, 1), clock, 4)
    borrow(pool, 1).give_back()
    pool.core.grant(0)
    clock.advance(0.9)
    assert table.taken == 1
    clock.advance(0.1 + MOVES)
    assert table.taken == 0


def test_a_fleet_that_is_made_smaller_comes_down_at_once_and_as_connections_come_back(
    two, driver, clock
) -> None:
    lent = borrow(two[0], 3)
    borrow(two[1], 1).give_back()
    for pool in two:
        pool.configure(fleet_size=2)
    settle()
    assert len(driver.open_connections) == 3
    assert not borrow(two[1], 1)
    lent.give_back()
    clock.advance(1)
    assert len(driver.open_connections) <= 2
    assert sum(pool.stats().fleet_overdrawn for pool in two) == 2


def test_the_smallest_size_that_a_member_was_told_holds(table, driver, clock) -> None:
    small, large = table.pool(driver.connect, clock, 2), table.pool(driver.connect, clock, 4)
    borrow(small, 1)
    assert len(borrow(large, 4)) == 1


def test_a_disposed_pool_gives_all_permits_back(two, table, clock) -> None:
    borrow(two[0], 4).give_back()
    two[0].core.dispose()
    clock.advance(MOVES)
    assert table.taken == 0


def test_a_closed_pool_is_no_member_any_more(two, table, clock) -> None:
    lent = borrow(two[0], 1)
    two[0].close()
    settle()
    assert len(table.all) == 1
    lent.give_back()
    clock.advance(MOVES)
    assert not table.all


def test_a_pool_that_is_dropped_is_no_member_any_more(table, driver, clock) -> None:
    pool = table.pool(driver.connect, clock, 2)
    borrow(pool, 1).give_back()
    pool.core.grant(0)
    settle()
    assert len(table.all) == 1
    del pool
    gc.collect()
    settle()
    assert not table.all


def test_one_that_cannot_join_opens_nothing_and_says_why_once(driver, clock, caplog) -> None:
    from geventpool.fleet.member import Member

    def join(wake: Any) -> Any:
        raise OSError("the disk is full")

    pool = ConnectionPool(driver.connect, clock=clock)
    pool.core.limit_by(Member(pool.core, join))
    late = gevent.spawn(pool.connection, timeout=1)
    clock.advance(2)
    assert late.exception.why == "fleet"
    assert caplog.text.count("the disk is full") == 1
    assert driver.attempts == 0
