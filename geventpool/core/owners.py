"""Who holds what: holders that end with an entry in hand, and callers that wait for each other."""

from __future__ import annotations

import gc
import heapq
import logging
import math
from collections.abc import Callable
from functools import partial
from typing import Any

from gevent import Greenlet, GreenletExit, getcurrent

from ..errors import PoolDeadlock
from . import causes, stacks
from .entry import IN_USE, Entry
from .shared import Shared
from .waiter import Waiter

log = logging.getLogger("geventpool")

_NAMED = 5
_SHOWN = 20
_LOOK_AFTER = 1.0
_MOMENT = 0.02

# Which greenlet waits for which pool. Of those that wait in one and the same thread. Whoever ends to
# wait takes itself out.
waits: dict[Any, tuple[Owners, Waiter]] = {}


class _Ended:
    """Stands for an owner that has ended, until the entry comes back or has another owner."""

    __slots__ = ()
    dead = True


class Owners:
    """The greenlets behind a pool's entries in use.

    Args:
        pool: whose.
        discard: takes an entry out of circulation, for a cause.
        refuse: gives one in line an error.

    Attributes:
        records_stacks: remember where entries are taken, because one was lost before.
    """

    def __init__(
        self,
        pool: Shared,
        discard: Callable[[Entry, str], object],
        refuse: Callable[[Waiter, BaseException, str], object],
    ) -> None:
        self._pool = pool
        self._discard = discard
        self._refuse = refuse
        self._on_end = self._owner_ended  # one for all entries
        self.records_stacks = False
        self._described_at = -math.inf
        self._description = ""

    def add(self, entry: Entry) -> None:
        """A new entry, whose owners are to be followed."""
        entry.on_owner_end = self._on_end

    def own(self, entry: Entry) -> None:
        """The calling greenlet holds an entry from now on. Never switches."""
        entry.owner = owner = getcurrent()
        if isinstance(owner, Greenlet):
            owner.rawlink(entry)
        if self.records_stacks:
            entry.stack = stacks.capture(2)

    def take_over(self, entry: Entry) -> None:
        """Another greenlet uses an entry that was handed to it. Never switches."""
        owner = entry.owner
        if entry.state is not IN_USE or owner is getcurrent():
            return
        if self._pool.is_here:
            clear_owner(entry)
            self.own(entry)
        elif isinstance(owner, (Greenlet, _Ended)):  # its end says nothing of this thread
            self._pool.mailbox.post(_disown, entry, owner)

    def describe(self, now: float) -> str:
        """Who holds entries for longest, as a sentence; empty if nobody is known.

        The same for all who ask within a moment: a thousand may time out at once.
        """
        if now - self._described_at < _MOMENT:
            return self._description
        held = heapq.nsmallest(_NAMED, self._in_use(), key=lambda entry: entry.taken_at)
        named = []
        for entry in held:
            owner = entry.owner
            where = "a greenlet that is gone, or another thread"
            if owner is not None and not owner.dead:
                where = f"{stacks.name_of(owner)} at {stacks.place_of(owner)}"
            named.append(f"{now - entry.taken_at:.3g} s by {where}")
        self._described_at = now
        self._description = f"Held for longest: {'; '.join(named)}." if named else ""
        return self._description

    def begins_to_wait(self, waiter: Waiter) -> bool:
        """The calling greenlet is in line. Never switches.

        Costs one look in the usual case: the first holder asked waits for no pool.

        Returns:
            Does it look as if nobody could ever be served? That is to be looked at again a moment later.
        """
        waits[waiter.greenlet] = self, waiter
        for entry in self._pool.ledger.entries:
            if entry.owner not in waits:
                return False
            break
        return self._find_ring() is not None

    def break_deadlock(self) -> None:
        """Refuses one of those who wait for each other, if there are such. Never switches.

        The one whose own time-out would come first: if that is soon, it is no deadlock.
        """
        if self._find_ring() is None:
            return
        gc.collect()  # some of them may have been dropped in reference cycles
        ring = self._find_ring()
        if ring is None or self._is_resolved(ring):
            return
        told = [
            f"{stacks.name_of(owner)} holds {entry.resource!r} of {owners._pool!r}:\n"
            f"{stacks.format_greenlet(owner)}"
            for owners, entry, owner in ring[:_SHOWN]
        ]
        more = f"and {len(ring) - _SHOWN} more\n" if len(ring) > _SHOWN else ""
        error = PoolDeadlock(
            f"{self._pool!r} can never serve this caller: every greenlet that holds a connection waits "
            "for another one. Take both connections at once, or give one back first; or raise max_size "
            f"above the number of greenlets that nest. The holders:\n{''.join(told)}{more}",
            causes.DEADLOCK,
        )
        owners, waiter = min(
            (waits[entry.owner] for entry in self._in_use()), key=lambda wait: wait[1].deadline
        )
        owners._refuse(waiter, error, causes.DEADLOCK)

    def _is_resolved(self, ring: list[tuple[Owners, Entry, Any]]) -> bool:
        """Has a listener of one of the pools made room? Never switches."""
        for owners in dict.fromkeys(owners for owners, _, _ in ring):
            if (listener := owners._pool.listener) is not None:
                listener.ring_found()
                if self._find_ring() is None:
                    return True
        return False

    def _find_ring(self) -> list[tuple[Owners, Entry, Any]] | None:
        """All holders, if every one of them waits for a pool all of whose holders do; else `None`."""
        pools, ring = [self], []
        for one in pools:  # grows on the way
            ledger = one._pool.ledger
            if ledger.idle or ledger.opening or ledger.closing or ledger.room > 0:
                return None
            if not ledger.entries:  # the cap is 0 for now
                return None
            for entry in ledger.entries:
                owner = entry.owner
                waited_for, waiter = waits.get(owner, (None, None))
                if waited_for is None or waiter is None or waiter.is_settled:
                    return None
                ring.append((one, entry, owner))
                if waited_for not in pools:
                    pools.append(waited_for)
        return ring

    def _in_use(self) -> list[Entry]:
        return [entry for entry in self._pool.ledger.entries if entry.state is IN_USE]

    def _owner_ended(self, entry: Entry, greenlet: Any) -> None:
        """Runs in the hub. What was merely dropped is on its way back by itself."""
        if entry.owner is not greenlet:
            return
        ended = entry.owner = _Ended()
        # One that came to its end was in no exchange; another greenlet may be by now.
        was_killed = not greenlet.successful() or isinstance(greenlet.value, GreenletExit)
        was_busy = was_killed and self._pool.handlers.is_busy(entry.resource)
        after = self._pool.config.reclaim_after
        look = partial(self._look_after, entry, ended, greenlet, was_busy)
        self._pool.clock.call_later(_LOOK_AFTER if after is None else after, look, ref=False)

    def _look_after(self, entry: Entry, ended: _Ended, greenlet: Any, was_busy: bool) -> None:
        if entry.owner is not ended or entry.state is not IN_USE:
            return  # it came back, or another greenlet has used it since
        pool = self._pool
        if not was_busy and pool.handlers.is_busy(entry.resource):
            # Another greenlet waits for an answer on it, whose socket must not be closed under it.
            look = partial(self._look_after, entry, ended, greenlet, was_busy)
            pool.clock.call_later(pool.config.reclaim_after or _LOOK_AFTER, look, ref=False)
            return
        gc.collect()  # what was only dropped comes back by itself, and sound
        if entry.owner is not ended or entry.state is not IN_USE:
            return
        self.records_stacks = True
        pool.counters.owners_ended += 1
        is_reclaimed = pool.config.reclaim_after is not None
        log.warning(
            "%r: a greenlet has ended while it held %r, lent %.3g s ago, which something still refers "
            "to: %s. %s",
            pool,
            entry.resource,
            pool.clock.now() - entry.taken_at,
            "it is closed and its place is free" if is_reclaimed else "its place stays taken",
            _tell(greenlet, entry),
        )
        if is_reclaimed:
            self._discard(entry, causes.OWNER_ENDED)


def clear_owner(entry: Entry) -> None:
    """Nobody holds an entry any more. Never switches."""
    owner = entry.owner
    entry.owner = entry.stack = None
    if isinstance(owner, Greenlet):
        owner.unlink(entry)


def _disown(entry: Entry, owner: Any) -> None:
    if entry.owner is owner:
        clear_owner(entry)


def _tell(greenlet: Any, entry: Entry) -> str:
    """What is known of a greenlet that has ended."""
    told = f"It was {stacks.name_of(greenlet)}"
    error = getattr(greenlet, "exception", None)
    if error is not None:
        told += f", which ended with {type(error).__name__}"
    if entry.stack is not None:
        return f"{told}. Taken at:\n{stacks.format_capture(entry.stack)}"
    spawned = getattr(greenlet, "spawning_stack", None)
    if spawned is None:
        return told
    spawned_at = stacks.format_frames(spawned)
    return f"{told}. Spawned at (the next time, where it was taken will be known):\n{spawned_at}"
