"""Callers in line: they wait, are served, are refused, and are told why."""

from __future__ import annotations

from collections.abc import Callable

from gevent import getcurrent

from ..errors import (
    ConfigError,
    PoolClosed,
    PoolOverloaded,
    PoolTimeout,
    printable,
    without_passwords,
)
from . import causes
from .clock import Alarm
from .drain import Drain
from .entry import CLOSED, Entry
from .line import LATE
from .opening import another
from .owners import Owners, waits
from .pace import Pace
from .registry import look_for_fork, unforked
from .shared import Shared
from .waiter import Waiter

SETTLED_AFTER = 0.02
"""Seconds after which what was handed to greenlets that have not begun, or was dropped, is with them."""


class Waiting:
    """The callers of one pool that have to wait.

    Args:
        pool: whose.
        pace: what connecting is like.
        alarm: tells whether the hub is on time.
        want: has one opened for a caller that has joined the line.
        open_one: has one opened for a caller that does not wait for it.
        discard: takes an entry out of circulation, for a cause.
        release: takes an entry back.

    Attributes:
        owners: the greenlets behind entries in use.
        draining: who waits until nothing is in use.
    """

    def __init__(
        self,
        pool: Shared,
        pace: Pace,
        alarm: Alarm,
        *,
        want: Callable[[Waiter, float], object],
        open_one: Callable[[float], object],
        discard: Callable[[Entry, str], object],
        release: Callable[[Entry, bool, bool], object],
    ) -> None:
        self._pool = pool
        self._pace = pace
        self._alarm = alarm
        self._want = want
        self._open_one = open_one
        self._release = release
        self.owners = Owners(pool, discard, self.refuse)
        self.draining = Drain(pool)

    def wait(self, deadline: float, now: float, asked_at: float | None = None) -> Entry:
        """Waits in line for an entry. Switches greenlets.

        Args:
            deadline: until when.
            now: the time.
            asked_at: when it began to wait, if it is the first in line once more.

        Raises:
            Exception: as `ResourcePool.acquire`.
        """
        pool = self._pool
        waiter = self._park(deadline, now, asked_at)
        try:
            self._want(waiter, now)
            if self.owners.begins_to_wait(waiter):
                self._alarm.set(now + SETTLED_AFTER, pool.clock, now)
            if not waiter.wait(pool.clock, None):
                self._leave(waiter)
        except BaseException as error:
            if not isinstance(error, Exception):
                pool.line.patience.ended(pool.clock.now() - now, pool.clock.now())
            self._leave(waiter)
            raise
        finally:
            waits.pop(getcurrent(), None)
            self._waited(waiter, now)
        entry: Entry | None = waiter.value
        if entry is not None:
            if not unforked:
                look_for_fork()
            if entry.state is CLOSED:
                raise PoolClosed(f"{pool!r} belongs to the parent of this process")
            return entry
        if waiter.error is not None:
            raise waiter.error
        raise self._in_vain(pool.clock.now(), now, waiter.blocked_before)

    def wait_first(self, seconds: float, has_room: bool, now: float) -> Entry | None:
        """Waits before everybody else, for the pool's own purposes. Switches greenlets.

        It is no caller: neither figures nor `max_waiting` count it.

        Args:
            seconds: for so long.
            has_room: one may be opened for it.
            now: the time.
        """
        pool = self._pool
        waiter = Waiter(now)
        waiter.is_pools = True
        pool.line.park(waiter)
        try:
            if has_room:
                self._want(waiter, now)
                seconds = max(seconds, 2.0 * self._pace.connect_time)
            if not waiter.wait(pool.clock, seconds):
                self._leave(waiter)
        except BaseException:
            self._leave(waiter)
            raise
        finally:
            self.draining.notify()
        entry: Entry | None = waiter.value
        return None if entry is None or entry.state is CLOSED else entry

    def serve_next(self, entry: Entry, now: float) -> None:
        """Gives an entry to the next in line; there is somebody. Never switches."""
        pool = self._pool
        shed_after = pool.config.shed_after
        if shed_after is not None:
            self.shed(now, least=1)
        waiter = pool.line.next(now, shed_after)
        entry.taken_at = now
        waiter.serve(entry)

    def refuse(self, waiter: Waiter, error: BaseException, why: str = "") -> None:
        """Gives one in line an error instead of an entry. Never switches.

        Args:
            waiter: who.
            error: it.
            why: counted, if it is for want of an entry.
        """
        self._pool.line.leave(waiter)
        waiter.refuse(error)
        if why:
            self._count_refusal(why)

    def refuse_all(self, error: BaseException) -> None:
        """The pool is closed, or another process's. Never switches."""
        callers = self._pool.line.callers
        while callers:
            self.refuse(callers[0], error)

    def _count_refusal(self, why: str) -> None:
        """A caller gets an error for want of an entry. Never switches."""
        pool = self._pool
        pool.counters.timeout_reasons[why] += 1
        listener = pool.listener
        if listener is not None:
            listener.refused(why)

    def _why(self, now: float, since: float, blocked_before: float) -> str:
        """What a caller that began to wait at `since` has waited for."""
        ledger, pace = self._pool.ledger, self._pace
        blocked = self._pool.line.blocked_by(now, self._alarm.at) - blocked_before
        if blocked >= LATE and blocked >= 0.5 * (now - since):
            return causes.HUB_BLOCKED
        if ledger.permits is not None and ledger.permits.is_short:
            return causes.FLEET
        if pace.last_error is not None and not ledger.idle and ledger.room > 0:
            return causes.SATURATED if pace.server_is_full else causes.DATABASE_DOWN
        if ledger.opening or ledger.room > 0:
            return causes.CONNECTING
        return causes.SATURATED

    def timed_out(self, now: float, since: float, blocked_before: float) -> PoolTimeout:
        """The error for a caller that has waited in vain."""
        pool, error = self._pool, self._pace.last_error
        why = self._why(now, since, blocked_before)
        self._count_refusal(why)
        detail = ""
        if why == causes.HUB_BLOCKED:
            blocked = pool.line.blocked_by(now, self._alarm.at) - blocked_before
            detail = f" for {blocked:.3g} s"
        elif error is not None:
            detail = f" ({type(error).__name__}: {printable(without_passwords(str(error)))})"
        closing = pool.ledger.closing
        held = self.owners.describe(now)
        return PoolTimeout(
            f"no connection within {now - since:.3g} s from {pool!r}: {why}{detail}"
            f"{f', {closing} being closed' if closing else ''}; {causes.CURES[why]}. {held}".rstrip(),
            why,
        )

    def _in_vain(self, now: float, since: float, blocked_before: float) -> BaseException:
        return self._servers_error(now) or self.timed_out(now, since, blocked_before)

    def _servers_error(self, now: float) -> BaseException | None:
        """Why nothing comes, if the server is down and nothing in use could come back."""
        error = self._pace.last_error
        if error is None or self._pool.ledger.in_use or not self._pace.is_down(now):
            return None
        return another(error)

    def shed(self, now: float, least: int) -> None:
        """Refuses who has waited for too long; `least` are left for whom there is something."""
        pool = self._pool
        most = pool.config.shed_after
        for waiter in pool.line.too_old(now, most, least):
            if waiter.is_settled:
                continue  # a listener that was told of the one before had the pool react
            servers = self._servers_error(now)
            if servers is not None:
                self.refuse(waiter, servers)
                continue
            error = PoolOverloaded(
                f"gave up after {now - waiter.parked_at:.3g} s in line at {pool!r}, which has stood for "
                f"longer than shed_after={most:g} s: raise max_size, or send clients away",
                causes.OVERLOADED,
            )
            self.refuse(waiter, error, causes.OVERLOADED)

    def _park(self, deadline: float, now: float, asked_at: float | None) -> Waiter:
        pool, ledger, line = self._pool, self._pool.ledger, self._pool.line
        if pool.is_closed:
            raise PoolClosed(f"{pool!r} is closed")
        if deadline != deadline:
            raise ConfigError("timeout", deadline, "give a number of seconds, or None")
        error, is_any_opening = self._pace.last_error, ledger.opening > 0
        if not ledger.in_use and error and self._pace.would_fail(now, deadline, is_any_opening):
            raise another(error)
        if deadline <= now:
            self._open_one(now)
            raise self._in_vain(now, now, 0.0)
        is_again = asked_at is not None
        most = None if is_again else pool.config.max_waiting
        if most is not None and line.length - max(0, ledger.opening + ledger.room) >= most:
            servers = self._servers_error(now)
            if servers is not None:
                raise servers
            self._count_refusal(causes.OVERLOADED)
            raise PoolOverloaded(
                f"{line.length} callers are in line before this one at {pool!r}: raise max_waiting or "
                "max_size, or send the client away",
                causes.OVERLOADED,
            )
        waiter = Waiter(now if asked_at is None else asked_at, deadline)
        waiter.blocked_before = line.blocked_by(now, self._alarm.at)
        line.park(waiter, is_again)
        pool.counters.waits += 1
        return waiter

    def _leave(self, waiter: Waiter) -> None:
        """A caller stops waiting without its entry: what it was served goes to the next."""
        if not waiter.is_settled:
            self._pool.line.leave(waiter)
        elif waiter.value is not None:
            entry, waiter.value = waiter.value, None
            self._release(entry, True, not waiter.is_pools)

    def _waited(self, waiter: Waiter, since: float) -> None:
        pool, now = self._pool, self._pool.clock.now()
        waited = now - since
        why = self._why(now, since, waiter.blocked_before)
        entry = waiter.value
        if entry is not None:
            entry.waited = now - waiter.parked_at
            if why == causes.SATURATED and entry.taken_at == entry.opened_at:
                why = causes.CONNECTING  # for it
        pool.counters.waited(waited, why)
        if self.draining.waiters:
            self.draining.notify()
        listener = pool.listener
        if listener is not None:
            try:
                listener.waited(waited, why)
            except BaseException:
                if entry is not None:
                    self._leave(waiter)
                raise
