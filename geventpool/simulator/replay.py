"""A trace through the real pool, in virtual time.

Nothing of the pool is imitated: the `ResourcePool` that lends database connections lends those of a
`FakeDriver`, by a `FakeClock`. Connecting takes its time on that clock. A request that finds something
idle is served in the loop itself, since `acquire` does not switch then; any other gets a greenlet that
waits as a web request would.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from heapq import heappop, heappush

import gevent

from ..config import PoolConfig
from ..core.entry import Entry
from ..core.handlers import Handlers
from ..core.pool import ResourcePool
from ..core.threads import mailbox_here
from ..errors import PoolClosed
from ..sizing import SizingPolicy
from ..testing import FakeClock, FakeConnection, FakeDriver, settle
from .outcome import Timeline, Waits
from .trace import Trace

_PROGRESS = 8191  # a mask: progress is told every 8192 requests


class _Handlers(Handlers):
    """What a pool does with connections that need nothing but to be opened and closed."""

    def __init__(self, clock: FakeClock, connect_time: float) -> None:
        self._driver = FakeDriver(clock, connect_time)
        self.on_open: Callable[[], object] = int

    def open(self) -> FakeConnection:
        self.on_open()
        connection = self._driver.connect()
        self._driver.connections.clear()  # it remembers all for ever, and a trace may open millions
        return connection

    def close(self, resource: FakeConnection, cause: str) -> None:
        resource.close()

    def is_clean(self, resource: FakeConnection) -> bool:
        return True


class Replay:
    """One run. Make it and call `run`, from a greenlet with nothing else going on.

    Args:
        trace: the load.
        policy: a fresh one.
        connect: seconds that opening a connection takes.
        max_size: hard cap.
        min_idle: as of the pool.
        horizon: until when idling is charged, at least; if requests have to wait, the last return may
            be later.
        progress: called now and then with the share that is done.

    Attributes:
        pool: the pool, as it is after the run.
        opens: connections opened.
        idle_seconds: integral of the idle connections over time.
        busy_idle_seconds: of these, until the last return.
        peak: most connections at once, in any state.
        waits: of the requests that were not served at once.
        timeline: for plots.
    """

    def __init__(
        self,
        trace: Trace,
        policy: SizingPolicy,
        *,
        connect: float,
        max_size: float,
        min_idle: int = 0,
        horizon: float = -math.inf,
        progress: Callable[[float], object] = float,
    ) -> None:
        self._trace = trace
        self._horizon = max(horizon, trace.last_return)
        self._progress = progress
        self._clock = FakeClock(trace.start)
        self._handlers = _Handlers(self._clock, connect)
        config = PoolConfig(
            max_size=max_size,
            min_idle=min_idle,
            connect_timeout=10.0 + 10.0 * connect,  # never reached
            reclaim_after=None,
        )
        self.pool: ResourcePool = ResourcePool(
            self._handlers, policy, config, name="simulated", clock=self._clock
        )
        # The pool is this thread's, also where nothing is monkey-patched.
        self.pool.hub, self.pool.mailbox = gevent.get_hub(), mailbox_here()
        self._handlers.on_open = self._opens_one
        self.waits = Waits()
        self.timeline = Timeline(trace.start, self._horizon)
        self.opens = 0
        self.idle_seconds = self.busy_idle_seconds = 0.0
        self.peak = 0
        self._returns: list[tuple[float, int, Entry]] = []
        self._served = 0  # orders returns of the same time
        self._in_line = 0
        self._size = 0

    def run(self) -> None:
        """Replays the whole trace. Switches greenlets."""
        try:
            self._run()
        except BaseException:  # most likely the caller's own time-out
            self.pool.is_closed = True  # for who has not begun to wait yet
            self.pool.upkeep.waiting.refuse_all(PoolClosed("the simulation was given up"))
            raise

    def _run(self) -> None:
        clock, ledger, returns, idle = (
            self._clock,
            self.pool.ledger,
            self._returns,
            self.pool.ledger.idle,
        )
        times, holds, many, place = self._trace.times, self._trace.holds, len(self._trace), 0
        asked = before = times[0]
        idle_seconds = 0.0
        while True:
            back = returns[0][0] if returns else math.inf
            now = asked if asked < back else back
            due = clock.due_at
            if due <= now:
                if now == math.inf and self._is_over(due):
                    break
                now = due
            idle_seconds += len(idle) * (now - before)
            before = now
            if now == due:  # before what else happens at that time
                clock.ring()
            elif now == back:
                self._give_back(now)
                self.busy_idle_seconds = idle_seconds
            else:
                self._ask(now, holds[place])
                place += 1
                asked = times[place] if place < many else math.inf
                if place & _PROGRESS == 0:
                    self._progress(place / many)
            if ledger.size != self._size:
                self._resized(now)
        if self._in_line:
            raise AssertionError(f"bug: {self._in_line} requests are in line for ever")
        self.idle_seconds = idle_seconds + len(idle) * max(0.0, self._horizon - before)
        self.timeline.note(self._horizon, self._size)

    def _is_over(self, due: float) -> bool:
        """Nothing is left to happen but timers: until when do they count?"""
        return due == math.inf or (not self._in_line and due > self._horizon)

    def _give_back(self, now: float) -> None:
        self._clock.jump(now)
        is_somebody_served = bool(self.pool.line.callers)
        self.pool.release(heappop(self._returns)[2])
        if is_somebody_served:
            settle()

    def _ask(self, now: float, hold: float) -> None:
        self._clock.jump(now)
        if self.pool.ledger.idle:
            self._lent(self.pool.acquire(None), now + hold)
        else:
            self._in_line += 1
            gevent.spawn_raw(self._wait, hold)
            settle()

    def _wait(self, hold: float) -> None:
        asked = self._clock.now()
        try:
            entry = self.pool.acquire(None)
        except PoolClosed:  # given up
            return
        now = self._clock.now()
        self.waits.add(now - asked)
        self._in_line -= 1
        self._lent(entry, now + hold)

    def _lent(self, entry: Entry, until: float) -> None:
        self._served += 1
        heappush(self._returns, (until, self._served, entry))

    def _opens_one(self) -> None:
        self.opens += 1
        self.timeline.opened(self._clock.now())
        self._resized(self._clock.now())

    def _resized(self, now: float) -> None:
        self._size = size = self.pool.ledger.size
        self.peak = max(self.peak, size)
        self.timeline.note(now, size)
