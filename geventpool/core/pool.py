"""Acquire, release, close: the only code of the core that blocks its callers.

The books decide without switching; here their decisions are carried out. At every switch point exactly one
party answers for an entry, and a kill that arrives there leaves the books right.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from functools import partial

from gevent import Greenlet, getcurrent
from gevent._hub_local import get_hub_if_exists

from ..config import PoolConfig
from ..errors import ConfigError, PoolClosed
from ..setting import read_number
from ..sizing import SizingPolicy
from . import causes, registry, threads
from .checks import Checks
from .clock import Clock
from .closing import close_retired
from .entry import IDLE, IN_USE, Entry
from .handlers import Handlers
from .ledger import Ledger, Permits
from .line import Line
from .listener import Listener
from .owners import clear_owner
from .registry import is_gone, look_for_fork, unforked
from .resets import Resets
from .shared import NO_HUB, Shared
from .stacks import capture
from .stats import Counters, PoolStats, snapshot
from .upkeep import SOON, Upkeep
from .watch import FEW, is_dead, is_quiet

log = logging.getLogger("geventpool")


class ResourcePool(Shared):
    """A pool of resources, owned by one thread's hub.

    Args:
        handlers: what is done with a resource.
        policy: how many to keep.
        config: the settings.
        name: for messages.
        clock: time and timers; real ones by default.
    """

    def __init__(
        self,
        handlers: Handlers,
        policy: SizingPolicy,
        config: PoolConfig,
        *,
        name: str = "pool",
        clock: Clock | None = None,
    ) -> None:
        super().__init__(handlers, policy, config, name, clock)
        self._begin()
        registry.add(self)

    def _begin(self) -> None:
        self.ledger = Ledger(self.config.max_size, lifo=self.config.use_lifo, permits=self.permits)
        self.line, self.counters = Line(), Counters()
        self.is_closed = self.is_dormant = self.is_warm = self.is_shrinking = False
        self.upkeep = Upkeep(self, self.release)
        self._checks = Checks(self, self.upkeep, self.discard, self.release)
        self.resetting = {}
        self.resets = Resets(self, self.take_over, self.discard, self.release)

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
        if (not unforked or get_hub_if_exists() is not self.hub) and not threads.claim(self):
            return threads.acquire(self, timeout, is_new)
        if self.resetting and timeout != 0:
            timeout = self.resets.wait_for_own(timeout)
        now, ledger = self.clock.now(), self.ledger
        if not self.config.cleaner:
            self.upkeep.react(now)
        if self.line.callers or not ledger.idle:
            if is_new and self.is_dormant:
                self._wake()
            self.policy.requested(now)
            entry = self._wait(math.inf if timeout is None else now + timeout, now)
        else:  # as in `Ledger.take`, for one frame less
            entry = ledger.idle.pop() if ledger.lifo else ledger.idle.popleft()
            entry.state = IN_USE
            ledger.in_use = in_use = ledger.in_use + 1
            entry.taken_at = now
            self.policy.took(now, in_use)
            try:  # as in `is_quiet`, for one frame less
                if (watch := entry.watch) is not None and (events := watch.poll(0, FEW)):
                    watch.tell(events)  # perhaps of this one
                was_quiet = now < entry.quiet_until and (
                    entry.socket_of(entry.resource) == entry.socket
                )
                is_sure = (
                    now - entry.idle_since < entry.sure_for
                    and now < entry.expires_at
                    and not entry.is_suspect
                    and (was_quiet or entry.fd < 0 or is_quiet(entry, now))
                )
            except Exception:  # it has no socket any more
                is_sure = False
            if not is_sure:
                entry = self._lend_sound(entry, now, timeout)
        self.counters.checkouts += 1
        entry.owner = owner = getcurrent()  # as in `Owners.own`
        if isinstance(owner, Greenlet):
            owner.rawlink(entry)
        if self.listener is not None or self.upkeep.waiting.owners.records_stacks:
            self._tell_lent(entry, now)
        return entry

    def release(self, entry: Entry, is_clean: bool = False, is_callers: bool = True) -> None:
        """Takes an entry back. Switches greenlets only if its resource has to be reset, and not behind.

        The first caller in line gets it. In another thread than the owner's, waits for its hub.

        Args:
            entry: the entry.
            is_clean: it is known that there is nothing to reset.
            is_callers: False: the pool has lent it to itself, which nobody is told of.

        Raises:
            AssertionError: the entry is not lent (it was released twice).
        """
        if get_hub_if_exists() is not self.hub or entry.state is not IN_USE:
            threads.release(self, entry, is_clean)
            return
        try:
            is_clean = is_clean or self.handlers.is_clean(entry.resource)
        except BaseException:
            self.discard(entry, causes.RESET_FAILED)
            raise
        if not is_clean:
            if self.handlers.resets_behind(entry.resource):
                self.resets.behind(entry)
                return
            if not (self.resets.now(entry) and entry.state is IN_USE):
                return
        now, ledger = self.clock.now(), self.ledger
        is_fit = not (entry.is_suspect or now >= entry.expires_at or self.is_shrinking)
        if not is_fit and not self._checks.is_fit(entry, now):
            return
        owner = entry.owner  # as in `clear_owner`
        if owner is not None:
            entry.owner = entry.stack = None
            if isinstance(owner, Greenlet):
                owner.unlink(entry)
        held = now - entry.taken_at if is_callers else 0.0
        self.counters.hold_seconds += held
        if is_callers and (listener := self.listener) is not None:
            self._tell_returned(listener, entry, held)
        if self.line.callers:
            if is_callers:
                self.line.patience.held(held)
            self.upkeep.waiting.serve_next(entry, now)
            return
        entry.state = IDLE  # as in `Ledger.put`
        ledger.in_use = in_use = ledger.in_use - 1
        ledger.idle.append(entry)
        self.policy.fell(now, in_use)
        entry.idle_since, entry.waited = now, 0.0
        upkeep, rings_at = self.upkeep, self.upkeep.alarm.at
        if (self.is_shrinking or upkeep.waiting.draining.waiters) or (
            len(ledger.idle) + in_use > self.config.min_idle
            and (rings_at == math.inf or (not in_use and rings_at > now + SOON))
        ):
            upkeep.became_idle(now)

    def abandon(self, entry: Entry, give_back: Callable[[Entry], object] | None = None) -> None:
        """Releases an entry whose holder has dropped it. Never switches: for finalizers.

        Args:
            entry: the entry.
            give_back: does it, in a greenlet of its own; `release` by default.
        """
        if is_gone(entry):
            return
        if self.is_here:
            clear_owner(entry)
        if self.mailbox is not None:
            self.mailbox.post(self.upkeep.in_background, give_back or self.release, entry)

    def discard(self, entry: Entry, cause: str) -> None:
        """Has an entry closed in the background instead of released. Never switches."""
        if is_gone(entry):
            return
        if get_hub_if_exists() is not self.hub:
            self.abandon(entry, partial(self.discard, cause=cause))
            return
        self.upkeep.discard(entry, cause)

    def forget(self, entry: Entry, cause: str) -> None:
        """Drops an entry whose resource is gone, or somebody else's from now on. Never switches."""
        if is_gone(entry):
            return
        if get_hub_if_exists() is not self.hub:
            self.abandon(entry, partial(self.forget, cause=cause))
            return
        try:
            self.upkeep.retire(entry, cause)
        finally:
            self.upkeep.closed(entry)

    def acquire_first(self, seconds: float) -> Entry | None:
        """Lends an entry before everybody else, for the pool's own purposes. May switch greenlets.

        One at a time, in the owner's thread. It is no caller: neither figures nor `max_waiting` count
        it. If there is room, one may be opened for it, but a pool that was disposed of is not woken.

        Returns:
            None: nothing is idle, and nothing has come back within so many seconds, or could.
        """
        if not self.is_here:
            return None  # the process has forked, and nobody owns the child's pool yet
        ledger, now = self.ledger, self.clock.now()
        entry = self._take_idle(now)
        if entry is not None:
            return entry
        has_room = ledger.room > 0 and not self.is_dormant
        if self.is_closed or not (ledger.in_use or ledger.opening or has_room):
            return None
        return self.upkeep.waiting.wait_first(seconds, has_room, now)

    def take_over(self, entry: Entry) -> None:
        """The calling greenlet uses an entry that was handed to it, and so holds it. Never switches."""
        self.upkeep.waiting.owners.take_over(entry)

    @threads.in_owners_thread
    def expire_all(self, is_opening_too: bool = False) -> None:
        """Has everything that is open by now replaced before its next use. Never switches.

        Args:
            is_opening_too: also what is being opened, after it has served whom it is for.
        """
        upkeep = self.upkeep
        upkeep.ages.due_when_returned.clear()
        opening = upkeep.in_flight.values() if is_opening_too else ()
        for entry in (*self.ledger.entries, *opening):
            entry.expires_at = -math.inf

    def distrust(self, entry: Entry, why: str) -> None:
        """Something says that this entry, and so all of its age, is of no use. Never switches.

        Args:
            entry: a lent one. Its holder may go on with it.
            why: for the log.
        """
        if not self.is_here:
            self.mailbox.post(self.distrust, entry, why)
        elif self.upkeep.ages.distrust(entry, self.clock.now()):
            self.upkeep.pace.doubt()
            self.expire_all()
            log.warning("%r: %s: all connections that are open by now will be replaced", self, why)

    @threads.in_owners_thread
    def configure(self, config: PoolConfig, policy: SizingPolicy | None = None) -> None:
        """Changes the settings. Surplus idle entries are closed now, those in use when released.

        Never switches.
        """
        is_lifetime_new = config.lifetime != self.config.lifetime
        self.config = config
        for entry in self.ledger.entries:
            self.upkeep.settle_sure_for(entry)
        if policy is not None:
            self.policy = policy
        if is_lifetime_new:
            self.upkeep.lifetime_changed()
        self.ledger.lifo = config.use_lifo
        self.ledger.cap.configured = config.max_size
        self._changed()
        if self.permits is not None:
            self.permits.changed()

    @threads.in_owners_thread
    def grant(self, most: float) -> None:
        """Changes how many entries there may be at once, from outside. Never switches.

        The cap is no larger than this, and than `max_size`. Surplus idle entries are closed now, those in
        use when released.

        Args:
            most: 0 or more, rounded down; `math.inf`: the settings alone count.

        Raises:
            ConfigError: it is no number, or negative.
        """
        granted = read_number("grant", most, "0 or more, or math.inf")
        if granted < 0:
            raise ConfigError("grant", most, "give 0 or more, or math.inf")
        self.ledger.cap.granted = granted if granted == math.inf else math.floor(granted)
        self._changed()

    @threads.in_owners_thread
    def find(self, most: float) -> None:
        """Changes the cap that `auto_cap` has found, which holds beside `grant`'s. Never switches."""
        self.ledger.cap.found = most
        self._changed()

    def limit_by(self, permits: Permits) -> None:
        """Has each place need a permit, taken before the open, given back when it is closed again.

        To be called before anything is opened. Never switches.
        """
        self.permits = self.ledger.permits = permits

    @threads.in_owners_thread
    def warm_up(self) -> None:
        """Opens up to `min_idle` resources in the background and keeps that many. Never switches."""
        self.is_warm = True
        self._wake()
        self.upkeep.react(self.clock.now())

    @threads.in_owners_thread
    def close_idle(self, cause: str) -> None:
        """Closes everything idle before it returns. May switch greenlets."""
        retired: list[Entry] = []
        upkeep = self.upkeep
        try:
            while self.ledger.idle:
                retired.append(self.ledger.idle[0])
                upkeep.retire(retired[-1], cause)
            while retired and getcurrent() is not self.hub:
                close_retired(self, upkeep.closed, retired.pop())
        finally:
            # The caller was killed, or is a finalizer in the hub: others do it.
            for entry in retired:
                upkeep.in_background(partial(close_retired, self, upkeep.closed), entry)

    @threads.in_owners_thread
    def settle(self) -> None:
        """Waits until what was given back is reset. May switch greenlets."""
        self.resets.settle()

    @threads.in_owners_thread
    def dispose(self) -> None:
        """Closes what is idle, and keeps nothing, until somebody asks again. May switch greenlets.

        What is in use is lent to those in line, as long as there are any, and then closed.
        """
        try:
            self.resets.settle()
            self.is_dormant = self.is_shrinking = True
            self.close_idle(causes.DISPOSED)
        finally:  # again, because somebody may have asked while that was closed
            self.is_dormant = self.is_shrinking = True
            while self.ledger.idle:
                self.discard(self.ledger.idle[0], causes.DISPOSED)
            self.upkeep.react(self.clock.now())

    @threads.in_owners_thread
    def close(self) -> None:
        """Closes what is idle, refuses who waits; what is in use is closed when released."""
        try:
            self.resets.settle()
        finally:  # also if the caller was killed there
            self.is_closed = self.is_shrinking = True
            self.is_warm = False
            self.upkeep.waiting.refuse_all(PoolClosed(f"{self!r} was closed"))
            self.close_idle(causes.CLOSED)
            if self.permits is not None:
                self.permits.changed()

    @threads.in_owners_thread
    def drain(self, timeout: float) -> bool:
        """Waits until nothing is in use; False: not within `timeout` seconds. Switches greenlets."""
        return self.upkeep.waiting.draining.wait(timeout)

    def stats(self) -> PoolStats:
        """A frozen snapshot of all figures. Never switches."""
        look_for_fork()
        return snapshot(
            self.name,
            self.config,
            self.ledger,
            len(self.line.callers),
            self.counters,
            self.policy.demand(self.clock.now()),
            self.upkeep.pace.connect_time,
            len(self.resetting),
        )

    def status(self) -> str:
        """All figures in one line of text."""
        return f"{self!r}: {self.stats()}"

    def begin_again(self) -> None:
        """Empties the pool of a forked child, or of a hub that is gone, whatever fails.

        Nothing of the parent's is touched.
        """
        registry.disown(self.ledger.entries, self.handlers.fileno)
        self.upkeep.is_over = True
        try:
            if self.is_here:
                self.upkeep.abort()
                self.upkeep.waiting.refuse_all(
                    PoolClosed(f"{self!r} belongs to the parent of this process")
                )
            else:  # of a thread or a hub that is not here any more: nothing of it may be touched
                registry.keep_for_good(vars(self).copy())
        finally:
            self.handlers = threads.bare(self.handlers)
            self.ledger.permits = None  # what ends in the books of the parent has none here
            found = self.ledger.cap.found
            self._begin()
            self.ledger.cap.found = found
            self.hub, self.mailbox = NO_HUB, None
        self.policy = self.policy.fresh()

    def _wait(self, deadline: float, now: float) -> Entry:
        """Waits in line for an entry. What has hung up before it changed hands goes to nobody.

        But a second new one does: what becomes of all that are opened is for the caller to see.
        """
        had_new_one, asked_at, began_at = False, None, now
        while True:
            entry = self.upkeep.waiting.wait(deadline, now, asked_at)
            now, asked_at = began_at + entry.waited, began_at
            is_new = entry.taken_at == entry.opened_at
            if entry.fd < 0 or (is_new and had_new_one) or is_quiet(entry, now):
                return entry
            if not is_dead(entry, self.handlers):
                return entry
            had_new_one |= is_new
            self.discard(entry, causes.DEAD)

    def _lend_sound(self, taken: Entry, now: float, timeout: float | None) -> Entry:
        """Takes a second look at an entry that was just taken; if it will not do, at the next."""
        entry: Entry | None = taken
        deadline = math.inf if timeout is None else now + timeout
        while entry is not None:
            try:
                if self._checks.is_sound(entry, now, deadline):
                    return entry
            except BaseException:
                if entry.state is IN_USE:
                    self.discard(entry, causes.CHECK_INTERRUPTED)
                raise
            now = self.clock.now()
            entry = self._take_idle(now)
        return self._wait(deadline, now)

    def _take_idle(self, now: float) -> Entry | None:
        """Lends what is idle, without a second look."""
        entry = None if self.line.callers else self.ledger.take()
        if entry is not None:
            entry.taken_at = now
            self.policy.rose(now, self.ledger.in_use)
        return entry

    def _tell_lent(self, entry: Entry, asked_at: float) -> None:
        """What is to be noted of an entry that its caller is about to get, by those who asked for it."""
        if self.upkeep.waiting.owners.records_stacks:
            entry.stack = capture(2)
        listener = self.listener
        if listener is not None:
            try:
                listener.lent(entry, self.clock.now() - asked_at)
            except BaseException:  # it has switched, which it must not, and was killed there
                self.discard(entry, causes.CHECK_INTERRUPTED)
                raise

    def _tell_returned(self, listener: Listener, entry: Entry, held: float) -> None:
        try:
            listener.returned(entry, held)
        except BaseException:  # as in `_tell_lent`
            self.discard(entry, causes.RESET_FAILED)
            raise

    def _changed(self) -> None:
        """The settings, or the cap."""
        self.note_shrinking()
        self.upkeep.react(self.clock.now())

    def _wake(self) -> None:
        """Somebody asks again: all is as before `dispose`."""
        self.is_dormant = False
        self.note_shrinking()
