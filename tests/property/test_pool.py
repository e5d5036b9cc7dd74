"""A whole pool under random borrowers, kills, failures and resizes, on fake time.

Beside the pool, the machine keeps books of its own: of what the borrowers were told and of what was done
to the connections. After each step the pool's figures must be those.
"""

from __future__ import annotations

import gc
import math
import os
from collections import Counter
from contextlib import suppress
from typing import Any

import gevent
from gevent.event import Event
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from geventpool import ConnectionPool, PoolClosed, PoolTimeout
from geventpool.core.entry import Entry
from geventpool.core.listener import Listener
from geventpool.errors import ConnectTimeout, PoolDeadlock
from geventpool.pool import PooledConnection
from geventpool.testing import FakeClock, FakeConnection, FakeDriver, settle

MAX_SIZE = 3
RECLAIM_AFTER = 1.0
PING_AFTER = 30.0


class Kill(BaseException):
    """Neither an Exception nor anything that gevent knows."""


KINDS = st.sampled_from([gevent.GreenletExit, gevent.Timeout, Kill])
WAYS = ["close", "close twice", "drop", "invalidate", "forget", "end with it"]


class Connection(FakeConnection):
    """Counts what the pool does to it, in the driver's `seen`, by the cause that it would give."""

    _driver: Driver

    def _call(self, name: str) -> None:
        seen = self._driver.seen
        # The ping is `cursor, execute, rollback`; a reset is a rollback alone.
        is_reset = name == "rollback" and (not self.calls or self.calls[-1] != "execute")
        if is_reset:
            seen["resets"] += 1
        elif name == "cursor":
            seen["pings"] += 1
        try:
            super()._call(name)
        except BaseException as error:
            is_kill = not isinstance(error, Exception)
            harm = "reset failed" if is_reset else "check interrupted" if is_kill else "dead"
            seen[harm] += 1
            raise

    def close(self) -> None:
        assert "close" not in self.calls, "a connection was closed twice"
        super().close()


class Driver(FakeDriver):
    """Counts what becomes of connects."""

    def __init__(self, clock: FakeClock, connect_time: float) -> None:
        super().__init__(clock, connect_time)
        self.seen: Counter[str] = Counter()

    def connect(self, *_: object, **__: object) -> FakeConnection:
        try:
            super().connect()
        except BaseException:
            self.seen["open errors"] += 1
            raise
        self.connections[-1] = Connection(self, len(self.connections))
        return self.connections[-1]


class Causes(Listener):
    """Counts what is closed for want of a place, if the pool's state was a reason to."""

    def __init__(self, machine: PoolMachine) -> None:
        self._machine = machine

    def closed(self, entry: Entry, cause: str) -> None:
        machine = self._machine
        ledger = machine.pool.core.ledger
        if cause == "resized" and ledger.surplus + 1 > 0:
            machine.seen[cause] += 1
        elif cause == "disposed" and (machine.is_dormant or machine.is_closing_idle):
            machine.seen[cause] += 1
            assert machine.is_closing_idle or not machine.pool.core.line.callers, (
                "those in line come first"
            )


