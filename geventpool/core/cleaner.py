"""Retires idle entries when they are due.

A hub timer without a reference rings when the longest-idle entry is due, and a greenlet closes what the
policy no longer wants. Between two rings there is nothing: no greenlet, no poll, no thread, and no timer
while nothing can become due.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from .waiter import Timer

if TYPE_CHECKING:
    from .pool import ResourcePool

SOON = 0.1
"""Seconds: how late an idle entry may be closed."""


class Cleaner:
    """Asks the policy when the longest-idle entry is due, and retires it then.

    Args:
        pool: whose entries.
        is_timed: False: no timer; `acquire` and `release` call `sweep` on their way.

    Attributes:
        is_armed: a timer runs.
        rings_at: until then.
    """

    def __init__(self, pool: ResourcePool, is_timed: bool) -> None:
        self._pool = pool
        self.is_timed = is_timed
        self.is_armed = False
        self.rings_at = math.inf
        self._timer: Timer | None = None

    def arm(self) -> None:
        """Sets the timer for the longest-idle entry, if it can become due. Never switches."""
        self.stop()
        if not self.is_timed:
            return
        due = self._due()
        if due < math.inf:
            self._ring_at(due)

    def returned(self) -> None:
        """Something has become idle: this, and those who drain, may have to know. Never switches."""
        if not self.is_timed:
            self.sweep()
        elif not self.is_armed:
            self.arm()
        elif not self._pool.ledger.in_use:
            self.quieten()
        self._pool.draining.notify()

    def quieten(self) -> None:
        """Nothing is in use any more: what was due after some traffic may now be due earlier.

        That is looked at in a moment, because traffic may go on, one caller after the other.
        """
        self._ring_at(self._pool.clock.now() + SOON)

    def sweep(self) -> None:
        """Retires what is due now; greenlets close it. Never switches."""
        pool = self._pool
        while self._due() <= pool.clock.now():
            pool.discard(pool.ledger.idle[0], "idle")

    def stop(self) -> None:
        """Stops the timer."""
        self.is_armed = False
        self.rings_at = math.inf
        if self._timer is not None:
            self._timer.stop()
            self._timer = None

    def _ring_at(self, time: float) -> None:
        self.stop()
        self.is_armed = True
        self.rings_at = time
        clock = self._pool.clock
        self._timer = clock.call_later(max(0.0, time - clock.now()), self._ring, ref=False)

    def _due(self) -> float:
        pool = self._pool
        ledger = pool.ledger
        size = len(ledger.idle) + ledger.in_use
        if not ledger.idle or size + ledger.opening <= pool.min_idle:
            return math.inf
        return pool.policy.closes_at(pool.clock.now(), size, ledger.idle[0].idle_since)

    def _ring(self) -> None:
        self.sweep()
        self.arm()
