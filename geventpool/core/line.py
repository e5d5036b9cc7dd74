"""The callers in line: how long they wait, for what, who of them is next, and when it is too much.

First come, first served, with two exceptions. A caller that is about to be killed by its own time-out, as
the ages of those who were killed before it tell, is passed over while younger ones wait: what it would
begin it could not end. And with `shed_after`, a line that has stood for longer than that is served newest
first, and who has waited for longer is refused at once (Nichols and Jacobson, Controlling Queue Delay,
2012; Maurer, Fail at Scale, 2015).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from gevent import getcurrent

from ..errors import (
    ConfigError,
    PoolClosed,
    PoolOverloaded,
    PoolTimeout,
    printable,
    without_passwords,
)
from . import holders
from .entry import CLOSED, Entry
from .listener import dismiss
from .patience import Patience
from .registry import look_for_fork
from .waiter import Timer, Waiter

if TYPE_CHECKING:
    from .pool import ResourcePool


# While somebody waits, a timer rings at this pace; how late it is shows for how long the hub was blocked.
_TICK = 0.1
_NOTICEABLE = 0.02

_CURES = {
    "saturated": "raise max_size, hold connections for less time, or allow a longer timeout",
    "connecting": "opening a connection takes long: look at the server and the network, or warm_up()",
    "database down": "look at the server",
    "hub blocked": "something computes or blocks without yielding: move it to a thread or a process",
}


class Line:
    """The callers of one pool that have to wait.

    Attributes:
        patience: what was learnt of callers that were killed.
    """

    def __init__(self, pool: ResourcePool) -> None:
        self._pool = pool
        self.patience = Patience()
        self._blocked = 0.0  # for how long in sum the hub had no turn while somebody waited
        self._tick: Timer | None = None
        self._tick_due = 0.0
        self._deadline = math.inf  # the earliest, perhaps of one who has left
        self._standing_since = 0.0
        self._first: Waiter | None = None  # before all callers, for the pool's own purposes

    def wait(self, deadline: float, now: float) -> Entry:
        """Waits for an entry; the calling greenlet is in line meanwhile. Switches greenlets.

        Raises:
            PoolTimeout: none came before the deadline.
            PoolOverloaded: the line is too long, or stands for too long.
            PoolDeadlock: everybody who holds one waits, too.
            PoolClosed: the pool is closed.
            Exception: what `open` raised for this caller.
        """
        pool = self._pool
        if pool.is_closed:
            raise PoolClosed(f"{pool!r} is closed")
        if deadline != deadline:
            raise ConfigError("timeout", deadline, "give a number of seconds, or None")
        pool.opener.fail_fast(now)
        if deadline <= now:
            pool.opener.open_wanted(now, extra=1)
            raise self.timed_out(now, now, 0.0)
        waiter = self._park(now, deadline)
        me = getcurrent()
        try:
            pool.opener.want(waiter, now)
            holders.waits[me] = pool, waiter
            pool.holders.suspect_deadlock()
            if not waiter.wait(pool.clock, None):
                self.leave(waiter)
        except BaseException as error:
            if not isinstance(error, Exception):
                self.patience.ended(pool.clock.now() - now, pool.clock.now())
            self.leave(waiter)
            raise
        finally:
            holders.waits.pop(me, None)
            self._waited(waiter)
        entry: Entry | None = waiter.value
        if entry is not None:
            look_for_fork()
            if entry.state is CLOSED:
                raise PoolClosed(f"{pool!r} belongs to the parent of this process")
            return entry
        if waiter.error is not None:
            raise waiter.error
        raise self.timed_out(pool.clock.now(), now, waiter.blocked_before)

    def serve(self, waiter: Waiter, entry: Entry, now: float) -> None:
        """Gives one who is in line no more an entry. Never switches."""
        self._pool.opener.unwant(waiter)
        entry.taken_at = now
        waiter.serve(entry)

    def go_first(self, seconds: float) -> Entry | None:
        """Lends an entry before everybody else, for the pool's own purposes. May switch greenlets.

        One at a time, in the owner's thread. It is no caller: neither figures nor `max_waiting` count
        it. If there is room, one may be opened for it, but a pool that was disposed of is not woken.

        Returns:
            None: nothing is idle, and nothing has come back within so many seconds, or could.
        """
        pool = self._pool
        ledger = pool.ledger
        now = pool.clock.now()
        entry = pool.take_idle(now)
        if entry is not None:
            return entry
        has_room = ledger.size < ledger.max_size and not pool.is_dormant
        if pool.is_closed or not (ledger.in_use or ledger.opening or has_room):
            return None
        waiter = self._first = Waiter(now)
        ledger.waiting.appendleft(waiter)
        try:
            if has_room:
                pool.opener.want(waiter, now)
                seconds = max(seconds, 2.0 * pool.opener.connect_time)
            if not waiter.wait(pool.clock, seconds):
                self.leave(waiter)
        except BaseException:
            self.leave(waiter)
            raise
        finally:
            self._first = None
            pool.draining.notify()
        entry = waiter.value
        return None if entry is None or entry.state is CLOSED else entry

    def leave(self, waiter: Waiter) -> None:
        """A caller stops waiting without its entry: what it was served goes to the next."""
        pool = self._pool
        if not waiter.is_settled:
            pool.opener.unwant(waiter)
            pool.ledger.leave(waiter)
        elif waiter.value is not None:
            entry, waiter.value = waiter.value, None
            pool.release(entry, is_clean=True, is_callers=waiter is not self._first)

    def refuse(self, waiter: Waiter, error: BaseException) -> None:
        """Gives one in line an error instead of an entry. Never switches."""
        self._pool.ledger.leave(waiter)
        self._pool.opener.unwant(waiter)
        waiter.refuse(error)

    def refuse_first(self, error: BaseException) -> None:
        """Gives the first in line an error instead of an entry. Never switches."""
        self.refuse(self._pool.ledger.waiting[0], error)

    def refuse_all(self, error: BaseException) -> None:
        """The pool is closed, or another process's. Never switches."""
        while self._pool.ledger.waiting:
            self.refuse_first(error)
        self._stop_tick()

    def count_refusal(self, why: str) -> None:
        """A caller gets an error for want of an entry. Never switches."""
        pool = self._pool
        pool.counters.timeout_reasons[why] += 1
        if pool.listener is not None:
            try:
                pool.listener.refused(why)
            except BaseException:  # a kill, too: somebody else may be the one who is refused
                dismiss(pool)

    def choose_next(self, now: float) -> None:
        """Sees to it that the one to be served next is the first in line. Never switches."""
        waiting = self._pool.ledger.waiting
        if not self.patience.is_learnt and self._pool.config.shed_after is None:
            return
        if waiting[0] is self._first:
            return
        if self._is_overloaded(now):
            self._shed(now, least=1)
            waiting.appendleft(waiting.pop())
            return
        young, old = self.patience.doomed(now)
        if not young < now - waiting[0].parked_at < old:
            return
        for place, waiter in enumerate(waiting):
            if now - waiter.parked_at <= young:
                del waiting[place]
                waiting.appendleft(waiter)
                return

    def timed_out(self, now: float, since: float, blocked_before: float) -> PoolTimeout:
        """The error for a caller that has waited in vain."""
        pool = self._pool
        why = self._why(now, since, blocked_before)
        self.count_refusal(why)
        detail = ""
        if why == "hub blocked":
            detail = f" for {self._blocked_by(now) - blocked_before:.3g} s"
        elif pool.opener.last_error is not None:
            error = pool.opener.last_error
            detail = f" ({type(error).__name__}: {printable(without_passwords(str(error)))})"
        closing = pool.ledger.closing
        held = pool.holders.describe(now)
        return PoolTimeout(
            f"no connection within {now - since:.3g} s from {pool!r}: {why}{detail}"
            f"{f', {closing} being closed' if closing else ''}; {_CURES[why]}. {held}".rstrip(),
            why,
        )

    def _park(self, now: float, deadline: float) -> Waiter:
        pool = self._pool
        ledger, most = pool.ledger, pool.config.max_waiting
        waiting = ledger.waiting
        callers = len(waiting)
        if callers and waiting[0] is self._first:
            callers -= 1
        to_come = ledger.opening + ledger.max_size - ledger.size  # for so many there is room
        if most is not None and callers - max(0, to_come) >= most:
            self.count_refusal("overloaded")
            raise PoolOverloaded(
                f"{callers} callers are in line before this one at {pool!r}: raise max_waiting or "
                "max_size, or send the client away",
                "overloaded",
            )
        waiter: Waiter = Waiter(now)
        waiter.deadline = deadline
        if not callers:
            self._standing_since = now
        keeps_alive = self._deadline < math.inf
        if deadline < self._deadline:
            self._deadline = deadline
        if (
            self._tick is None
            or deadline < self._tick_due
            or (self._deadline < math.inf) != keeps_alive
        ):
            self._start_tick(now)
        waiter.blocked_before = self._blocked_by(now)
        pool.ledger.park(waiter)
        pool.counters.waits += 1
        return waiter

    def _waited(self, waiter: Waiter) -> None:
        pool = self._pool
        now = pool.clock.now()
        why = self._why(now, waiter.parked_at, waiter.blocked_before)
        entry = waiter.value
        if entry is not None:
            entry.waited = now - waiter.parked_at
            if why == "saturated" and entry.opened_at >= waiter.parked_at:
                why = "connecting"  # for it
        pool.counters.waited(now - waiter.parked_at, why)
        if not pool.ledger.waiting:
            self._stop_tick()
        if pool.draining.waiters:
            pool.draining.notify()
        if pool.listener is not None:
            try:
                pool.listener.waited(now - waiter.parked_at, why)
            except Exception:
                dismiss(pool)
            except BaseException:
                if waiter.value is not None:
                    self.leave(waiter)
                raise

    def _why(self, now: float, since: float, blocked_before: float) -> str:
        """What a caller that began to wait at `since` has waited for."""
        ledger, opener = self._pool.ledger, self._pool.opener
        blocked = self._blocked_by(now) - blocked_before
        if blocked >= max(_NOTICEABLE, 0.5 * (now - since)):
            return "hub blocked"
        if opener.is_failing and not ledger.idle and ledger.size < ledger.max_size:
            return "saturated" if opener.is_full else "database down"
        if ledger.opening or ledger.size < ledger.max_size:
            return "connecting"
        return "saturated"

    def _blocked_by(self, now: float) -> float:
        late = now - self._tick_due if self._tick is not None else 0.0
        return self._blocked + (late if late > _NOTICEABLE else 0.0)

    def _start_tick(self, now: float) -> None:
        """One timer for all: it tells how late the hub is, and whose deadline has come.

        A deadline keeps the process alive until it has come; a wait without one does not.
        """
        if self._tick is not None:
            self._tick.stop()
        self._tick_due = min(now + _TICK, self._deadline)
        seconds = max(0.0, self._tick_due - now)
        self._tick = self._pool.clock.call_later(seconds, self._ring, ref=self._deadline < math.inf)

    def _stop_tick(self) -> None:
        """Nobody waits any more."""
        self._deadline = math.inf
        if self._tick is not None:
            self._tick.stop()
            self._tick = None

    def _ring(self) -> None:
        now = self._pool.clock.now()
        self._blocked = self._blocked_by(now)
        self._tick = None
        waiting = self._pool.ledger.waiting
        if self._is_overloaded(now):
            self._shed(now, least=0)
        if now >= self._deadline:
            for waiter in waiting:
                if now >= waiter.deadline:
                    waiter.expire()
            self._deadline = min(
                (waiter.deadline for waiter in waiting if waiter.deadline > now), default=math.inf
            )
        if waiting:
            self._pool.holders.break_deadlock()
        if waiting:
            self._start_tick(now)

    def _is_overloaded(self, now: float) -> bool:
        """Has the line not been empty for longer than `shed_after`?"""
        most, waiting = self._pool.config.shed_after, self._pool.ledger.waiting
        return (
            most is not None
            and bool(waiting)
            and waiting[0] is not self._first
            and now - self._standing_since > most
        )

    def _shed(self, now: float, least: int) -> None:
        """Refuses who has waited for too long; `least` are left for whom there is something."""
        pool = self._pool
        most = pool.config.shed_after or 0.0
        waiting = pool.ledger.waiting
        while len(waiting) > least and now - waiting[0].parked_at > most:
            waited = now - waiting[0].parked_at
            self.count_refusal("overloaded")
            self.refuse_first(
                PoolOverloaded(
                    f"gave up after {waited:.3g} s in line at {pool!r}, which has stood for longer than "
                    f"shed_after={most:g} s: raise max_size, or send clients away",
                    "overloaded",
                )
            )
