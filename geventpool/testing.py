"""Fakes for tests of code that uses a pool: a clock, a driver, and "everyone is parked".

Public: our own unit tests use nothing else, so a real sleep is never needed.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable

import gevent
from gevent.event import Event

from .core.clock import Timer

settle: Callable[[], None] = gevent.idle
"""Lets every greenlet run until all of them wait. Switches greenlets."""


class _FakeTimer:
    def __init__(self, call: Callable[[], object]) -> None:
        self.call: Callable[[], object] | None = call

    def stop(self) -> None:
        self.call = None


class FakeClock:
    """Time that moves only when it is told to. Give it to a pool as `clock=`.

    Attributes:
        rings: how many timers have rung.
    """

    def __init__(self, start: float = 1000.0) -> None:
        self._now = start
        self._heap: list[tuple[float, int, _FakeTimer]] = []
        self._order = itertools.count()
        self.rings = 0

    def now(self) -> float:
        """Seconds."""
        return self._now

    def call_later(self, seconds: float, call: Callable[[], object], *, ref: bool) -> Timer:
        """Makes a call when `advance` has come so far. Never switches."""
        timer = _FakeTimer(call)
        heapq.heappush(self._heap, (self._now + max(0.0, seconds), next(self._order), timer))
        return timer

    @property
    def pending(self) -> int:
        """Timers that have neither rung nor been stopped."""
        return sum(timer.call is not None for _, _, timer in self._heap)

    @property
    def due_at(self) -> float:
        """When the next timer rings, or would if it had not been stopped; `inf`: there is none."""
        return self._heap[0][0] if self._heap else math.inf

    def jump(self, to: float) -> None:
        """Moves time on to before the next timer, and does nothing else. Never switches.

        Args:
            to: a time, not before now and not after `due_at`.
        """
        self._now = to

    def sleep(self, seconds: float) -> None:
        """Parks the calling greenlet until `advance` has come so far. Switches greenlets."""
        woken = Event()
        timer = self.call_later(seconds, woken.set, ref=True)
        try:
            woken.wait()
        finally:
            timer.stop()

    def advance(self, seconds: float) -> None:
        """Moves time on, ringing each timer when it is due. Switches greenlets."""
        target = self._now + seconds
        settle()
        while self._heap and self._heap[0][0] <= target:
            self.ring()
        self._now = target
        settle()

    def ring(self) -> None:
        """Moves time on to the next timer and rings it, if it has not been stopped. Switches."""
        at, _, timer = heapq.heappop(self._heap)
        if timer.call is not None:
            call, timer.call = timer.call, None
            self._now = max(self._now, at)
            self.rings += 1
            call()
            settle()


class FakeConnection:
    """A DBAPI connection that remembers what was done to it."""

    def __init__(self, driver: FakeDriver, number: int) -> None:
        self._driver = driver
        self.number = number
        self.is_open = True
        self.calls: list[str] = []

    def __repr__(self) -> str:
        return f"<FakeConnection {self.number}>"

    def _call(self, name: str) -> None:
        self.calls.append(name)
        if self._driver.call_time:
            self._driver.sleep(self._driver.call_time)
        if not self.is_open:
            raise self._driver.Error(f"{name} on a closed connection")

    def commit(self) -> None:
        """Counted in `calls`."""
        self._call("commit")

    def rollback(self) -> None:
        """Counted in `calls`."""
        self._call("rollback")

    def cursor(self) -> FakeCursor:
        """Counted in `calls`."""
        self._call("cursor")
        return FakeCursor(self)

    def close(self) -> None:
        """Closes; counted in `calls`."""
        self.calls.append("close")
        self.is_open = False


class FakeCursor:
    """Whatever is asked, the answer is one row with a 1 in it."""

    def __init__(self, connection: FakeConnection) -> None:
        self._connection = connection

    def execute(self, _statement: str, _parameters: object = ()) -> None:
        """Counted in the connection's `calls`."""
        self._connection._call("execute")

    def fetchall(self) -> list[tuple[int]]:
        """One row."""
        return [(1,)]

    def close(self) -> None:
        """Does nothing."""


class FakeDriver:
    """A DBAPI module without a server.

    Attributes:
        connect_time: seconds of the clock that `connect` takes.
        call_time: seconds that each call on a connection takes.
        is_down: `connect` fails.
        connections: all that were ever opened.
    """

    paramstyle = "qmark"
    threadsafety = 1
    apilevel = "2.0"

    class Error(Exception):
        """What it raises."""

    class OperationalError(Error):
        """What it raises when it is down."""

    def __init__(self, clock: FakeClock | None = None, connect_time: float = 0.0) -> None:
        self.clock = clock
        self.connect_time = connect_time
        self.call_time = 0.0
        self.is_down = False
        self.attempts = 0
        self.connections: list[FakeConnection] = []

    def sleep(self, seconds: float) -> None:
        """Seconds of the clock, of real time without one. Switches greenlets."""
        (gevent.sleep if self.clock is None else self.clock.sleep)(seconds)

    def connect(self, *_args: object, **_kw: object) -> FakeConnection:
        """Opens a connection, or fails when `is_down`. Switches greenlets if it takes time."""
        self.attempts += 1
        if self.connect_time:
            self.sleep(self.connect_time)
        if self.is_down:
            raise self.OperationalError("the fake server is down")
        self.connections.append(FakeConnection(self, len(self.connections) + 1))
        return self.connections[-1]

    @property
    def open_connections(self) -> list[FakeConnection]:
        """Those that nobody has closed."""
        return [connection for connection in self.connections if connection.is_open]
