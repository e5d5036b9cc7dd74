"""A greenlet in line, without locks or events: the hub's own callbacks wake it."""

from __future__ import annotations

import math
from typing import Any

from gevent import get_hub, getcurrent

from .clock import Clock
from .line import Caller


class Waiter(Caller):
    """A caller with its greenlet. Settled once, with a value or an error; later settlements are bugs.

    Attributes:
        greenlet: who waits; `None` when that is over.
        value: what it was served; stays here if the greenlet is killed on its way out, so that
            whoever catches the kill can give it back.
        error: what it was refused with.
        is_settled: one of the two has come.
    """

    __slots__ = ("_is_expired", "_wake_up", "error", "greenlet", "is_settled", "value")

    def __init__(self, parked_at: float = 0.0, deadline: float = math.inf) -> None:
        self.parked_at = parked_at
        self.deadline = deadline
        self.blocked_before = 0.0
        self.is_pools = self.wants_open = self.is_overdue = False
        self.holds_until = 0.0
        self.value: Any = None
        self.error: BaseException | None = None
        self.is_settled = False
        self.greenlet: Any = getcurrent()
        self._is_expired = False
        self._wake_up: Any = None  # the hub's callback

    def serve(self, value: Any) -> None:
        """Hands over a value and schedules the greenlet. Never switches."""
        if self.is_settled:
            raise AssertionError("bug: a waiter was settled twice")
        self.value, self.is_settled = value, True
        if self._wake_up is None and self.greenlet is not None:
            self._wake_up = get_hub().loop.run_callback(self.greenlet.switch)

    def refuse(self, error: BaseException) -> None:
        """Hands over an error and schedules the greenlet. Never switches."""
        self.serve(None)
        self.error = error

    def wait(self, clock: Clock, seconds: float | None) -> bool:
        """Waits until settled. Switches greenlets.

        Args:
            clock: measures the seconds.
            seconds: longest wait; `None`: until somebody calls `expire`.

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
            # What is still queued in the hub would interrupt whatever the greenlet waits for next.
            if self._wake_up is not None:
                self._wake_up.stop()
            self.greenlet = None
            if timer is not None:
                timer.stop()
        return self.is_settled

    def expire(self) -> None:
        """Its time is over: `wait` returns False, if nothing has come. Never switches."""
        self._is_expired = True
        if self._wake_up is None and self.greenlet is not None:
            self._wake_up = get_hub().loop.run_callback(self.greenlet.switch)
