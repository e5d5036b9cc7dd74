"""Acquire, release, close: the only code of the core that blocks.

The ledger decides without switching; here its decisions are carried out. At every switch point exactly one
party answers for an entry, and a kill that arrives there leaves the books right.
"""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Callable
from functools import partial
from typing import Any
from weakref import WeakMethod

import gevent
from gevent import Greenlet, getcurrent
from gevent._hub_local import get_hub_if_exists

from ..errors import PoolClosed
from ..sizing import SizingPolicy
from . import registry, threads
from .cleaner import SOON, Cleaner
from .closing import close_in_time
from .drain import Drain
from .entry import CLOSED, CLOSING, IDLE, IN_USE, Entry
from .handlers import Handlers, Limits
from .holders import Holders, disown
from .ledger import Ledger
from .line import Line
from .listener import Listener, Recorder
from .opener import Opener
from .renewal import Renewal
from .soundness import begin_to_watch, has_died_lent, lend_sound, settle_sure_for, wait
from .stacks import capture
from .stats import Counters, PoolStats, snapshot
from .waiter import Clock, HubClock, Waiter
from .watch import Tell, is_dead, is_quiet, leave

log = logging.getLogger("geventpool")

# Causes for which an entry is closed that may mean that the other side is gone.
_SIGNS_OF_DEATH = ("dead", "invalidated")


