"""Time, timers, and the one timer of a pool."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Protocol
from weakref import WeakMethod

from gevent import get_hub


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
        loop = get_hub().loop
        if seconds > 0.0:  # libuv counts milliseconds, and gevent warns of less
            seconds = max(seconds, loop.approx_timer_resolution)
        self._timer = loop.timer(max(0.0, seconds), ref=ref)
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


class Alarm:
    """Rings at a time or somewhat before it: whoever is called sees what is due, and sets it again.

    Args:
        ring: called in the hub with the time at which it was to be. Kept weakly: a pool that nobody
            refers to any more is not to go on.

    Attributes:
        at: when it rings; `inf`: not at all.
        keeps: kept alive until then.
    """

    __slots__ = ("_has_ref", "_ring", "_timer", "at", "keeps")

    def __init__(self, ring: WeakMethod[Callable[[float], object]]) -> None:
        self.at = math.inf
        self.keeps: object = None
        self._ring = ring
        self._has_ref = False
        self._timer: Timer | None = None

    def set(self, at: float, clock: Clock, now: float, ref: bool = False) -> None:
        """Has it ring at a time, or before, if it is set to that already. Never switches.

        Args:
            at: the time; `inf`: it need not.
            clock: makes the timer.
            now: its time.
            ref: this is a reason for the process to go on.
        """
        if at >= self.at and self._has_ref >= ref:
            return
        at, ref, keeps = min(at, self.at), ref or self._has_ref, self.keeps
        self.stop()
        if at < math.inf:
            self.at, self.keeps, self._has_ref = at, keeps, ref
            self._timer = clock.call_later(max(0.0, at - now), self._called, ref=ref)

    def stop(self) -> None:
        """It does not ring. Never switches."""
        self.at, self.keeps, self._has_ref = math.inf, None, False
        if self._timer is not None:
            self._timer.stop()
            self._timer = None

    def _called(self) -> None:
        at, ring = self.at, self._ring()  # which keeps what it is a method of
        self.stop()
        if ring is not None:
            ring(at)
