"""Models of other pools: when they open and close connections, and whom they let wait.

Each is the sizing of one pool and nothing else: no pings, no lifetimes, no failures, no time-outs of those
who wait. tests/integration/test_simulator_peers.py runs them beside the real ones.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from functools import partial
from heapq import heappop, heappush
from itertools import count
from typing import Final

from ..sizing.poisson import level_for
from .outcome import Timeline, Waits
from .trace import Trace

Request = tuple[float, float]  # when it was asked, for how long it will hold


class Peer:
    """A pool in virtual time; subclasses decide.

    Args:
        connect: seconds that opening a connection takes.
        max_size: hard cap.

    Attributes:
        now: seconds.
        idle: connections by when they were returned; on the left who is lent next, if not said otherwise.
        in_use: connections lent.
        opening: connections under way.
        waiting: requests in line.
    """

    def __init__(self, connect: float, max_size: float) -> None:
        self.connect = connect
        self.max_size = max_size
        self.now = 0.0
        self.idle: deque[float] = deque()
        self.in_use = 0
        self.opening = 0
        self.waiting: deque[Request] = deque()
        self.waits = Waits()
        self.opens = 0
        self.idle_seconds = 0.0
        self.peak = 0
        self._events: list[tuple[float, int, Callable[[], object]]] = []
        self._order = count()
        self._next_request = math.inf

    # What a subclass says.

    def begin(self) -> None:
        """The pool is made, at the time of the first request."""

    def ask(self, request: Request) -> None:
        """Somebody asks for a connection."""
        raise NotImplementedError

    def take_back(self, connection: int) -> None:
        """A connection comes back; `in_use` has been lowered."""
        raise NotImplementedError

    # What it uses.

    @property
    def size(self) -> int:
        """Connections in any state."""
        return len(self.idle) + self.in_use + self.opening

    def at(self, time: float, call: Callable[[], object]) -> None:
        """Makes a call then."""
        heappush(self._events, (time, next(self._order), call))

    def again(self, period: float, call: Callable[[], object], is_needed: bool) -> None:
        """Makes a call one period from now, or, if it would change nothing before, at that beat of the
        same clock which comes first after the next event: pauses of years cost no time then.
        """
        beats = 1.0
        if not is_needed:
            next_event = min(self._next_request, self._events[0][0] if self._events else math.inf)
            if next_event == math.inf:
                return
            beats = max(1.0, math.ceil((next_event - self.now) / period))
        self.at(self.now + beats * period, call)

    def open_then(self, then: Callable[[], object]) -> None:
        """Opens a connection; `then` finds `opening` lowered, and does something with it."""
        self.opens += 1
        self.opening += 1
        self.timeline.opened(self.now)

        def opened() -> None:
            self.opening -= 1
            then()

        self.at(self.now + self.connect, opened)

    def lend(self, request: Request, connection: int = 0) -> None:
        """Lends an idle connection at once."""
        self.in_use += 1
        self.at(self.now + request[1], partial(self._returned, connection))

    def serve(self, request: Request, connection: int = 0) -> None:
        """Lends a connection to who had to wait for it."""
        self.waits.add(self.now - request[0])
        self.lend(request, connection)

    def run(
        self, trace: Trace, horizon: float, progress: Callable[[float], object] = float
    ) -> None:
        """Replays a trace; idling is charged until the horizon, at least."""
        horizon = max(horizon, trace.last_return)
        self.timeline = Timeline(trace.start, horizon)
        before = self.now = trace.start
        self._next_request = trace.start
        self.begin()
        events, requests, place, held = self._events, iter(trace), 0, 0
        request = next(requests, None)
        while True:
            due = events[0][0] if events else math.inf
            is_request = request is not None and request[0] < due
            if request is not None and is_request:
                now = request[0]
            elif due < math.inf and (due <= horizon or self.in_use or self.waiting or self.opening):
                now = due
            else:
                break
            self.idle_seconds += len(self.idle) * (now - before)
            self.now = before = now
            if request is not None and is_request:
                self.ask(request)
                request, place = next(requests, None), place + 1
                self._next_request = request[0] if request else math.inf
                if place & 8191 == 0:
                    progress(place / len(trace))
            else:
                heappop(events)[2]()
            if self.size != held:
                held = self.size
                self.peak = max(self.peak, held)
                self.timeline.note(now, held)
        if self.waiting:
            raise AssertionError(f"bug: {len(self.waiting)} requests are in line for ever")
        self.idle_seconds += len(self.idle) * max(0.0, horizon - before)
        self.timeline.note(horizon, held)

    def _returned(self, connection: int) -> None:
        self.in_use -= 1
        self.take_back(connection)


class QueuePool(Peer):
    """SQLAlchemy's: keeps up to `size` idle, and opens in the caller, who then waits for nothing else.

    Args:
        connect: seconds that opening a connection takes.
        size: `pool_size`; 0: no limit.
        overflow: `max_overflow`; -1: no limit.
    """

    def __init__(self, connect: float, size: int, overflow: int) -> None:
        is_limited = size > 0 and overflow >= 0
        super().__init__(connect, size + overflow if is_limited else math.inf)
        self._keeps = size or math.inf

    def ask(self, request: Request) -> None:
        """Takes what is idle, else opens, else waits."""
        if self.idle:
            self.idle.popleft()
            self.lend(request)
        elif self.size < self.max_size:
            self.open_then(partial(self.serve, request))
        else:
            self.waiting.append(request)

    def take_back(self, connection: int) -> None:
        """Lends it on, keeps it, or closes it."""
        if self.waiting:
            self.serve(self.waiting.popleft())
        elif len(self.idle) < self._keeps:
            self.idle.append(self.now)


class SAAutoPool(QueuePool):
    """The ancestor: a QueuePool that closes one connection at a return while it has more than its level.

    At the cap that may be the one which somebody in line has just been told of: who then waits for
    another, and opens one when the time-out is over. Its quantile overflows at a mean of about 120, at
    which the real one fails; the model does not. Its `pool_size` is the cap, without overflow.

    Args:
        connect: seconds that opening a connection takes.
        max_size: hard cap.
        timeout: `pool_timeout`.
    """

    INTERVAL: Final = 5.0
    DECAY: Final = math.log(2) / 60

    def __init__(self, connect: float, max_size: int, timeout: float = 30.0) -> None:
        super().__init__(connect, max_size, 0)
        self._timeout = timeout
        self._mean, self._rate, self._level = 5.0, 1.0, 1
        self._next_update = -math.inf

    def begin(self) -> None:
        """Its statistics begin."""
        self._last = self.now

    def ask(self, request: Request) -> None:
        """Counts the request, then as QueuePool."""
        self._update(self.in_use + self.opening)
        super().ask(request)
        if self.waiting and self.waiting[-1] is request and self._timeout < math.inf:
            self.at(self.now + self._timeout, partial(self._timed_out, request))

    def take_back(self, connection: int) -> None:
        """As QueuePool, and one is closed if there are more than the level."""
        self._update(self.in_use + self.opening + 1, is_request=False)
        if self.waiting and self._level < self.size + 1:
            self.waiting.rotate(-1)
            return
        super().take_back(connection)
        if self.idle and self._level < self.size:
            self.idle.popleft()

    def _timed_out(self, request: Request) -> None:
        if request in self.waiting and self.size < self.max_size:
            self.waiting.remove(request)
            super().ask(request)

    def _update(self, in_use: int, is_request: bool = True) -> None:
        weight = math.exp((self._last - self.now) * self.DECAY)
        self._last = self.now
        self._rate = weight * self._rate + is_request * (1 - math.exp(-self.DECAY))
        self._mean = weight * self._mean + (1 - weight) * in_use
        if self.now > self._next_update:
            self._level = level_for(self._mean, 1 / max(2.0, self.INTERVAL * self._rate))
            self._next_update = self.now + 1


class DjangoQueuePool(QueuePool):
    """The other ancestor (django-db-conn-pool) as its profile `fast_and_wild` has it.

    Above its core size a request first waits for a return, and a timer closes surplus idle connections
    one by one. Its `pool_size` is the cap.
    """

    CORE: Final = 5
    UNLOAD_TIMEOUT: Final = 2.0
    RETIRE_INTERVAL: Final = 5.0

    def __init__(self, connect: float, max_size: int) -> None:
        super().__init__(connect, max_size, 0)

    def begin(self) -> None:
        """Starts its timer."""
        self.at(self.now + self.RETIRE_INTERVAL, self._retire)

    def ask(self, request: Request) -> None:
        """Waits a while for a return if it is above its core size, then as QueuePool."""
        if not self.idle and self.in_use + self.opening >= self.CORE:
            self.waiting.append(request)
            self.at(self.now + self.UNLOAD_TIMEOUT, partial(self._unload, request))
        else:
            super().ask(request)

    def _unload(self, request: Request) -> None:
        if request in self.waiting:
            self.waiting.remove(request)
            super().ask(request)

    def _retire(self) -> None:
        if len(self.idle) > self.CORE:
            self.idle.popleft()
        self.again(self.RETIRE_INTERVAL, self._retire, len(self.idle) > self.CORE)


class PsycopgPool(Peer):
    """psycopg_pool: grows one connection at a time while somebody waits, closes one in `max_idle` seconds.

    Args:
        connect: seconds that opening a connection takes.
        max_size: hard cap.
        min_size: opened at the start and kept.
        max_idle: seconds between two looks for a connection that was never needed in between.
    """

    WORKERS: Final = 3

    def __init__(
        self, connect: float, max_size: int, min_size: int = 4, max_idle: float = 600.0
    ) -> None:
        super().__init__(connect, max(max_size, min_size))
        self._min_size, self._max_idle = min_size, max_idle
        self._planned = min_size  # connections that are there or are going to be
        self._least_idle = min_size
        self._is_growing = False
        self._tasks: deque[bool] = deque()  # to be opened; True: and then perhaps another
        self._free_workers = self.WORKERS

    def begin(self) -> None:
        """Opens `min_size`."""
        for _ in range(self._min_size):
            self._add(is_growth=False)
        self.at(self.now + self._max_idle, self._shrink)

    def ask(self, request: Request) -> None:
        """Takes the connection that was returned first, else waits for whichever comes first."""
        if self.idle:
            self.idle.popleft()
            self._least_idle = min(self._least_idle, len(self.idle))
            self.lend(request)
            return
        self.waiting.append(request)
        if self._planned < self.max_size and not self._is_growing:
            self._planned += 1
            self._is_growing = True
            self._add(is_growth=True)

    def take_back(self, connection: int) -> None:
        """For the first in line, or idle."""
        if self.waiting:
            self.serve(self.waiting.popleft())
        else:
            self.idle.append(self.now)

    def _add(self, is_growth: bool) -> None:
        self._tasks.append(is_growth)
        self._work()

    def _work(self) -> None:
        while self._tasks and self._free_workers:
            self._free_workers -= 1
            self.open_then(partial(self._added, self._tasks.popleft()))

    def _added(self, is_growth: bool) -> None:
        self._free_workers += 1
        self.take_back(0)
        if is_growth:
            self._is_growing = bool(self.waiting) and self._planned < self.max_size
            if self._is_growing:
                self._planned += 1
                self._tasks.append(True)
        self._work()

    def _shrink(self) -> None:
        least_idle, self._least_idle = self._least_idle, len(self.idle)
        if self._planned > self._min_size and least_idle > 0 and self.idle:
            self.idle.popleft()
            self._planned -= 1
            self._least_idle -= 1
        is_surplus = self._planned > self._min_size and bool(self.idle)
        self.again(self._max_idle, self._shrink, is_surplus)


class HikariCP(Peer):
    """HikariCP: one thread opens while somebody waits; a housekeeper closes what has long been idle.

    The idle connection that is oldest is lent first, as to threads that are new to the pool. With its
    default, `minimumIdle` as large as the pool, it is of a fixed size; the time-out works below that.

    Args:
        connect: seconds that opening a connection takes.
        max_size: `maximumPoolSize`.
        min_idle: `minimumIdle`.
        idle_timeout: `idleTimeout`.
        period: seconds between two rounds of its housekeeper.
    """

    def __init__(
        self,
        connect: float,
        max_size: int,
        min_idle: int = 1,
        idle_timeout: float = 600.0,
        period: float = 30.0,
    ) -> None:
        super().__init__(connect, max_size)
        self._min_idle, self._idle_timeout, self._period = min_idle, idle_timeout, period
        self._since: dict[int, float] = {}  # when each was returned
        self._numbers = count(1)
        self._queued = 0  # orders for the thread that opens
        self._is_opening = False

    def begin(self) -> None:
        """Opens one to see that it can, and keeps it unless `minimumIdle` is 0."""
        self.opens += 1
        self.timeline.opened(self.now)
        if self._min_idle:
            self.take_back(next(self._numbers))
        self.at(self.now + 0.1, self._keep_house)

    def ask(self, request: Request) -> None:
        """Takes the oldest that is idle, else waits for whichever comes first."""
        if self.idle:
            oldest = min(self._since)
            self._remove(oldest)
            self.lend(request, oldest)
        else:
            self.waiting.append(request)
            self._order_one()

    def take_back(self, connection: int) -> None:
        """For the first in line, or idle."""
        if self.waiting:
            self.serve(self.waiting.popleft(), connection)
        else:
            self._since[connection] = self.now
            self.idle.append(self.now)

    def _remove(self, connection: int) -> None:
        del self._since[connection]
        self.idle.pop()  # only their number counts

    def _order_one(self) -> None:
        self._queued += self._queued < self.max_size
        self._open_next()

    def _open_next(self) -> None:
        while self._queued and not self._is_opening:
            self._queued -= 1
            is_wanted = self.waiting or len(self.idle) < self._min_idle
            if is_wanted and self.size < self.max_size:
                self._is_opening = True
                self.open_then(self._opened)

    def _opened(self) -> None:
        self._is_opening = False
        self.take_back(next(self._numbers))
        self._open_next()

    def _keep_house(self) -> None:
        surplus = len(self.idle) - self._min_idle
        for connection in sorted(self._since):
            if surplus > 0 and self.now - self._since[connection] > self._idle_timeout:
                self._remove(connection)
                surplus -= 1
        missing = min(self.max_size - self.size, self._min_idle - len(self.idle)) - self._queued
        for _ in range(int(max(0, missing))):
            self._order_one()
        is_busy = surplus > 0 or missing > 0
        self.again(self._period, self._keep_house, is_busy)