class ResourcePool:
    """A pool of resources, owned by one thread's hub.

    Args:
        handlers: what is done with a resource.
        policy: how many to keep.
        limits: the settings.
        name: for messages.
        clock: time and timers; real ones by default.
        is_cleaner_timed: close what is surplus by a hub timer; else `acquire` and `release` do it.

    Attributes:
        listener: is told of everything, if there is one.
        recorder: is told of every return, if there is one. On the class: that of all pools.
    """

    recorder: Recorder | None = None

    def __init__(
        self,
        handlers: Handlers,
        policy: SizingPolicy,
        limits: Limits,
        *,
        name: str = "pool",
        clock: Clock | None = None,
        is_cleaner_timed: bool = True,
    ) -> None:
        self.name = name
        self.handlers = handlers
        self.clock: Clock = clock or HubClock()
        self.hub: Any = None
        self.mailbox: Any = None  # the hub's, for other threads
        self.limits = limits
        self.min_idle = limits.min_idle
        self.listener: Listener | None = None
        self._cleaner_is_timed = is_cleaner_timed
        self.tell: WeakMethod[Tell] = WeakMethod(self._hung_up)
        self._begin(policy)
        registry.add(self)

    def _begin(self, policy: SizingPolicy) -> None:
        self.policy = policy
        self.ledger: Ledger = Ledger(self.limits.max_size, lifo=self.limits.lifo)
        self.counters = Counters()
        self.is_closed = False
        self.is_dormant = False  # disposed of, until somebody asks again
        self.is_oversize = False  # the cap was lowered below what is in use
        self.entries: set[Entry] = set()  # open ones, in whatever state
        self.draining = Drain(self.ledger, self.clock)
        self.line: Line = Line(self)
        self.holders: Holders = Holders(self)
        self.renewal: Renewal = Renewal(self)
        self.opener: Opener = Opener(self)
        self.cleaner: Cleaner = Cleaner(self, self._cleaner_is_timed)

    def acquire(self, timeout: float | None) -> Entry:
        """Lends an entry. Never switches when one is idle and sure, or with `timeout=0`.

        Args:
            timeout: seconds until the caller gives up, waiting, connecting and checking together;
                0: take what is there or fail; `None`: wait for ever.

        Raises:
            PoolTimeout: nothing came in time.
            PoolOverloaded: the line is too long, or stands for too long.
            PoolDeadlock: everybody who holds one waits for another.
            PoolClosed: the pool is closed.
            Exception: what `open` raised for this caller.
        """
        if (self.hub is None or get_hub_if_exists() is not self.hub) and not threads.owns(self):
            return threads.acquire(self, timeout)
        now = self.clock.now()
        if not self._cleaner_is_timed:
            self.cleaner.sweep()
        ledger = self.ledger
        if ledger.waiting or not ledger.idle:
            self.policy.requested(now)
            entry = wait(self, math.inf if timeout is None else now + timeout, now)
        else:  # as in `Ledger.take`, for one frame less
            entry = ledger.idle.pop() if ledger.lifo else ledger.idle.popleft()
            entry.state = IN_USE
            ledger.in_use = in_use = ledger.in_use + 1
            entry.taken_at = now
            self.policy.took(now, in_use)
            if now >= entry.sure_until or not (entry.poll is None or is_quiet(entry, now)):
                entry = lend_sound(self, entry, now, timeout)
        self.counters.checkouts += 1
        entry.owner = owner = getcurrent()  # as in `Holders.own`
        if isinstance(owner, Greenlet):
            owner.rawlink(entry.on_owner_end)
        if self.holders.records_stacks:
            entry.stack = capture(1)
        if self.listener is not None:
            self.listener.lent(entry, self.clock.now() - now)
        return entry

    def release(self, entry: Entry, is_clean: bool = False) -> None:
        """Takes an entry back. Switches greenlets only if its resource has to be reset.

        The first caller in line gets it. In another thread than the owner's, waits for its hub.

        Args:
            entry: the entry.
            is_clean: it is known that there is nothing to reset.

        Raises:
            AssertionError: the entry is not lent (it was released twice).
        """
        if get_hub_if_exists() is not self.hub:
            threads.release(self, entry, is_clean)
            return
        if entry.state is not IN_USE:
            if entry.state in (CLOSING, CLOSED):
                return  # reclaimed, or from before a fork: the parent's
            raise AssertionError(f"bug: released an entry that is {entry.state}")
        try:
            is_clean = is_clean or self.handlers.is_clean(entry.resource)
        except BaseException:
            self.discard(entry, "reset failed")
            raise
        if not is_clean and not (self.reset(entry) and entry.state is IN_USE):
            return
        if entry.is_suspect and has_died_lent(self, entry):
            self.discard(entry, "dead")
            return
        now, ledger = self.clock.now(), self.ledger
        if (
            now >= entry.expires_at or self.is_oversize or self.is_closed
        ) and not self.renewal.keeps(entry, now):
            self.discard(entry, "closed" if self.is_closed else "expired")
            self.is_oversize = ledger.size - ledger.closing > ledger.max_size
            return
        owner = entry.owner  # as in `disown`
        if owner is not None:
            entry.owner = entry.stack = None
            if isinstance(owner, Greenlet):
                owner.unlink(entry.on_owner_end)
        held = now - entry.taken_at
        self.counters.hold_seconds += held
        if self.listener is not None:
            self.listener.returned(entry, held)
        if self.recorder is not None:
            self.recorder.record(self, entry, held)
        if ledger.waiting:
            self.line.patience.held(held)
            self.line.choose_next(now)
        if ledger.waiting:
            self._serve(ledger.put(entry), entry, now)
            return
        entry.state = IDLE  # as in `Ledger.put`
        ledger.in_use = in_use = ledger.in_use - 1
        ledger.idle.append(entry)
        self.policy.fell(now, in_use)
        entry.idle_since = now
        entry.waited = 0.0
        sure_until = now + entry.sure_for
        entry.sure_until = sure_until if sure_until < entry.expires_at else entry.expires_at
        if entry.is_suspect:
            entry.sure_until = -math.inf
        if self.draining.waiters or (
            len(ledger.idle) + in_use > self.min_idle
            and (not self.cleaner.is_armed or (not in_use and self.cleaner.rings_at > now + SOON))
        ):
            self._tidy()

    def abandon(self, entry: Entry, give_back: Callable[[Entry], object] | None = None) -> None:
        """Releases an entry whose holder has dropped it. Never switches: for finalizers.

        Args:
            entry: the entry.
            give_back: does it, in a greenlet of its own; `release` by default.
        """
        if self.is_here:
            disown(entry)
        if self.mailbox is not None:
            self.mailbox.post(self.in_background, give_back or self.release, entry)

    def discard(self, entry: Entry, cause: str) -> None:
        """Has an entry closed in the background instead of released. Never switches."""
        if get_hub_if_exists() is not self.hub:
            self.abandon(entry, partial(self.discard, cause=cause))
            return
        if entry.state in (CLOSING, CLOSED):
            return
        self._retire(entry, cause)
        self.in_background(self._close_retired, entry)

    def forget(self, entry: Entry, cause: str) -> None:
        """Drops an entry whose resource is gone, or somebody else's from now on. Never switches."""
        if get_hub_if_exists() is not self.hub:
            self.abandon(entry, partial(self.forget, cause=cause))
            return
        if entry.state in (CLOSING, CLOSED):
            return
        self._retire(entry, cause)
        self._closed(entry)

    @threads.in_owners_thread
    def expire_all(self) -> None:
        """Has everything that is open by now replaced before its next use. Never switches."""
        self.renewal.due_when_returned.clear()
        for entry in self.entries:
            entry.expires_at = entry.sure_until = -math.inf

    @threads.in_owners_thread
    def configure(self, limits: Limits, policy: SizingPolicy | None = None) -> None:
        """Changes the settings. Surplus idle entries are closed now, those in use when released.

        Never switches.
        """
        self.limits = limits
        self.min_idle = limits.min_idle
        for entry in self.entries:
            settle_sure_for(self, entry)
        if policy is not None:
            self.policy = policy
        if self.opener.ahead:
            self.opener.ahead = limits.min_idle
        ledger = self.ledger
        ledger.lifo, ledger.max_size = limits.lifo, limits.max_size
        while ledger.idle and ledger.size - ledger.closing > ledger.max_size:
            self.discard(ledger.idle[0], "resized")
        self.is_oversize = ledger.size - ledger.closing > ledger.max_size
        self.opener.look(self.clock.now())
        self.cleaner.arm()

    @threads.in_owners_thread
    def warm_up(self) -> None:
        """Opens up to `min_idle` resources in the background and keeps that many. Never switches."""
        self.opener.ahead = self.min_idle
        self.opener.open_wanted(self.clock.now())

    @threads.in_owners_thread
    def close_idle(self, cause: str) -> None:
        """Closes everything idle before it returns. May switch greenlets."""
        retired = []
        while self.ledger.idle:
            retired.append(self.ledger.idle[0])
            self._retire(retired[-1], cause)
        try:
            while retired:
                self._close_retired(retired.pop())
        finally:
            for entry in retired:  # the caller was killed: others go on
                self.in_background(self._close_retired, entry)

    @threads.in_owners_thread
    def dispose(self) -> None:
        """Closes what is idle, and keeps nothing, until somebody asks again. May switch greenlets."""
        self.opener.ahead = 0
        self.min_idle = 0
        self.is_dormant = True
        self.close_idle("disposed")
        self.opener.look(self.clock.now())

    def wake(self) -> None:
        """Somebody asks again: as it was before `dispose`. Never switches."""
        self.is_dormant = False
        self.min_idle = self.limits.min_idle

    @threads.in_owners_thread
    def close(self) -> None:
        """Closes what is idle, refuses who waits; what is in use is closed when released."""
        self.is_closed = True
        self.opener.stop()
        self.line.refuse_all(PoolClosed(f"{self!r} was closed"))
        self.close_idle("closed")

    @threads.in_owners_thread
    def drain(self, timeout: float) -> bool:
        """Waits until nothing is in use. Switches greenlets.

        Returns:
            False if something was still in use after `timeout` seconds.
        """
        return self.draining.wait(timeout)

    def stats(self) -> PoolStats:
        """A frozen snapshot of all figures. Never switches."""
        return snapshot(self)

    def status(self) -> str:
        """All figures in one line of text."""
        return f"{self!r}: {self.stats()}"

    def __repr__(self) -> str:
        return f"<{self.name} {self.ledger!r}>"

    @property
    def is_here(self) -> bool:
        """Does the calling thread own the pool?"""
        return self.hub is not None and get_hub_if_exists() is self.hub

    def add_opened(self, entry: Entry, now: float) -> None:
        """Puts a new resource into circulation. Never switches."""
        self.counters.opened += 1
        self.entries.add(entry)
        self.holders.add(entry)
        entry.opened_at = now
        begin_to_watch(self, entry)
        self.renewal.add(entry)
        if self.ledger.waiting:
            self.line.choose_next(now)
        waiter = self.ledger.opened(entry)
        if waiter is not None:
            self.policy.rose(now, self.ledger.in_use)
            self._serve(waiter, entry, now)
        elif self.is_closed:
            self.discard(entry, "closed")
            return
        else:
            entry.idle_since = now
            entry.sure_until = min(now + entry.sure_for, entry.expires_at)
        self.cleaner.arm()  # there is one more, so the longest idle may be due earlier

    def _retire(self, entry: Entry, cause: str) -> None:
        """Takes an entry out of circulation, to be closed. Never switches."""
        leave(entry)
        was_in_use = entry.state is IN_USE
        self.ledger.retire(entry)
        self.renewal.forget(entry)
        entry.cause = cause
        self.counters.closed[cause] += 1
        if cause in _SIGNS_OF_DEATH:
            self.opener.doubt()
        if was_in_use:
            now = self.clock.now()
            disown(entry)
            self.counters.hold_seconds += now - entry.taken_at
            if self.listener is not None:
                self.listener.returned(entry, now - entry.taken_at)
            if self.recorder is not None:
                self.recorder.record(self, entry, now - entry.taken_at)
            self.policy.fell(now, self.ledger.in_use)
            self.draining.notify()
        if self.listener is not None:
            self.listener.closed(entry, cause)

    def _close_retired(self, entry: Entry) -> None:
        """Closes a retired entry's resource and frees its place, whatever happens. May switch.

        The place is not free before the other side has let go, or could not be seen to.
        """
        ghost = None
        try:
            with contextlib.suppress(
                Exception
            ):  # a driver's surprise must not keep it from being closed
                ghost = self.handlers.ghost(entry.resource)
            if ghost is not None and entry.cause == "abandoned":
                now = self.clock.now()  # its holder was killed, moments ago
                self.line.patience.ended(now - entry.taken_at + entry.waited, now)
                self.line.patience.cut_short(now - entry.taken_at)
            close_in_time(self, entry)
        finally:
            try:
                if ghost is not None and entry.cause != "dead":  # nobody would answer
                    is_gone = self.handlers.lay(ghost)
                    self.counters.cancelled += is_gone
                    self.counters.cancel_failures += not is_gone
            finally:
                self._closed(entry)

    def in_background(self, errand: Callable[[Entry], object], entry: Entry) -> None:
        """Does what may switch where the caller must not. The greenlet is a raw one, because a
        program may kill all the `Greenlet`s that it finds.
        """
        gevent.spawn_raw(self._run_errand, errand, entry)

    def _run_errand(self, errand: Callable[[Entry], object], entry: Entry) -> None:
        try:
            self.handlers.move(entry.resource)  # its holder may have been another thread
        except Exception:
            log.exception("%r: error while moving %r to this thread", self, entry.resource)
        try:
            errand(entry)
        except Exception:
            log.exception("%r: error in the background", self)

    def _hung_up(self, entry: Entry) -> None:
        """An entry's socket has hung up, or one that had its number before. Never switches."""
        if entry.state is IN_USE:
            entry.is_suspect = True  # looked at when it comes back
        elif entry.state is IDLE and is_dead(entry, self.handlers):
            self.discard(entry, "dead")

    def reset(self, entry: Entry) -> bool:
        """Resets a returned entry; the releasing greenlet owns it. True: it can be lent again."""
        self.holders.own_again(entry)  # it may be another than the one that took it
        self.counters.resets += 1
        try:
            is_fit = self.handlers.reset(entry.resource)
        except BaseException as error:
            self.discard(entry, "reset failed")
            if not isinstance(error, Exception):
                raise
            log.warning("%r: error while resetting %r", self, entry.resource, exc_info=True)
            return False
        if not is_fit and entry.state is IN_USE:
            self.discard(entry, "abandoned")
        return is_fit

    def _tidy(self) -> None:
        """Something has been released: the cleaner and those who drain may have to know."""
        if not self.cleaner.is_timed:
            self.cleaner.sweep()
        elif not self.cleaner.is_armed:
            self.cleaner.arm()
        elif not self.ledger.in_use:
            self.cleaner.quieten()
        self.draining.notify()

    def _serve(self, waiter: Waiter, entry: Entry, now: float) -> None:
        self.opener.unwant(waiter)
        entry.taken_at = now
        waiter.serve(entry)

    def _closed(self, entry: Entry) -> None:
        self.entries.discard(entry)
        if entry.state is not CLOSED:  # else the process has forked while it was being closed
            self.ledger.closed(entry)
        self.opener.look(self.clock.now())

    def begin_again_after_fork(self) -> None:
        """The child's part of a fork: an empty pool, and nothing of the parent's is touched."""
        if self.is_here:
            self.opener.abort()
            self.cleaner.stop()
            self.renewal.stop()
            self.line.refuse_all(PoolClosed(f"{self!r} belongs to the parent of this process"))
        else:  # another thread's, which is not here any more: nothing of it may be touched
            registry.keep_for_good(
                (self.opener, self.cleaner, self.renewal, self.line, self.ledger)
            )
        registry.disown(self.entries, self.handlers.fileno)
        self.handlers = threads.bare(self.handlers)
        self._begin(self.policy.fresh())
        self.hub = None
