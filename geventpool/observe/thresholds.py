"""Who holds a connection, or is idle in a transaction, for too long."""

from __future__ import annotations

import math
import weakref
from collections.abc import Mapping
from functools import partial

import gevent

from ..core import registry
from ..core.clock import Timer
from ..core.entry import IN_USE, Entry
from ..core.pool import ResourcePool
from .findings import Findings
from .holds import ACTIVE, IN_TRANSACTION, Hold, describe, state_of
from .sites import tell_site

_ROUNDING = 1e-3


class Thresholds:
    """Warns once of each connection that is held, or idle in a transaction, for too long.

    One timer, which runs only while something is lent, and rings when the first of them could be due.

    Args:
        core: the pool.
        findings: which thresholds, and who is told.
        holds: what is known of each lent connection.

    Attributes:
        is_armed: the timer runs.
    """

    def __init__(self, core: ResourcePool, findings: Findings, holds: Mapping[Entry, Hold]) -> None:
        settings = findings.settings
        self._core, self._findings, self._holds = core, findings, holds
        self.held_after = settings.held_after or math.inf
        self.idle_after = settings.idle_in_transaction_after or math.inf
        self._kills = settings.kill
        self._shortest = min(self.held_after, self.idle_after)
        # Nothing is ever due: as if the timer ran already.
        self.is_armed = self._shortest == math.inf
        self._timer: Timer | None = None
        self._ringing = 0  # only the timer that was set last counts

    def arm(self) -> None:
        """Something was lent, and the timer does not run. Never switches."""
        self._set_timer(self._shortest)

    def stop(self) -> None:
        """Warns of nothing more."""
        self.is_armed = True
        self._ringing += 1
        if self._timer is not None:
            self._timer.stop()

    def begin_again_after_fork(self) -> None:
        """The timer may be of a thread that is not here any more."""
        registry.keep_for_good(self._timer)
        self._timer = None
        self._ringing += 1
        self.is_armed = self._shortest == math.inf or not self._findings.is_attached

    def returned(self, hold: Hold, held: float) -> None:
        """One that was warned of has come back. Never switches."""
        tell = partial(self._findings.log.warning, "%r: %s: returned after %.3g s", self._core)
        gevent.spawn_raw(tell, hold.warned, held)

    def _set_timer(self, seconds: float) -> None:
        self.is_armed = True
        clock = self._core.clock
        self._ringing += 1
        ring = partial(_ring, weakref.ref(self), self._ringing)  # a timer is to keep no pool alive
        self._timer = clock.call_later(seconds + _ROUNDING, ring, ref=False)

    def ring(self, ringing: int) -> None:
        """A timer rings, in the hub, which nothing may disturb. Never switches."""
        if ringing != self._ringing:
            return
        self._timer = None
        self.is_armed = False  # whoever takes a connection next sets it, if this one fails
        try:
            self.look()
        except Exception:
            self._findings.failed()

    def look(self) -> None:
        """Warns of all that are due, and sets the timer for the next. Never switches."""
        now = self._core.clock.now()
        next_due = math.inf
        late: list[tuple[Entry, Hold, str]] = []
        for entry, hold in self._holds.items():
            if hold.warned is None:
                due, what = self._due(entry, hold, now)
                if due <= now:
                    late.append((entry, hold, what))
                else:
                    next_due = min(next_due, due)
        for entry, hold, what in late:
            self._warn(entry, hold, what)
        if self._holds:
            self._set_timer(min(next_due - now, self._shortest))

    def _due(self, entry: Entry, hold: Hold, now: float) -> tuple[float, str]:
        held_due = entry.taken_at + self.held_after
        if held_due <= now:
            return held_due, "held for too long"
        if self.idle_after < math.inf and hold.began is None:
            idle_due = hold.active_at + self.idle_after
            if idle_due > now:
                return min(held_due, idle_due), ""
            if state_of(entry, hold) == IN_TRANSACTION:
                return idle_due, "idle in transaction"
        return held_due, ""

    def _warn(self, entry: Entry, hold: Hold, what: str) -> None:
        holder = describe(self._core, entry, hold, self._findings.show)
        hold.warned = f"connection {holder.connection}, {what}, taken at {tell_site(hold.site)}"
        kill = self._kills and holder.state != ACTIVE and entry.state is IN_USE
        more = " It is closed now." if kill else ""
        self._findings.warn(what, hold.site, ": %s%s", holder.tell(), more)
        if kill:
            self._core.discard(entry, "killed")


def _ring(thresholds_ref: weakref.ref[Thresholds], ringing: int) -> None:
    thresholds = thresholds_ref()
    if thresholds is not None:
        thresholds.ring(ringing)
