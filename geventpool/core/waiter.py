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
        value: what it was served; stays here if the greenlet is killed on its way out, so that
            whoever catches the kill can give it back.
        error: what it was refused with.
        is_settled: one of the two has come.
    """

    __slots__ = ("_greenlet", "_is_expired", "error", "is_settled", "value")

    def __init__(self, parked_at: float = 0.0, deadline: float = math.inf) -> None:
        self.parked_at = parked_at
        self.deadline = deadline
        self.blocked_before = 0.0
        self.is_pools = self.wants_open = self.is_overdue = False
        self.holds_until = 0.0
        self.value: Any = None
        self.error: BaseException | None = None
        self.is_settled = False
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