class PoolMachine(RuleBasedStateMachine):
    """Greenlets that borrow, hold and return, while everything is done to them.

    Attributes:
        seen: what the borrowers have seen and done.
        asking: the borrowers that have asked and were told nothing yet.
        holders: who holds which connection.
        hoard: connections whose borrower has ended and that something still refers to.
        is_dormant: the pool was disposed of, and nobody has asked since.
        is_closing_idle: it is being told to close what is idle.
    """

    def __init__(self) -> None:
        super().__init__()
        self.clock = FakeClock()
        self.driver = Driver(self.clock, connect_time=0.02)
        self.pool = ConnectionPool(
            self.driver.connect,
            clock=self.clock,
            max_size=MAX_SIZE,
            timeout=5,
            ping_after=PING_AFTER,
            reclaim_after=RECLAIM_AFTER,
        )
        self.greenlets: list[gevent.Greenlet] = []
        self.drainers: list[gevent.Greenlet] = []
        self.seen: Counter[str] = Counter()
        self.asking: set[object] = set()
        self.holders: dict[FakeConnection, object] = {}
        self.hoard: list[PooledConnection] = []
        self.asked_for = 0.0  # seconds from question to answer, in sum
        self.held_for = 0.0
        self.steps = 0
        self.is_dormant = self.is_closing_idle = False
        self.pool.core.add_listener(Causes(self))

    def client(self, timeout: float | None, seconds: float, way: str, nested: bool) -> None:
        with suppress(Kill, gevent.Timeout, PoolTimeout, PoolClosed, FakeDriver.Error):
            self.borrow_once(timeout, seconds, way, nested)

    def ask(self, timeout: float | None) -> PooledConnection:
        me, asked_at = object(), self.clock.now()
        self.asking.add(me)
        self.is_dormant = False
        try:
            lent = self.pool.connection(timeout=timeout)
        except ConnectTimeout:  # what all in line are told, no time-out of this caller
            raise
        except PoolDeadlock:
            self.seen["deadlocks"] += 1
            raise
        except PoolTimeout:
            self.seen["timeouts"] += 1
            raise
        finally:
            self.asking.discard(me)
            self.asked_for += self.clock.now() - asked_at
        self.seen["checkouts"] += 1
        return lent

    def borrow_once(self, timeout: float | None, seconds: float, way: str, is_nested: bool) -> None:
        lent = self.ask(timeout)
        connection, taken_at = lent.connection, self.clock.now()
        assert connection not in self.holders, "two greenlets hold one connection"
        assert "close" not in connection.calls, "a closed connection was lent"
        self.holders[connection] = gevent.getcurrent()
        try:
            self.clock.sleep(seconds)
            if is_nested:
                self.client(timeout, seconds, "close", False)
        finally:
            del self.holders[connection]
            self.held_for += self.clock.now() - taken_at
            self.give_back(lent, way)

    def give_back(self, lent: PooledConnection, way: str) -> None:
        if way.startswith("close"):
            lent.close()
            if way == "close twice":
                lent.close()
        elif way == "invalidate":
            self.seen["invalidated"] += 1
            lent.invalidate()
        elif way == "forget":
            # As SQLAlchemy's door does with a connection that its user has detached.
            self.seen["forgotten"] += 1
            entry, lent._entry = lent._entry, None
            assert entry is not None
            self.pool.core.forget(entry, "forgotten")
        elif way == "end with it":
            self.hoard.append(lent)

    @rule(
        timeout=st.sampled_from([None, 0, 0.01, 1, 5]),
        seconds=st.floats(0, 2),
        way=st.sampled_from(WAYS),
        nested=st.booleans(),
        number=st.integers(1, 5),
    )
    def borrow(
        self, timeout: float | None, seconds: float, way: str, nested: bool, number: int
    ) -> None:
        for _ in range(number):
            self.greenlets.append(gevent.spawn(self.client, timeout, seconds, way, nested))

    @precondition(lambda self: self.greenlets)
    @rule(data=st.data(), first=KINDS)
    def kill(self, data: Any, first: type[BaseException]) -> None:
        data.draw(st.sampled_from(self.greenlets)).kill(first(), block=False)

    @precondition(lambda self: self.greenlets)
    @rule(data=st.data(), first=KINDS, second=KINDS, pause=st.sampled_from([0, 0.005]))
    def kill_twice(
        self, data: Any, first: type[BaseException], second: type[BaseException], pause: float
    ) -> None:
        """The second may hit the reset that the first has led to."""
        victim = data.draw(st.sampled_from(self.greenlets))
        victim.kill(first(), block=False)
        if pause:
            self.clock.advance(pause)
        victim.kill(second(), block=False)

    @rule(seconds=st.one_of(st.floats(0, 3), st.floats(0, 40)))
    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule()
    def let_run(self) -> None:
        settle()
        stats = self.pool.stats()
        assert sum(stats.wait_reasons.values()) + stats.waiting == stats.waits

    @rule(connect_time=st.sampled_from([0, 0.02, 3, 15]), call_time=st.sampled_from([0, 0.01]))
    def change_speed(self, connect_time: float, call_time: float) -> None:
        self.driver.connect_time = connect_time
        self.driver.call_time = call_time

    @rule(down=st.booleans())
    def break_or_mend(self, down: bool) -> None:
        self.driver.is_down = down

    @precondition(lambda self: self.driver.open_connections)
    @rule(data=st.data())
    def the_server_drops_one(self, data: Any) -> None:
        data.draw(st.sampled_from(self.driver.open_connections)).is_open = False

    @rule(size=st.integers(1, 6))
    def resize(self, size: int) -> None:
        self.pool.resize(size)

    @rule(most=st.sampled_from([0, 1, 2, 5, math.inf]))
    def grant(self, most: float) -> None:
        self.pool.core.grant(most)

    @rule(min_idle=st.integers(0, 1))
    def warm_up(self, min_idle: int) -> None:
        self.pool.configure(min_idle=min_idle)
        self.pool.warm_up()
        self.is_dormant = False

    @rule(recycle=st.sampled_from([-1, 5, 60]))
    def change_lifetime(self, recycle: float) -> None:
        self.pool.configure(recycle=recycle)

    @rule()
    def expire(self) -> None:
        self.pool.core.expire_all()

    @rule()
    def close_idle(self) -> None:
        self.is_closing_idle = True
        self.pool.core.close_idle("disposed")
        self.is_closing_idle = False

    @rule()
    def dispose(self) -> None:
        self.is_dormant = True
        self.pool.core.dispose()

    @rule(timeout=st.sampled_from([1, 5]))
    def configure_what_matters_nowhere(self, timeout: float) -> None:
        self.pool.configure(timeout=timeout)

    @rule(timeout=st.sampled_from([0, 1, 20]))
    def drain(self, timeout: float) -> None:
        self.drainers.append(gevent.spawn(self.drain_once, timeout))

    def drain_once(self, timeout: float) -> None:
        began = self.clock.now()
        is_drained = self.pool.drain(timeout)
        assert self.clock.now() - began <= timeout + 1e-6
        if not is_drained:
            stats = self.pool.stats()
            assert stats.in_use or stats.waiting, "nothing was in use, and nobody told who drains"

    @precondition(lambda self: self.steps > 15)
    @rule()
    def close(self) -> None:
        if not self.pool.core.is_closed:
            self.seen["closed idle"] += self.pool.stats().idle
        self.pool.close()
        assert not self.pool.stats().waiting

    @precondition(lambda self: self.hoard)
    @rule(data=st.data(), way=st.sampled_from(["close", "invalidate", "drop"]))
    def give_back_what_another_greenlet_had(self, data: Any, way: str) -> None:
        """Too late, if it was reclaimed: then nothing may come of it."""
        lent = self.hoard.pop(data.draw(st.integers(0, len(self.hoard) - 1)))
        if "close" in lent.connection.calls:
            self.seen["owner ended"] += 1
            way = "close" if way == "invalidate" else way
        self.greenlets.append(gevent.spawn(self.settle_up, lent, way))

    def settle_up(self, lent: PooledConnection, way: str) -> None:
        # Meanwhile it may have been reclaimed.
        is_reclaimed = "close" in lent.connection.calls
        with suppress(Kill, gevent.Timeout):
            if way != "invalidate" or not is_reclaimed:
                self.give_back(lent, way)

    @invariant()
    def the_books_are_right(self) -> None:
        self.steps += 1
        self.pool.core.ledger.check()
        stats = self.pool.stats()
        assert stats.size == stats.idle + stats.in_use + stats.opening + stats.closing
        assert len(self.holders) <= stats.in_use
        assert stats.opened - sum(stats.closed.values()) == stats.idle + stats.in_use
        assert stats.size - stats.opening == len(self.pool.core.ledger.entries)

    @invariant()
    def nothing_is_kept_that_is_surplus(self) -> None:
        stats = self.pool.stats()
        open_ones = stats.idle + stats.in_use + stats.opening
        assert not stats.idle or open_ones <= stats.max_size
        assert not (stats.idle and self.is_dormant)
        assert self.pool.core.is_dormant is self.is_dormant

    @invariant()
    def the_figures_are_those_of_a_recount(self) -> None:
        stats, driver = self.pool.stats(), self.driver
        assert stats.opened == len(driver.connections)
        assert stats.open_errors == driver.seen["open errors"]
        assert (stats.resets, stats.pings) == (driver.seen["resets"], driver.seen["pings"])
        assert stats.checkouts == self.seen["checkouts"]
        assert stats.timeouts == self.seen["timeouts"] + self.seen["deadlocks"]
        assert stats.timeout_reasons.get("deadlock", 0) == self.seen["deadlocks"]
        ended = sum(stats.wait_reasons.values())
        assert stats.waiting <= stats.waits - ended <= len(self.asking)
        assert ended == sum(stats.wait_counts)
        assert stats.wait_seconds <= self.asked_for + 1e-6

    @invariant()
    def every_connection_that_was_closed_has_a_cause(self) -> None:
        stats, seen = self.pool.stats(), self.driver.seen
        is_closed = sum("close" in one.calls for one in self.driver.connections)
        closed = stats.closed
        assert is_closed == sum(closed.values()) - stats.closing - self.seen["forgotten"]
        assert closed.get("disposed", 0) == self.seen["disposed"]
        assert closed.get("resized", 0) == self.seen["resized"]
        assert closed.get("forgotten", 0) == self.seen["forgotten"]
        for cause in ("reset failed", "check interrupted", "dead"):
            assert closed.get(cause, 0) == seen[cause], cause
        assert closed.get("closed", 0) >= self.seen["closed idle"]
        assert closed.get("owner ended", 0) == stats.owners_ended
        known = {
            "disposed",
            "resized",
            "forgotten",
            "reset failed",
            "check interrupted",
            "dead",
            "closed",
            "owner ended",
            "invalidated",
            "expired",
            "idle",
        }
        assert closed.keys() <= known

    def teardown(self) -> None:
        """Nothing is lost: in the end everything is idle and all of it can be borrowed at once."""
        self.driver.is_down = False
        self.driver.connect_time = 0.02
        if self.pool.core.ledger.cap.granted < math.inf:
            self.pool.core.grant(math.inf)
        self.run_out()
        everybody = self.greenlets + self.drainers
        assert all(greenlet.dead for greenlet in everybody), "somebody waits for ever"
        for greenlet in everybody:  # a kill before the start comes out, too
            assert isinstance(greenlet.exception, (type(None), Kill, gevent.Timeout)), greenlet
        everybody.clear()
        self.greenlets.clear()
        # Greenlets that end with a connection in hand lose it, whoever still refers to it.
        reclaimed = sum("close" in lent.connection.calls for lent in self.hoard)
        assert reclaimed == len(self.hoard)
        self.hoard.clear()
        gc.collect()
        self.run_out()
        stats = self.pool.stats()
        assert (stats.in_use, stats.opening, stats.closing, stats.waiting) == (0, 0, 0, 0)
        assert stats.waits == sum(stats.wait_reasons.values())
        assert stats.hold_seconds >= self.held_for - 1e-6
        unclosed = [one for one in self.driver.connections if "close" not in one.calls]
        assert len(unclosed) == stats.idle + self.seen["forgotten"]
        self.the_figures_are_those_of_a_recount()
        self.every_connection_that_was_closed_has_a_cause()
        if self.pool.core.is_closed:
            self.nothing_can_be_borrowed()
        else:
            self.the_maximum_can_be_borrowed_at_once_and_no_more()

    def run_out(self) -> None:
        for _ in range(40):
            self.clock.advance(2)

    def nothing_can_be_borrowed(self) -> None:
        assert self.pool.stats().size == 0
        for timeout in (0, 5, None):
            try:
                self.pool.connection(timeout=timeout)
            except PoolClosed:
                continue
            raise AssertionError("a closed pool has lent a connection")

    def the_maximum_can_be_borrowed_at_once_and_no_more(self) -> None:
        maximum = int(self.pool.stats().max_size)
        is_over, lent = Event(), []

        def hold() -> None:
            with self.pool.connection() as connection:
                lent.append(connection)
                is_over.wait()

        callers = [gevent.spawn(hold) for _ in range(maximum)]
        self.clock.advance(20)
        told = [caller.exception for caller in callers if caller.dead]
        assert len(set(lent)) == len(lent) == maximum, told
        late = [gevent.spawn(self.pool.connection, timeout=timeout) for timeout in (0, 0.01)]
        self.clock.advance(1)
        assert all(isinstance(caller.exception, PoolTimeout) for caller in late)
        is_over.set()
        self.clock.advance(1)
        assert all(caller.successful() for caller in callers)


TestPool = PoolMachine.TestCase
TestPool.settings = settings(
    max_examples=int(os.environ.get("GEVENTPOOL_EXAMPLES", "60")),
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


def test_who_drains_is_told_when_the_last_in_line_gives_up() -> None:
    clock = FakeClock()
    pool = ConnectionPool(FakeDriver(clock, connect_time=9).connect, clock=clock)
    caller = gevent.spawn(pool.connection, timeout=1)
    settle()
    drainer = gevent.spawn(pool.drain, 5)
    clock.advance(6)
    assert isinstance(caller.exception, PoolTimeout)
    assert drainer.value is True


def test_callers_that_a_lower_cap_makes_wait_for_themselves_are_told() -> None:
    """The first refusal frees a place beyond the new cap, so nobody else gets it."""
    clock = FakeClock()
    pool = ConnectionPool(FakeDriver(clock).connect, clock=clock, max_size=2)

    def take_two() -> None:
        with pool.connection():
            clock.sleep(1)
            with pool.connection(timeout=None):
                pass

    callers = [gevent.spawn(take_two) for _ in range(2)]
    settle()
    pool.resize(1)
    clock.advance(10)
    assert [type(caller.exception) for caller in callers] == [PoolDeadlock, PoolDeadlock]
