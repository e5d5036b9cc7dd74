"""Acquire, release, close: the only code of the core that blocks.

The ledger decides without switching; here its decisions are carried out. At every switch point exactly one
party answers for an entry, and a kill that arrives there leaves the books right.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from functools import partial
from typing import Any, Generic, TypeVar

import gevent
from gevent import get_hub

from ..errors import PoolClosed, PoolTimeout, WrongThread
from ..sizing import SizingPolicy
from . import registry
from .cleaner import Cleaner
from .drain import Drain
from .entry import CLOSED, IN_USE, Entry
from .handlers import Handlers, Limits
from .ledger import Ledger
from .liveness import Liveness
from .opener import Opener
from .stats import Counters, PoolStats, snapshot
from .waiter import Clock, HubClock, Waiter

R = TypeVar("R")

log = logging.getLogger("geventpool")

# Idle for longer than this, a socket is looked at (0.3 µs) before it is lent: the hub may have had no
# turn, and so its watcher no say.
_SURE_FOR = 1.0


class ResourcePool(Generic[R]):
    """A pool of resources, owned by one thread's hub.

    Args:
        handlers: what is done with a resource.
        policy: how many to keep.
        limits: the settings.
        name: for messages.
        clock: time and timers; real ones by default.
    """

    def __init__(
        self,
        handlers: Handlers[R],
        policy: SizingPolicy,
        limits: Limits,
        *,
        name: str = "pool",
        clock: Clock | None = None,
    ) -> None:
        self.name = name
        self.handlers = handlers
        self.clock: Clock = clock or HubClock()
        self.hub: Any = None
        self.lifetime = limits.lifetime
        self.min_idle = limits.min_idle
        self.checks_unwatched = limits.checks_unwatched
        self._cleaner_is_timed = limits.cleaner
        self._begin(policy, limits.max_size, limits.lifo)
        registry.add(self)

    def _begin(self, policy: SizingPolicy, max_size: float, lifo: bool) -> None:
        self.policy = policy
        self.ledger: Ledger[R, Waiter[Entry[R]]] = Ledger(max_size, lifo=lifo)
        self.counters = Counters()
        self.is_closed = False
        self._is_oversize = False  # the cap was lowered below what is in use
        self._opened: set[Entry[R]] = set()
        self._drain = Drain(self.ledger, self.clock)
        self.opener: Opener[R] = Opener(self)
        self.cleaner: Cleaner[R] = Cleaner(self, self._cleaner_is_timed)
        self.liveness: Liveness[R] = Liveness(
            self.handlers.fileno, self.handlers.is_farewell, partial(self.discard, cause="dead")
        )

    def acquire(self, timeout: float | None) -> Entry[R]:
        """Lends an entry. Never switches when one is idle and sure, or with `timeout=0`.

        Args:
            timeout: seconds until the caller gives up, waiting, connecting and checking together;
                0: take what is there or fail; `None`: wait for ever.

        Raises:
            PoolTimeout: nothing came in time.
            PoolClosed: the pool is closed.
            WrongThread: another native thread owns the pool.
            Exception: what `open` raised for this caller.
        """
        if get_hub() is not self.hub:
            self._own()
        now = self.clock.now()
        policy = self.policy
        policy.requested(now)
        if not self._cleaner_is_timed:
            self.cleaner.sweep()
        entry = self.ledger.take()
        if entry is not None:  # as in `_take`, for one frame less
            if entry.watch is not None:
                entry.watch.stop()
            entry.taken_at = now
            policy.rose(now, self.ledger.in_use)
        if entry is None or now >= entry.sure_until:
            entry = self._acquire_slowly(entry, now, timeout)
        self.counters.checkouts += 1
        return entry

    def release(self, entry: Entry[R], *, is_untouched: bool = False) -> None:
        """Takes an entry back. Switches greenlets only if its resource has to be reset.

        The first caller in line gets it. From another thread it comes back at the hub's next turn.

        Args:
            entry: the entry.
            is_untouched: nobody has used its resource, so there is nothing to reset.

        Raises:
            AssertionError: the entry is not lent (it was released twice).
        """
        if get_hub() is not self.hub:
            self.abandon(entry)
            return
        if entry.state is not IN_USE:
            if entry.state is CLOSED:
                return  # from before a fork: it is the parent's
            raise AssertionError(f"bug: released an entry that is {entry.state}")
        try:
            needs_reset = not is_untouched and self.handlers.is_reset_needed(entry.resource)
        except BaseException:
            self.discard(entry, "reset failed")
            raise
        if needs_reset and not self._reset(entry):
            return
        now, ledger = self.clock.now(), self.ledger
        if now >= entry.expires_at or self._is_oversize or self.is_closed:
            self.discard(entry, "closed" if self.is_closed else "expired")
            self._is_oversize = ledger.size - ledger.closing > ledger.max_size
            return
        self.counters.hold_seconds += now - entry.taken_at
        waiter = ledger.put(entry)
        if waiter is not None:
            self._serve(waiter, entry, now)
            return
        self.policy.fell(now, ledger.in_use)
        self._rest(entry, now)
        if self._drain.waiters or len(ledger.idle) + ledger.in_use > self.min_idle:
            self._tidy()

    def abandon(
        self, entry: Entry[R], give_back: Callable[[Entry[R]], object] | None = None
    ) -> None:
        """Releases an entry whose holder has dropped it. Never switches: for finalizers.

        Args:
            entry: the entry.
            give_back: does it, in a greenlet of its own; `release` by default.
        """
        loop = None if self.hub is None else self.hub.loop
        if loop is not None:  # else the program is at its end
            loop.run_callback_threadsafe(self._in_background, give_back or self.release, entry)

    def discard(self, entry: Entry[R], cause: str) -> None:
        """Has an entry closed in the background instead of released. Never switches."""
        if get_hub() is not self.hub:
            self.abandon(entry, partial(self.discard, cause=cause))
            return
        if entry.state is CLOSED:
            return
        self._retire(entry, cause)
        self._in_background(self._close_retired, entry)

    def forget(self, entry: Entry[R], cause: str) -> None:
        """Drops an entry whose resource is gone, or somebody else's from now on. Never switches."""
        if get_hub() is not self.hub:
            self.abandon(entry, partial(self.forget, cause=cause))
            return
        if entry.state is CLOSED:
            return
        self._retire(entry, cause)
        self._closed(entry)

    def expire_all(self) -> None:
        """Has everything that is open by now replaced before its next use. Never switches."""
        for entry in self._opened:
            entry.expires_at = entry.sure_until = -math.inf

    def resize(self, max_size: float) -> None:
        """Changes the hard cap. Surplus idle entries are closed now, those in use when released."""
        ledger = self.ledger
        ledger.max_size = max_size
        while ledger.idle and ledger.size - ledger.closing > max_size:
            self.discard(ledger.idle[0], "resized")
        self._is_oversize = ledger.size - ledger.closing > max_size
        self.opener.open_wanted(self.clock.now())

    def warm_up(self) -> None:
        """Opens up to `min_idle` resources in the background and keeps that many. Never switches."""
        if get_hub() is not self.hub:
            self._own()
        self.opener.ahead = self.min_idle
        self.opener.open_wanted(self.clock.now())

    def close_idle(self, cause: str) -> None:
        """Closes everything idle before it returns. May switch greenlets."""
        retired = []
        while self.ledger.idle:
            retired.append(self.ledger.idle[-1])
            self._retire(retired[-1], cause)
        try:
            while retired:
                self._close_retired(retired.pop())
        finally:
            for entry in retired:  # the caller was killed: others go on
                self._in_background(self._close_retired, entry)

    def close(self) -> None:
        """Closes what is idle, refuses who waits; what is in use is closed when released."""
        self.is_closed = True
        self.opener.stop()
        while self.ledger.waiting:
            self.refuse_first(PoolClosed(f"{self!r} was closed"))
        self.close_idle("closed")

    def drain(self, timeout: float) -> bool:
        """Waits until nothing is in use. Switches greenlets.

        Returns:
            False if something was still in use after `timeout` seconds.
        """
        return self._drain.wait(timeout)

    def stats(self) -> PoolStats:
        """A frozen snapshot of all figures. Never switches."""
        return snapshot(self)

    def status(self) -> str:
        """All figures in one line of text."""
        return f"{self!r}: {self.stats()}"

    def __repr__(self) -> str:
        return f"<{self.name} {self.ledger!r}>"

    def add_opened(self, entry: Entry[R], now: float) -> None:
        """Puts a new resource into circulation. Never switches."""
        self.counters.opened += 1
        self._opened.add(entry)
        entry.opened_at = now
        entry.expires_at = now + self.lifetime
        waiter = self.ledger.opened(entry)
        if waiter is not None:
            self.policy.rose(now, self.ledger.in_use)
            self._serve(waiter, entry, now)
        elif self.is_closed:
            self.discard(entry, "closed")
            return
        else:
            self._rest(entry, now)
        self.cleaner.arm()  # there is one more, so the longest idle may be due earlier

    def refuse_first(self, error: BaseException) -> None:
        """Gives the first in line an error instead of a resource. Never switches."""
        waiter = self.ledger.waiting.popleft()
        self.opener.unwant(waiter)
        waiter.refuse(error)

    def _retire(self, entry: Entry[R], cause: str) -> None:
        """Takes an entry out of circulation, to be closed. Never switches."""
        if entry.watch is not None:
            entry.watch.stop()
        was_in_use = entry.state is IN_USE
        self.ledger.retire(entry)
        entry.cause = cause
        self.counters.closed[cause] += 1
        if was_in_use:
            now = self.clock.now()
            self.counters.hold_seconds += now - entry.taken_at
            self.policy.fell(now, self.ledger.in_use)
            self._drain.notify()

    def _close_retired(self, entry: Entry[R]) -> None:
        """Closes a retired entry's resource and frees its place, whatever happens. May switch."""
        try:
            self.handlers.close(entry.resource, entry.cause)
        except Exception:
            log.exception("%r: error while closing %r", self, entry.resource)
        finally:
            self._closed(entry)

    def _in_background(self, errand: Callable[[Entry[R]], object], entry: Entry[R]) -> None:
        """Does what may switch where the caller must not. The greenlet is a raw one, because a
        program may kill all the `Greenlet`s that it finds.
        """
        gevent.spawn_raw(self._run_errand, errand, entry)

    def _run_errand(self, errand: Callable[[Entry[R]], object], entry: Entry[R]) -> None:
        try:
            errand(entry)
        except Exception:
            log.exception("%r: error in the background", self)

    def _acquire_slowly(
        self, entry: Entry[R] | None, now: float, timeout: float | None
    ) -> Entry[R]:
        deadline = math.inf if timeout is None else now + timeout
        while entry is not None:
            try:
                if now < entry.sure_until or self._is_sound(entry, now, deadline):
                    return entry
            except BaseException:
                if entry.state is IN_USE:
                    self.discard(entry, "check interrupted")
                raise
            now = self.clock.now()
            entry = self._take(now)
        return self._wait(deadline, now)

    def _take(self, now: float) -> Entry[R] | None:
        entry = self.ledger.take()
        if entry is not None:
            if entry.watch is not None:
                entry.watch.stop()
            entry.taken_at = now
            self.policy.rose(now, self.ledger.in_use)
        return entry

    def _is_sound(self, entry: Entry[R], now: float, deadline: float) -> bool:
        """Looks at an entry that was just taken; discards it unless it can be lent."""
        if now >= entry.expires_at:
            self.discard(entry, "expired")
            return False
        if self.liveness.is_dead(entry):
            self.discard(entry, "dead")
            return False
        idle_for, is_watched = now - entry.idle_since, entry.watch is not None
        if not (entry.is_suspect or self.handlers.must_check(entry.resource, idle_for, is_watched)):
            return True
        if deadline <= now:
            # timeout=0 never switches: somebody else checks, the next caller has the use of it.
            self._in_background(self._check_and_return, entry)
            return False
        limit = gevent.Timeout.start_new(None if deadline == math.inf else deadline - now)
        try:
            return self._check(entry)
        except gevent.Timeout as error:
            if error is not limit:
                raise
            raise self._timed_out(self.clock.now() - now) from None
        finally:
            limit.close()

    def _check(self, entry: Entry[R]) -> bool:
        """Pings. The caller owns the entry; if it comes to harm, so does nobody else."""
        self.counters.pings += 1
        is_alive = self.handlers.check(entry.resource)
        if not is_alive:
            self.discard(entry, "dead")
            for other in self.ledger.idle:  # what killed it has perhaps killed them
                other.is_suspect = True
                other.sure_until = -math.inf
            return False
        entry.is_suspect = False
        return True

    def _check_and_return(self, entry: Entry[R]) -> None:
        try:
            is_sound = self._check(entry)
        except BaseException:
            self.discard(entry, "check interrupted")
            raise
        if is_sound:
            self.release(entry, is_untouched=True)

    def _wait(self, deadline: float, now: float) -> Entry[R]:
        if self.is_closed:
            raise PoolClosed(f"{self!r} is closed")
        if deadline <= now:
            self.opener.open_wanted(now, extra=1)
            raise self._timed_out(0.0)
        waiter: Waiter[Entry[R]] = Waiter(now)
        self.ledger.park(waiter)
        self.counters.waits += 1
        try:
            self.opener.want(waiter, now)
            waiter.wait(self.clock, None if deadline == math.inf else deadline - now)
        except BaseException:
            self._leave(waiter)
            raise
        finally:
            self.counters.waited(self.clock.now() - now)
            self._drain.notify()
        if waiter.value is not None:
            if waiter.value.state is CLOSED:
                raise PoolClosed(f"{self!r} belongs to the parent of this process")
            return waiter.value
        if waiter.error is not None:
            raise waiter.error
        self._leave(waiter)
        raise self._timed_out(self.clock.now() - now)

    def _leave(self, waiter: Waiter[Entry[R]]) -> None:
        """A caller stops waiting without its entry: what it was served goes to the next."""
        if not waiter.is_settled:
            self.opener.unwant(waiter)
            self.ledger.leave(waiter)
        elif waiter.value is not None:
            self.release(waiter.value, is_untouched=True)

    def _reset(self, entry: Entry[R]) -> bool:
        """Resets a returned entry; the releasing greenlet owns it. True: it can be lent again."""
        self.counters.resets += 1
        try:
            is_fit = self.handlers.reset(entry.resource)
        except BaseException as error:
            self.discard(entry, "reset failed")
            if not isinstance(error, Exception):
                raise
            log.warning("%r: error while resetting %r", self, entry.resource, exc_info=True)
            return False
        if not is_fit:
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
        self._drain.notify()

    def _serve(self, waiter: Waiter[Entry[R]], entry: Entry[R], now: float) -> None:
        self.opener.unwant(waiter)
        entry.taken_at = now
        waiter.serve(entry)

    def _rest(self, entry: Entry[R], now: float) -> None:
        """An entry has become idle: from now on the hub watches it."""
        entry.idle_since = now
        entry.sure_until = min(now + _SURE_FOR, entry.expires_at)
        try:
            self.liveness.watch(entry)
        except Exception:  # a driver's surprise must not cost the place: ask before it is lent
            log.exception("%r: cannot watch %r", self, entry.resource)
            entry.watch, entry.is_suspect = None, True
        if entry.is_suspect or (entry.watch is None and self.checks_unwatched):
            entry.sure_until = -math.inf

    def _closed(self, entry: Entry[R]) -> None:
        self._opened.discard(entry)
        if entry.state is not CLOSED:  # else the process has forked while it was being closed
            self.ledger.closed(entry)
        self.opener.open_wanted(self.clock.now())

    def _timed_out(self, seconds: float) -> PoolTimeout:
        self.counters.timeouts += 1
        return PoolTimeout(
            f"no connection within {seconds:.3g} s from {self!r}: raise max_size, hold connections "
            "for less time, or allow a longer timeout"
        )

    def _own(self) -> None:
        """The first thread to use the pool owns it."""
        if self.hub is not None:
            raise WrongThread(
                f"{self!r} belongs to another native thread: make one pool for each thread, or "
                "monkey-patch the program so that its threads are greenlets"
            )
        self.hub = get_hub()

    def begin_again_after_fork(self) -> None:
        """The child's part of a fork: an empty pool, and nothing of the parent's is touched."""
        self.opener.abort()
        self.cleaner.stop()
        while self.ledger.waiting:
            self.refuse_first(PoolClosed(f"{self!r} belongs to the parent of this process"))
        registry.disown(self._opened, self.handlers.fileno)
        self._begin(self.policy.fresh(), self.ledger.max_size, self.ledger.lifo)
        self.hub = None
