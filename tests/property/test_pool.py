"""A whole pool under random borrowers, kills, failures and resizes, on fake time."""

from __future__ import annotations

import gc
import os
from contextlib import suppress
from typing import Any

import gevent
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from geventpool import ConnectionPool, PoolTimeout
from geventpool.testing import FakeClock, FakeConnection, FakeDriver, settle


class Kill(BaseException):
    """Neither an Exception nor anything that gevent knows."""


class PoolMachine(RuleBasedStateMachine):
    """Greenlets that borrow, hold and return, while everything is done to them."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = FakeClock()
        self.driver = FakeDriver(self.clock, connect_time=0.02)
        self.pool = ConnectionPool(self.driver.connect, clock=self.clock, max_size=3, timeout=5)
        self.greenlets: list[gevent.Greenlet] = []
        self.holders: dict[FakeConnection, object] = {}

    def client(self, seconds: float, leaks: bool) -> None:
        # What a client is told is the unit tests' business.
        with suppress(Kill, gevent.Timeout, PoolTimeout, FakeDriver.Error):
            self.borrow_once(seconds, leaks)

    def borrow_once(self, seconds: float, leaks: bool) -> None:
        lent = self.pool.connection()
        connection, me = lent.connection, gevent.getcurrent()
        assert connection not in self.holders, "two greenlets hold one connection"
        self.holders[connection] = me
        try:
            self.clock.sleep(seconds)
        finally:
            del self.holders[connection]
            if not leaks:
                lent.close()

    @rule(seconds=st.floats(0, 2), leaks=st.booleans(), number=st.integers(1, 5))
    def borrow(self, seconds: float, leaks: bool, number: int) -> None:
        for _ in range(number):
            self.greenlets.append(gevent.spawn(self.client, seconds, leaks))

    @precondition(lambda self: self.greenlets)
    @rule(data=st.data(), error=st.sampled_from([gevent.GreenletExit, gevent.Timeout, Kill]))
    def kill(self, data: Any, error: type[BaseException]) -> None:
        data.draw(st.sampled_from(self.greenlets)).kill(error(), block=False)

    @rule(seconds=st.floats(0, 40))
    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule()
    def let_run(self) -> None:
        settle()

    @rule(connect_time=st.sampled_from([0, 0.02, 3]), call_time=st.sampled_from([0, 0.01]))
    def change_speed(self, connect_time: float, call_time: float) -> None:
        self.driver.connect_time = connect_time
        self.driver.call_time = call_time

    @rule(down=st.booleans())
    def break_or_mend(self, down: bool) -> None:
        self.driver.is_down = down

    @rule(size=st.integers(1, 6))
    def resize(self, size: int) -> None:
        self.pool.resize(size)

    @rule()
    def expire(self) -> None:
        self.pool.core.expire_all()

    @rule()
    def close_idle(self) -> None:
        self.pool.core.close_idle("disposed")

    @invariant()
    def the_books_are_right(self) -> None:
        self.pool.core.ledger.check()
        stats = self.pool.stats()
        assert stats.size == stats.idle + stats.in_use + stats.opening + stats.closing
        assert len(self.holders) <= stats.in_use
        assert stats.opened - sum(stats.closed.values()) == stats.idle + stats.in_use

    def teardown(self) -> None:
        """Nothing is lost: in the end everything is idle and all of it can be borrowed at once."""
        self.driver.is_down = False
        self.driver.connect_time = 0.02
        for _ in range(30):
            self.clock.advance(2)
        gevent.joinall(self.greenlets, timeout=0)
        assert all(greenlet.dead for greenlet in self.greenlets)
        self.greenlets.clear()
        gc.collect()
        for _ in range(30):
            self.clock.advance(2)
        stats = self.pool.stats()
        assert (stats.in_use, stats.opening, stats.closing, stats.waiting) == (0, 0, 0, 0)
        assert len(self.driver.open_connections) == stats.idle
        maximum = int(stats.max_size)
        callers = [gevent.spawn(self.pool.connection) for _ in range(maximum)]
        for _ in range(20):
            self.clock.advance(2)
        assert len({caller.get(block=False).connection for caller in callers}) == maximum
        try:
            self.pool.connection(timeout=0)
        except PoolTimeout:
            pass
        else:
            raise AssertionError("more than the maximum was lent")


TestPool = PoolMachine.TestCase
TestPool.settings = settings(
    max_examples=int(os.environ.get("GEVENTPOOL_EXAMPLES", "60")),
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
