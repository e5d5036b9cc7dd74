"""Replaces entries before they are too old: the new one is opened first, then the old one is closed.

And those of an age that something is wrong with: all that were opened before an error that says so.

Each entry is due at a moment of its own, between 75 % and 90 % of `lifetime`, so that connections which
were opened together do not all go together; at `lifetime` itself it is no longer lent at all.
"""

from __future__ import annotations

import logging
import math
import random
from functools import partial
from typing import TYPE_CHECKING
from weakref import ref

from .entry import IDLE, IN_USE, Entry
from .waiter import Timer

if TYPE_CHECKING:
    from .pool import ResourcePool

log = logging.getLogger("geventpool")

_EARLIEST = 0.75
_LATEST = 0.90
# What takes the place of distrusted entries may be no better, as long as an address leads to the same
# server, or because the program is to blame. It is distrusted after these seconds at the earliest, which
# double up to the second figure while that goes on.
_FIRST_PAUSE = 1.0
_LONGEST_PAUSE = 8.0

# Of less than that nothing can be renewed in time: it is replaced when it is asked for.
_SHORTEST = 1.0


def _ring(renewal_ref: ref[Renewal], entry_ref: ref[Entry]) -> None:
    renewal, entry = renewal_ref(), entry_ref()
    if renewal is not None and entry is not None:
        renewal.age(entry)


class Renewal:
    """The ages of one pool's entries.

    Attributes:
        ageing: entries for which replacements are wanted.
        due_when_returned: lent ones, whose time has come.
        distrusted_at: what was opened before is to be replaced.
    """

    def __init__(self, pool: ResourcePool) -> None:
        self._pool = pool
        self._timers: dict[Entry, Timer] = {}
        self.due_when_returned: set[Entry] = set()
        self.ageing: list[Entry] = []
        self.distrusted_at = -math.inf
        self._pause = _FIRST_PAUSE

    def add(self, entry: Entry) -> None:
        """A new entry: sets the timer of its age, and closes the one that it replaces."""
        lifetime = self._pool.config.lifetime
        entry.expires_at = min(entry.expires_at, entry.opened_at + lifetime)
        self._await_age(entry, entry.opened_at)
        if self.ageing:
            old = self.ageing.pop(0)
            self._timers.pop(old).stop()
            self._retire(old)

    def keeps(self, entry: Entry, now: float) -> bool:
        """A lent entry has come back too old: may it stay until its replacement is there?"""
        if entry not in self.due_when_returned:
            return False
        self.due_when_returned.discard(entry)
        entry.expires_at = entry.opened_at + self._pool.config.lifetime
        return now < entry.expires_at and self._replace(entry, now)

    def distrust(self, entry: Entry, why: str) -> None:
        """Something says that this entry, and so all of its age, is of no use. Never switches.

        Args:
            entry: a lent one. Its holder may go on with it.
            why: for the log.
        """
        pool = self._pool
        if not pool.is_here:
            pool.mailbox.post(self.distrust, entry, why)
            return
        now = pool.clock.now()
        quiet_for = now - self.distrusted_at
        if entry.opened_at < self.distrusted_at or quiet_for < self._pause:
            return
        is_first = quiet_for > 2 * _LONGEST_PAUSE
        self._pause = _FIRST_PAUSE if is_first else min(2 * self._pause, _LONGEST_PAUSE)
        self.distrusted_at = now
        pool.opener.doubt()
        pool.expire_all()
        log.warning("%r: %s: all connections that are open by now will be replaced", pool, why)

    def forget(self, entry: Entry) -> None:
        """An entry is closed, for whatever reason."""
        timer = self._timers.pop(entry, None)
        if timer is not None:
            timer.stop()
        self.due_when_returned.discard(entry)
        if entry in self.ageing:
            self.ageing.remove(entry)

    def begin_again(self) -> None:
        """The lifetime has been changed: it counts for what is open, too. Never switches."""
        pool = self._pool
        now = pool.clock.now()
        for entry in pool.entries:
            if entry.state in (IDLE, IN_USE):
                is_only_due = entry in self.due_when_returned
                self.forget(entry)
                if is_only_due or entry.expires_at > -math.inf:  # else it was told to be replaced
                    entry.expires_at = entry.opened_at + pool.config.lifetime
                    entry.sure_until = min(entry.sure_until, entry.expires_at)
                    self._await_age(entry, now)

    def stop(self) -> None:
        """The process has forked: the entries are the parent's."""
        for timer in self._timers.values():
            timer.stop()

    def _await_age(self, entry: Entry, now: float) -> None:
        lifetime = self._pool.config.lifetime
        if _SHORTEST <= lifetime < math.inf:
            due = entry.opened_at + lifetime * random.uniform(_EARLIEST, _LATEST)
            self._set_timer(entry, due - now)

    def _set_timer(self, entry: Entry, seconds: float) -> None:
        # With weak references, as a pool that nobody refers to any more is not to go on.
        ring = partial(_ring, ref(self), ref(entry))
        self._timers[entry] = self._pool.clock.call_later(max(0.0, seconds), ring, ref=False)

    def age(self, entry: Entry) -> None:
        """Its time has come. Never switches."""
        self._timers.pop(entry, None)
        pool = self._pool
        ledger = pool.ledger
        now = pool.clock.now()
        if entry in self.ageing:  # no replacement has come for as long as it may be lent
            self.ageing.remove(entry)
            self._retire(entry)
            return
        if (
            entry.state is IN_USE
        ):  # not now: what was opened now would be surplus until it comes back
            self.due_when_returned.add(entry)
            entry.expires_at = -math.inf
            return
        kept = max(pool.min_idle, pool.policy.demand(now).level)
        if len(ledger.idle) + ledger.in_use > kept or not self._replace(entry, now):
            self._retire(entry)

    def _replace(self, entry: Entry, now: float) -> bool:
        """Has another one opened, if there is room for both."""
        ledger = self._pool.ledger
        if ledger.size >= ledger.max_size or self._pool.is_dormant:
            return False
        self.ageing.append(entry)
        self._set_timer(entry, entry.expires_at - now)
        self._pool.opener.open_wanted(now)
        return True

    def _retire(self, entry: Entry) -> None:
        if entry.state is IDLE:
            self._pool.discard(entry, "expired")
        elif entry.state is IN_USE:
            entry.expires_at = -math.inf  # when it comes back
