"""The one-shot cell through which an entry reaches a waiting greenlet, and the clock it waits by."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any, Protocol

from gevent import get_hub, getcurrent


class Timer(Protocol):
    """What `Clock.call_later` returns."""

    def stop(self) -> None:
        """Forgets the call, if it has not been made yet."""


class Clock(Protocol):
    """Where a pool gets its time from; tests give it `geventpool.testing.FakeClock`."""

    def now(self) -> float:
        """Monotonic seconds."""

    def call_later(self, seconds: float, call: Callable[[], object], *, ref: bool) -> Timer:
        """Makes a call in the hub after so many seconds; `ref=False` keeps no process alive."""


class _HubTimer:
    __slots__ = ("_timer",)

    def __init__(self, seconds: float, call: Callable[[], object], ref: bool) -> None:
        self._timer = get_hub().loop.timer(max(0.0, seconds), ref=ref)
        # The loop's own idea of now is as old as its last turn: without the update a timer that is
        # started after a long computation would ring at once.
        self._timer.start(call, update=True)

    def stop(self) -> None:
        self._timer.stop()
        self._timer.close()


class HubClock:
    """Real time: `time.monotonic` and timers of the calling thread's hub."""

    now = staticmethod(time.monotonic)

    def call_later(self, seconds: float, call: Callable[[], object], *, ref: bool) -> Timer:
        """Makes a call in the hub after so many seconds. Never switches."""
        return _HubTimer(seconds, call, ref)


class Waiter:
    """A greenlet in line. Settled once, with a value or an error; later settlements are bugs.

    Attributes:
        value: what it was served; stays here if the greenlet is killed on its way out, so that
            whoever catches the kill can give it back.
        error: what it was refused with.
        is_settled: one of the two has come.
        parked_at: when it began to wait, in seconds of the pool's clock.
        deadline: when somebody is to call `expire`; for `wait` itself it means nothing.
        blocked_before: for how long in sum the hub had been seen without a turn when it began.
        wants_open: the policy would not have it wait for a return.
        is_overdue: it has waited for as long as an open takes, and for as long as the policy wants.
        holds_until: the policy wants nothing opened for it before; 0: as soon as it is overdue.
    """

    __slots__ = (
        "_greenlet",
        "_is_expired",
        "blocked_before",
        "deadline",
        "error",
        "holds_until",
        "is_overdue",
        "is_settled",
        "parked_at",
        "value",
        "wants_open",
    )

    def __init__(self, parked_at: float = 0.0) -> None:
        self.value: Any = None
        self.error: BaseException | None = None
        self.is_settled = False
        self.parked_at = parked_at
        self.deadline = math.inf
        self.blocked_before = 0.0
        self.wants_open = False
        self.is_overdue = False
        self.holds_until = 0.0
        self._greenlet: Any = getcurrent()
        self._is_expired = False

    def serve(self, value: Any) -> None:
        """Hands over a value and schedules the greenlet. Never switches."""
        self.value = value
        self._settle()

    def refuse(self, error: BaseException) -> None:
        """Hands over an error and schedules the greenlet. Never switches."""
        self.error = error
        self._settle()

    def wait(self, clock: Clock, seconds: float | None) -> bool:
        """Waits until settled. Switches greenlets.

        Args:
            clock: measures the seconds.
            seconds: longest wait; `None` for ever.

        Returns:
            True if settled, False if the time ran out first.

        Raises:
            BaseException: whatever was thrown into the greenlet. `value` may be set all the same.
        """
        timer = None if seconds is None else clock.call_later(seconds, self.expire, ref=True)
        hub = get_hub()
        try:
            # A loop, because anybody may switch to a greenlet that is not theirs.
            while not self.is_settled and not self._is_expired:
                hub.switch()
        finally:
            # From here on a wake-up that is still queued in the hub finds nobody. Without this it
            # would interrupt whatever the greenlet waits for next.
            self._greenlet = None
            if timer is not None:
                timer.stop()
        return self.is_settled

    def _settle(self) -> None:
        if self.is_settled:
            raise AssertionError("bug: a waiter was settled twice")
        self.is_settled = True
        get_hub().loop.run_callback(self._wake)

    def expire(self) -> None:
        """Its time is over: `wait` returns False, if nothing has come. Never switches."""
        self._is_expired = True
        get_hub().loop.run_callback(self._wake)

    def _wake(self) -> None:
        if self._greenlet is not None:
            self._greenlet.switch()
