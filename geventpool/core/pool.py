"""Acquire, release, close: the only code of the core that blocks.

The ledger decides without switching; here its decisions are carried out. At every switch point exactly one
party answers for an entry, and a kill that arrives there leaves the books right.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from functools import partial
from typing import Any
from weakref import WeakMethod

import gevent
from gevent import Greenlet, getcurrent
from gevent._hub_local import get_hub_if_exists

from ..config import PoolConfig
from ..errors import PoolClosed, printable
from ..sizing import SizingPolicy
from . import registry, shrinking, threads
from .cleaner import SOON, Cleaner
from .closing import close_retired
from .drain import Drain
from .entry import CLOSED, CLOSING, IDLE, IN_USE, Entry
from .handlers import Handlers
from .holders import Holders, disown
from .ledger import Ledger
from .line import Line
from .listener import Listener, Recorder, dismiss
from .opener import Opener
from .registry import is_gone, look_for_fork, unforked
from .renewal import Renewal
from .soundness import begin_to_watch, has_died_lent, lend_sound, settle_sure_for, wait
from .stacks import capture
from .stats import Counters, PoolStats, snapshot
from .waiter import Clock, HubClock
from .watch import Tell, is_dead, is_quiet, leave

log = logging.getLogger("geventpool")

# Causes for which an entry is closed that may mean that the other side is gone.
_SIGNS_OF_DEATH = ("dead", "invalidated")


class ResourcePool:
    """A pool of resources, owned by one thread's hub.

    Args:
        handlers: what is done with a resource.
        policy: how many to keep.
        config: the settings.
        name: for messages.
        clock: time and timers; real ones by default.

    Attributes:
        listener: is told of everything, if there is one.
        recorder: is told of every return, if there is one. On the class: that of all pools.
    """

    recorder: Recorder | None = None

    def __init__(
        self,
        handlers: Handlers,
        policy: SizingPolicy,
        config: PoolConfig,
        *,
        name: str = "pool",
        clock: Clock | None = None,
    ) -> None:
        self.name = name
        self.handlers = handlers
        self.clock: Clock = clock or HubClock()
        self.hub: Any = threads.NO_HUB
        self.mailbox: Any = None  # the hub's, for other threads
        self.config = config
        self.min_idle = config.min_idle
        self.listener: Listener | None = None
        self._cleaner_is_timed = config.cleaner
        self.tell: WeakMethod[Tell] = WeakMethod(self._hung_up)
        self._begin(policy)
        registry.add(self)

    def _begin(self, policy: SizingPolicy) -> None:
        self.policy = policy
        self.ledger: Ledger = Ledger(self.config.max_size, lifo=self.config.use_lifo)
        self.counters = Counters()
        self.is_closed = False
        self.is_dormant = False  # disposed of, until somebody asks again: nothing is idle
        self.is_shrinking = False  # closed, dormant, or above a lowered cap
        self.entries: set[Entry] = set()  # open ones, in whatever state
        self.draining = Drain(self.ledger, self.clock)
        self.line: Line = Line(self)
        self.holders: Holders = Holders(self)
        self.renewal: Renewal = Renewal(self)
        self.opener: Opener = Opener(self)
        self.cleaner: Cleaner = Cleaner(self, self._cleaner_is_timed)

    def acquire(self, timeout: float | None, is_new: bool = True) -> Entry:
        """Lends an entry. Never switches when one is idle and sure, or with `timeout=0`.

        Args:
            timeout: seconds until the caller gives up, waiting, connecting and checking together;
                0: take what is there or fail; `None`: wait for ever.
            is_new: False: the caller asks again, which wakes no pool that was disposed of.

        Raises:
            PoolTimeout: nothing came in time.
            PoolOverloaded: the line is too long, or stands for too long.
            PoolDeadlock: everybody who holds one waits for another.
            PoolClosed: the pool is closed.
            Exception: what `open` raised for this caller.
        """
        if (not unforked or get_hub_if_exists() is not self.hub) and not threads.owns(self):
            return threads.acquire(self, timeout, is_new)
        now = self.clock.now()
        if not self._cleaner_is_timed:
            self.cleaner.sweep()
        ledger = self.ledger
        if ledger.waiting or not ledger.idle:
            if is_new and self.is_dormant:
                shrinking.wake(self)
            self.policy.requested(now)
            entry = wait(self, math.inf if timeout is None else now + timeout, now)
        else:  # as in `Ledger.take`, for one frame less
            entry = ledger.idle.pop() if ledger.lifo else ledger.idle.popleft()
            entry.state = IN_USE
            ledger.in_use = in_use = ledger.in_use + 1
            entry.taken_at = now
            self.policy.took(now, in_use)
            if (
                now >= entry.sure_until
                or entry.is_suspect
                or not (entry.poll is None or is_quiet(entry, now))
            ):
                entry = lend_sound(self, entry, now, timeout)
        self.counters.checkouts += 1
        entry.owner = owner = getcurrent()  # as in `Holders.own`
        if isinstance(owner, Greenlet):
            owner.rawlink(entry.on_owner_end)
        if self.holders.records_stacks:
            entry.stack = capture(1)
        if self.listener is not None:
            try:
                self.listener.lent(entry, self.clock.now() - now)
            except Exception:
                dismiss(self)
            except BaseException:  # it has switched, which it must not, and was killed there
                self.discard(entry, "check interrupted")
                raise
        return entry

    def release(self, entry: Entry, is_clean: bool = False, is_callers: bool = True) -> None:
        """Takes an entry back. Switches greenlets only if its resource has to be reset.

        The first caller in line gets it. In another thread than the owner's, waits for its hub.

        Args:
            entry: the entry.
            is_clean: it is known that there is nothing to reset.
            is_callers: False: the pool has lent it to itself, which nobody is told of.

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
        if now >= entry.expires_at or self.is_shrinking:
            why_not = shrinking.why_not_kept(self)
            if why_not or (now >= entry.expires_at and not self.renewal.keeps(entry, now)):
                self.discard(entry, why_not or "expired")
                return
        owner = entry.owner  # as in `disown`
        if owner is not None:
            entry.owner = entry.stack = None
            if isinstance(owner, Greenlet):
                owner.unlink(entry.on_owner_end)
        held = now - entry.taken_at if is_callers else 0.0
        self.counters.hold_seconds += held
        if self.listener is not None and is_callers:
            try:
                self.listener.returned(entry, held)
            except Exception:
                dismiss(self)
            except BaseException:  # as in `acquire`
                self.discard(entry, "reset failed")
                raise
        if self.recorder is not None and is_callers:
            self.recorder.record(self, entry, held)
        if ledger.waiting:
            if is_callers:
                self.line.patience.held(held)
            self.line.choose_next(now)
        if ledger.waiting:
            self.line.serve(ledger.put(entry), entry, now)
            return
        entry.state = IDLE  # as in `Ledger.put`
        ledger.in_use = in_use = ledger.in_use - 1
        ledger.idle.append(entry)
        self.policy.fell(now, in_use)
        entry.idle_since = now
        entry.waited = 0.0
        sure_until = now + entry.sure_for
        entry.sure_until = sure_until if sure_until < entry.expires_at else entry.expires_at
        if self.draining.waiters or (
            len(ledger.idle) + in_use > self.min_idle
            and (not self.cleaner.is_armed or (not in_use and self.cleaner.rings_at > now + SOON))
        ):
            self.cleaner.returned()

    def abandon(self, entry: Entry, give_back: Callable[[Entry], object] | None = None) -> None:
        """Releases an entry whose holder has dropped it. Never switches: for finalizers.

        Args:
            entry: the entry.
            give_back: does it, in a greenlet of its own; `release` by default.
        """
        if is_gone(entry):
            return
        if self.is_here:
            disown(entry)
        if self.mailbox is not None:
            self.mailbox.post(self.in_background, give_back or self.release, entry)

    def discard(self, entry: Entry, cause: str) -> None:
        """Has an entry closed in the background instead of released. Never switches."""
        if is_gone(entry):
            return
        if get_hub_if_exists() is not self.hub:
            self.abandon(entry, partial(self.discard, cause=cause))
            return
        try:
            self._retire(entry, cause)
        finally:  # also if the listener is killed
            self.in_background(partial(close_retired, self), entry)

    def forget(self, entry: Entry, cause: str) -> None:
        """Drops an entry whose resource is gone, or somebody else's from now on. Never switches."""
        if is_gone(entry):
            return
        if get_hub_if_exists() is not self.hub:
            self.abandon(entry, partial(self.forget, cause=cause))
            return
        try:
            self._retire(entry, cause)
        finally:
            self.closed(entry)

    @threads.in_owners_thread
    def expire_all(self, is_opening_too: bool = False) -> None:
        """Has everything that is open by now replaced before its next use. Never switches.

        Args:
            is_opening_too: also what is being opened, after it has served whom it is for.
        """
        self.renewal.due_when_returned.clear()
        opening = self.opener.in_flight.values() if is_opening_too else ()
        for entry in (*self.entries, *opening):
            entry.expires_at = entry.sure_until = -math.inf

    @threads.in_owners_thread
    def configure(self, config: PoolConfig, policy: SizingPolicy | None = None) -> None:
        """Changes the settings. Surplus idle entries are closed now, those in use when released.

        Never switches.
        """
        is_lifetime_new = config.lifetime != self.config.lifetime
        self.config = config
        self.min_idle = config.min_idle
        for entry in self.entries:
            settle_sure_for(self, entry)
        if policy is not None:
            self.policy = policy
        if is_lifetime_new:
            self.renewal.begin_again()
        ledger = self.ledger
        ledger.lifo, ledger.max_size = config.use_lifo, config.max_size
        while ledger.idle and shrinking.is_oversize(self):
            self.discard(ledger.idle[0], "resized")
        shrinking.note(self)
        self.opener.look(self.clock.now())
        self.cleaner.arm()

    @threads.in_owners_thread
    def warm_up(self) -> None:
        """Opens up to `min_idle` resources in the background and keeps that many. Never switches."""
        self.opener.is_warm = True
        shrinking.wake(self)
        self.opener.open_wanted(self.clock.now())

    @threads.in_owners_thread
    def close_idle(self, cause: str) -> None:
        """Closes everything idle before it returns. May switch greenlets."""
        retired = []
        try:
            while self.ledger.idle:
                retired.append(self.ledger.idle[0])
                self._retire(retired[-1], cause)
            while retired and getcurrent() is not self.hub:
                close_retired(self, retired.pop())
        finally:
            # The caller was killed, or is a finalizer in the hub: others do it.
            for entry in retired:
                self.in_background(partial(close_retired, self), entry)

    @threads.in_owners_thread
    def dispose(self) -> None:
        """Closes what is idle, and keeps nothing, until somebody asks again. May switch greenlets.

        What is in use is lent to those in line, as long as there are any, and then closed.
        """
        shrinking.dispose(self)

    @threads.in_owners_thread
    def close(self) -> None:
        """Closes what is idle, refuses who waits; what is in use is closed when released."""
        self.is_closed = self.is_shrinking = True
        self.opener.stop()
        self.line.refuse_all(PoolClosed(f"{self!r} was closed"))
        self.close_idle("closed")

    @threads.in_owners_thread
    def drain(self, timeout: float) -> bool:
        """Waits until nothing is in use; False: not within `timeout` seconds. Switches greenlets."""
        return self.draining.wait(timeout)

    def stats(self) -> PoolStats:
        """A frozen snapshot of all figures. Never switches."""
        look_for_fork()
        return snapshot(self)

    def status(self) -> str:
        """All figures in one line of text."""
        return f"{self!r}: {self.stats()}"

    def __repr__(self) -> str:
        return f"<{printable(self.name)} {self.ledger!r}>"

    @property
    def is_here(self) -> bool:
        """Does the calling thread own the pool?"""
        return bool(get_hub_if_exists() is self.hub)

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
            self.line.serve(waiter, entry, now)
        else:
            why_not = shrinking.why_not_kept(self)
            if why_not:
                self.discard(entry, why_not)
                return
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
            held = now - entry.taken_at
            self.counters.hold_seconds += held
            if self.recorder is not None:
                self.recorder.record(self, entry, held)
            self.policy.fell(now, self.ledger.in_use)
            self.draining.notify()
        if self.listener is not None:
            try:
                if was_in_use:
                    self.listener.returned(entry, held)
                self.listener.closed(entry, cause)
            except Exception:
                dismiss(self)

    def in_background(self, errand: Callable[[Entry], object], entry: Entry) -> None:
        """Does what may switch where the caller must not. Raw: programs kill all `Greenlet`s."""
        gevent.spawn_raw(self._run_errand, errand, entry)

    def _run_errand(self, errand: Callable[[Entry], object], entry: Entry) -> None:
        look_for_fork()
        if entry.state is CLOSED:
            return  # the parent's
        try:
            self.handlers.move(entry.resource)  # its holder may have been another thread
        except Exception:
            log.exception("%r: error while moving %r to this thread", self, entry.resource)
        try:
            errand(entry)
        except Exception:
            log.exception("%r: error in the background", self)

    def take_idle(self, now: float) -> Entry | None:
        """Lends what is idle, without a second look. Never switches."""
        entry = self.ledger.take()
        if entry is not None:
            entry.taken_at = now
            self.policy.rose(now, self.ledger.in_use)
        return entry

    def _hung_up(self, entry: Entry) -> None:
        """An entry's socket has hung up, or one that had its number before. Never switches."""
        if entry.state is IN_USE:
            entry.is_suspect = True  # looked at when it comes back
        elif entry.state is IDLE and is_dead(entry, self.handlers):
            self.discard(entry, "dead")

    def reset(self, entry: Entry) -> bool:
        """Resets a returned entry; the releasing greenlet owns it. True: it can be lent again."""
        if is_gone(entry):
            return False
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

    def closed(self, entry: Entry) -> None:
        """A retired entry's resource is gone. Never switches."""
        self.entries.discard(entry)
        if entry.state is not CLOSED:  # else the process has forked while it was being closed
            self.ledger.closed(entry)
        self.opener.look(self.clock.now())

    def begin_again_after_fork(self) -> None:
        """Empties the pool of a forked child, whatever fails. Nothing of the parent's is touched."""
        registry.disown(self.entries, self.handlers.fileno)
        try:
            if self.is_here:
                self.opener.abort()
                self.cleaner.stop()
                self.renewal.stop()
                self.line.refuse_all(PoolClosed(f"{self!r} belongs to the parent of this process"))
            else:  # another thread's, which is not here any more: nothing of it may be touched
                registry.keep_for_good(vars(self).copy())
        finally:
            self.handlers = threads.bare(self.handlers)
            self._begin(self.policy)
            self.hub, self.mailbox = threads.NO_HUB, None
        self.policy = self.policy.fresh()
