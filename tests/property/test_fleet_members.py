"""Pools of one fleet under random load: never too many, nothing idle beside who waits, nothing is lost."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Any

import gevent
from gevent.event import Event
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from geventpool import ConnectionPool, PoolClosed, PoolTimeout
from geventpool.fleet.share import TURN
from geventpool.testing import FakeClock, FakeDriver, settle
from tests.fleets import Table

SIZE, POOLS = 5, 4


class Caller:
    """Holds a connection until it is told to give it back."""

    def __init__(self, pool: ConnectionPool, timeout: float | None) -> None:
        self.pool = pool
        self.is_over = Event()
        self.greenlet = gevent.spawn(self._run, timeout)

    def _run(self, timeout: float | None) -> None:
        with suppress(PoolTimeout, PoolClosed, FakeDriver.Error):
            with self.pool.connection(timeout=timeout):
                self.is_over.wait()


class FleetMachine(RuleBasedStateMachine):
    """Drives four pools that share five connections."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = FakeClock()
        self.driver = FakeDriver(self.clock, connect_time=0.02)
        self.table = Table()
        self.pools = [
            self.table.pool(self.driver.connect, self.clock, SIZE, name=f"{number}")
            for number in range(POOLS)
        ]
        self.callers: list[Caller] = []

    @rule(
        place=st.integers(0, POOLS - 1),
        number=st.integers(1, 7),
        timeout=st.sampled_from([0, 0.5, 5, None]),
    )
    def borrow(self, place: int, number: int, timeout: float | None) -> None:
        self.callers += [Caller(self.pools[place], timeout) for _ in range(number)]

    @precondition(lambda self: self.callers)
    @rule(data=st.data(), way=st.sampled_from(["give back", "kill"]))
    def end(self, data: Any, way: str) -> None:
        for _ in range(data.draw(st.integers(1, len(self.callers)))):
            caller = self.callers.pop(data.draw(st.integers(0, len(self.callers) - 1)))
            if way == "kill":
                caller.greenlet.kill(block=False)
            else:
                caller.is_over.set()

    @rule(seconds=st.one_of(st.floats(0, 0.5), st.floats(0, 40)))
    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule()
    def let_run(self) -> None:
        settle()

    @rule(is_down=st.booleans(), connect_time=st.sampled_from([0, 0.02, 1]))
    def change_server(self, is_down: bool, connect_time: float) -> None:
        self.driver.is_down, self.driver.connect_time = is_down, connect_time

    @rule(place=st.integers(0, POOLS - 1))
    def dispose(self, place: int) -> None:
        self.pools[place].core.dispose()

    @rule(place=st.integers(0, POOLS - 1), min_idle=st.integers(0, 2))
    def warm_up(self, place: int, min_idle: int) -> None:
        self.pools[place].configure(min_idle=min_idle)
        self.pools[place].warm_up()

    @invariant()
    def there_are_never_too_many(self) -> None:
        assert len(self.driver.open_connections) <= SIZE
        assert sum(pool.core.ledger.size for pool in self.pools) <= self.table.taken <= SIZE

    @invariant()
    def each_has_a_permit_for_each_place(self) -> None:
        for pool in self.pools:
            pool.core.ledger.check()
            stats = pool.stats()
            assert stats.fleet_granted == stats.size

    def teardown(self) -> None:
        """Who waits is served, whoever it is; then each can have all."""
        self.driver.is_down, self.driver.connect_time = False, 0.02
        self.clock.advance(5)
        self.nothing_is_idle_beside_who_waits()
        for caller in self.callers:
            caller.is_over.set()
        self.clock.advance(60)
        assert all(caller.greenlet.dead for caller in self.callers), "somebody waits for ever"
        for pool in self.pools:
            callers = [Caller(pool, None) for _ in range(SIZE)]
            self.clock.advance(2)
            assert pool.stats().in_use == SIZE
            for caller in callers:
                caller.is_over.set()
            settle()
        self.clock.advance(2 * TURN)
        assert not any(pool.core.listeners for pool in self.pools)
        assert all(pool.stats().max_size == 1000 for pool in self.pools)

    def nothing_is_idle_beside_who_waits(self) -> None:
        stats = [pool.stats() for pool in self.pools]
        if any(one.waiting for one in stats):
            assert sum(one.in_use for one in stats) == SIZE, stats


TestFleet = FleetMachine.TestCase
TestFleet.settings = settings(
    max_examples=int(os.environ.get("GEVENTPOOL_EXAMPLES", "60")),
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
