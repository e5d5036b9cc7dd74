"""A second look at an entry: before it is lent, and when it has come back in doubt."""

from __future__ import annotations

import math
from collections.abc import Callable

import gevent

from . import causes
from .entry import Entry
from .shared import Shared
from .upkeep import Upkeep
from .watch import has_same_socket, is_dead


class Checks:
    """Looks at one pool's entries: their age, their socket, and a ping if need be.

    Args:
        pool: whose.
        upkeep: follows their sockets and ages.
        discard: closes what will not do, unless that is done already: a ping switches greenlets.
        release: takes an entry back.
    """

    def __init__(
        self,
        pool: Shared,
        upkeep: Upkeep,
        discard: Callable[[Entry, str], object],
        release: Callable[[Entry, bool, bool], object],
    ) -> None:
        self._pool = pool
        self._upkeep = upkeep
        self._discard = discard
        self._release = release

    def is_sound(self, entry: Entry, now: float, deadline: float) -> bool:
        """Looks at an entry that was just taken, and pings it if need be; discards what cannot be lent."""
        if now >= entry.expires_at:
            self._discard(entry, causes.EXPIRED)
            return False
        if is_dead(entry, self._pool.handlers):
            self._discard(entry, causes.DEAD)
            return False
        if not has_same_socket(entry):  # it has reconnected by itself
            self._upkeep.watch(entry)
        if now - entry.idle_since < entry.sure_for and not entry.is_suspect:
            return True
        if deadline <= now:
            # timeout=0 never switches: somebody else checks, the next caller has the use of it.
            self._upkeep.in_background(self._check_and_return, entry)
            return False
        patience = self._pool.config.connect_timeout
        limit = gevent.Timeout.start_new(min(deadline - now, patience))
        try:
            return self._check(entry)
        except gevent.Timeout as error:
            if error is not limit:
                raise
            if deadline - now <= patience:
                waiting = self._upkeep.waiting
                raise waiting.timed_out(self._pool.clock.now(), now, 0.0) from None
            self._discard(entry, causes.DEAD)
            for other in self._pool.ledger.idle:  # to ask them would take as long for each
                other.expires_at = -math.inf
            return False
        finally:
            limit.close()

    def _check(self, entry: Entry) -> bool:
        """Pings. The caller owns the entry; if it comes to harm, so does nobody else."""
        self._pool.counters.pings += 1
        entry.is_suspect = False  # now, because the hub may learn something worse meanwhile
        is_alive = self._pool.handlers.check(entry.resource)
        if not is_alive:
            self._discard(entry, causes.DEAD)
            for other in self._pool.ledger.idle:  # what has killed it has perhaps killed the others
                other.is_suspect = True
        return is_alive

    def _check_and_return(self, entry: Entry) -> None:
        try:
            is_fit = self._check(entry)
        except BaseException:
            self._discard(entry, causes.CHECK_INTERRUPTED)
            raise
        if is_fit:
            self._release(entry, True, True)

    def is_fit(self, entry: Entry, now: float) -> bool:
        """Looks at an entry that has come back in doubt; discards what is not kept. Never switches."""
        why_not = self._why_not_fit(entry, now)
        if why_not:
            self._discard(entry, why_not)
        return not why_not

    def _why_not_fit(self, entry: Entry, now: float) -> str:
        if entry.is_suspect:
            entry.is_suspect = False
            if is_dead(entry, self._pool.handlers):
                return causes.DEAD
            if not has_same_socket(entry):  # it has only reconnected
                self._upkeep.watch(entry)
        self._pool.note_shrinking()
        why_not = self._pool.why_not_kept()
        if not why_not and now >= entry.expires_at and not self._upkeep.came_back_old(entry, now):
            return causes.EXPIRED
        return why_not
