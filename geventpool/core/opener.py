"""Opens resources in greenlets of its own, as many as the callers in line ask for.

An open outlives the caller that asked for it: whoever is first in line when it is done gets it, and if
nobody waits it is idle. A caller that is killed or times out therefore never tears down a connect that
others could use.

How many at once: a burst begins with one open and ramps up 2, 4 … as they succeed, because what is in use
often comes back before an open is done. A caller that has waited for as long as an open takes has seen
that nothing comes back: for it one is opened whatever the ramp says, so that nobody waits for longer than
two opens take. Not so while the server has not yet shown that it can take it, by a first success or, after
a failure, by three: a server that comes back is not met by a herd.

After a failure the next attempt waits for a pause that doubles from 0.05 s to 1 s, with jitter. If opening
has worked before, this may be a restart: for one second nobody in line is refused, and whoever asks joins
the line for the next attempt. After that, and in a pool that has never opened anything, a caller for whom
nothing else is on its way gets an attempt of its own and its error; after three failures in a row, or one
that ran into its time-out, whoever asks before the pause is over gets the last error at once. A server
that only has no room for one more is not down: its callers wait for what comes back, and the attempt is
repeated for them.
"""

from __future__ import annotations

import contextlib
import contextvars
import copy
import logging
import math
import random
from functools import partial
from typing import TYPE_CHECKING, Any

import gevent

from ..errors import ConnectTimeout, printable, without_passwords
from . import registry
from .entry import Entry
from .listener import dismiss
from .waiter import Timer, Waiter

if TYPE_CHECKING:
    from .pool import ResourcePool


log = logging.getLogger("geventpool")

_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 1.0
_PROOF = 3
_LONG = 1.0
_BRIEF = 1.0


class Opener:
    """Turns waiting callers into opens.

    Attributes:
        connect_time: decayed mean of what one open takes, in seconds; 0 until the first.
        ramp: most opens in flight for callers that have only just come.
        is_warm: `min_idle` resources are kept open even if nobody asks (`warm_up`).
        last_error: why the last open failed; `None` once one has succeeded.
        is_full: it failed because the other side has no room.
        in_flight: greenlets that open, and what for.
    """

    def __init__(self, pool: ResourcePool) -> None:
        self._pool = pool
        self.connect_time = 0.0
        self.ramp = 1
        self.is_warm = False
        self.last_error: BaseException | None = None
        self.is_full = False
        self._wanted = 0  # waiters for whom the policy would not wait for a return
        self._overdue = 0  # waiters that have waited for as long as an open takes
        self._failures = 0  # in a row
        self._successes = _PROOF - 1  # since the last failure; of a new pool one is enough
        self._retry_at = 0.0
        self._patient_until = 0.0
        self._began_at = 0.0  # the last open
        self._timer: Timer | None = None
        self._rings_at = 0.0
        self._has_ref = False
        self.in_flight: dict[Any, Entry] = {}

    @property
    def is_failing(self) -> bool:
        """The last open failed."""
        return self.last_error is not None

    def fail_fast(self, now: float) -> None:
        """Raises the last error if it would only be met again. Never switches.

        Raises:
            Exception: what the last open raised; the other side has been down for a second, nothing is
                in use, and the next attempt is not due, or hangs.
        """
        ledger = self._pool.ledger
        if self.is_full or self.last_error is None or ledger.in_use:
            return
        if now < self._patient_until or self._failures < _PROOF:
            return
        if now < self._retry_at or (ledger.opening and now - self._began_at > _LONG):
            raise _again(self.last_error)

    def want(self, waiter: Waiter, now: float) -> None:
        """A caller has joined the line: opens for it, at once or when it has waited. Never switches."""
        pool = self._pool
        ledger = pool.ledger
        if ledger.size >= ledger.max_size:
            return  # `look` finds it when a place is free
        is_alone = not (ledger.opening or ledger.in_use)
        if is_alone and self._failures < _PROOF and now >= self._patient_until:
            # Nothing is on its way to this caller, so the pause after a failure is not for it: it
            # gets an attempt of its own, and that attempt's error.
            self._retry_at = 0.0
        ahead = len(ledger.waiting) - 1
        delay = pool.policy.open_delay(now, ahead, ledger.opening, self.connect_time)
        if delay <= 0.0:
            waiter.wants_open = True
            self._wanted += 1
            self.open_wanted(now)
        elif delay > self.connect_time:
            waiter.holds_until = now + delay
        if self.connect_time or delay > 0.0:
            self._ring_by(now + max(self.connect_time, delay))

    def unwant(self, waiter: Waiter) -> None:
        """A caller has left the line, served or not. Its open goes on."""
        if waiter.is_overdue:
            self._overdue -= 1
        elif waiter.wants_open:
            self._wanted -= 1

    def open_wanted(self, now: float, extra: int = 0) -> None:
        """Starts the opens that are wanted and allowed. Never switches.

        Args:
            now: the pool's time.
            extra: opens for callers that are not in line (`timeout=0`).
        """
        pool = self._pool
        ledger = pool.ledger
        if pool.is_closed:
            return
        while True:
            wanted: float = self._wanted + self._overdue + extra
            if not pool.is_dormant:
                ahead = min(pool.min_idle, ledger.max_size) if self.is_warm else 0
                missing = ahead - ledger.size
                wanted = max(wanted, ledger.opening + missing, len(pool.renewal.ageing))
            allowed = self.ramp
            if self._successes >= _PROOF:
                allowed = max(allowed, self._overdue)
            if ledger.opening >= min(wanted, allowed):
                return
            if self._failures and now < self._retry_at:
                self._ring_by(self._retry_at)
                return
            entry = ledger.reserve()
            if entry is None:
                return
            # A raw greenlet, because a program may kill all the `Greenlet`s that it finds, and one
            # that is killed before it starts does not even clean up. In the caller's context, as
            # `gevent.spawn` would have it.
            opening = gevent.spawn_raw(contextvars.copy_context().run, self._open, entry)
            self.in_flight[opening] = entry
            self._began_at = now

    def doubt(self) -> None:
        """A resource was found dead: the other side may be, so it is to prove itself again."""
        self._successes = 0
        self.ramp = 1

    def stop(self) -> None:
        """Starts nothing more of itself: the pool is closed."""
        self.is_warm = False
        self._stop_timer()

    def abort(self) -> None:
        """Ends the opens in flight: the process has forked, and their sockets are the parent's."""
        self.stop()
        for greenlet in self.in_flight:
            gevent.get_hub().loop.run_callback(greenlet.throw, gevent.GreenletExit)

    def _open(self, entry: Entry) -> None:
        pool = self._pool
        ledger = pool.ledger
        started = pool.clock.now()
        try:
            resource = self._attempt()
        except gevent.GreenletExit:  # somebody ended this greenlet; those who wait want another
            ledger.open_failed(entry)
            self._failures = max(1, self._failures)
            self._retry_at = pool.clock.now() + _FIRST_PAUSE
        except BaseException as error:  # whatever it is, it is the business of those who wait
            ledger.open_failed(entry)
            self._failed(error, started)
        else:
            if pool.opener is not self:  # the process forked inside of `open`
                registry.keep_for_good(resource)
                return
            now = pool.clock.now()
            self._succeeded(now - started)
            entry.resource = resource
            if pool.listener is not None:
                try:
                    pool.listener.opened(entry, now - started)
                except BaseException:  # a kill, too: this greenlet is the pool's own
                    dismiss(pool)
            pool.add_opened(entry, now)
            if started < pool.renewal.distrusted_at:  # and so perhaps to the same server
                entry.expires_at = entry.sure_until = -math.inf
        finally:
            self.in_flight.pop(gevent.getcurrent(), None)
        if pool.opener is not self:
            return
        if not (ledger.opening or ledger.waiting):
            self.ramp = 1  # the burst is over
        self.look(pool.clock.now())

    def _attempt(self) -> Any:
        """One open, bounded by `connect_timeout`."""
        pool = self._pool
        limit = pool.config.connect_timeout
        late = ConnectTimeout(
            f"{pool!r}: connecting has taken longer than connect_timeout={limit:g} s: look at the "
            "server and the network",
            "database down",
        )
        give_up = partial(_throw_soon, gevent.getcurrent(), late)
        timer = pool.clock.call_later(limit, give_up, ref=False)
        try:
            return pool.handlers.open()
        finally:
            timer.stop()

    def _succeeded(self, seconds: float) -> None:
        self.last_error = None
        self._patient_until = 0.0
        self.is_full = False
        self.connect_time += (seconds - self.connect_time) * (0.3 if self.connect_time else 1.0)
        self.ramp += 1
        self._successes += 1
        self._failures = 0

    def _failed(self, error: BaseException, started: float) -> None:
        """Refuses the first whom it was for; all in line, if nothing is left that could serve them.

        Nobody in the first second of an outage.
        """
        pool = self._pool
        ledger = pool.ledger
        pool.counters.open_errors += 1
        self.ramp = 1
        self._successes = 0
        if not (pool.counters.opened and pool.handlers.is_brief(error)):
            self._patient_until = 0.0
        elif self.last_error is None or self.is_full:
            self._patient_until = started + _BRIEF
        if isinstance(error, ConnectTimeout):
            error.__traceback__ = None  # it would keep alive what was given up
        self.last_error = _again(error).with_traceback(None)
        self.is_full = False
        with contextlib.suppress(
            Exception
        ):  # a driver's surprise must not leave those in line waiting
            self.is_full = pool.handlers.is_full(error)
        if self.is_full or isinstance(error, ConnectTimeout):
            self._failures = max(self._failures, _PROOF - 1)  # no need to see it three times
        pause = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** min(self._failures, 16))
        self._failures += 1
        now = pool.clock.now()
        self._retry_at = now + pause * random.uniform(0.5, 1.0)
        if not ledger.waiting and self._failures & (self._failures - 1) == 0:  # 1, 2, 4, 8 …
            told = printable(without_passwords(str(error)))
            log.warning("%r: could not open ahead: %s: %s", pool, type(error).__name__, told)
        if not ledger.waiting and isinstance(error, (KeyboardInterrupt, SystemExit)):
            gevent.get_hub().handle_system_error(type(error), error)
        if self.is_full:
            return  # those in line wait for a return, or for room
        if now < self._patient_until:
            self._retry_at = min(self._retry_at, self._patient_until)
            return
        if not (ledger.opening or ledger.in_use):  # nothing is left that could serve them
            for _ in range(len(ledger.waiting)):
                pool.line.refuse_first(error)
                error = _again(error)
            return
        for waiter in ledger.waiting:
            if waiter.wants_open or waiter.is_overdue:  # the others wait for a return
                pool.line.refuse(waiter, error)
                return

    def look(self, now: float) -> None:
        """Opens for those who have waited as long as an open takes; sets the timer for the next.

        To be called when a place has become free. Never switches.
        """
        rings_at = math.inf
        for waiter in self._pool.ledger.waiting:
            if waiter.is_overdue:
                continue
            at = waiter.parked_at + self.connect_time
            if at >= rings_at:
                break  # so it is for all behind, who have come later
            at = max(at, waiter.holds_until)
            if at - now > 1e-6:
                rings_at = min(rings_at, at)
                continue
            self.unwant(waiter)
            waiter.is_overdue = True
            self._overdue += 1
        if rings_at < math.inf:
            self._ring_by(rings_at)
        self.open_wanted(now)

    def _ring_by(self, at: float) -> None:
        """Sees to it that `_ring` comes at this time or before, and that it does come."""
        # Somebody in line is a reason for the process to go on; opening ahead is none.
        ref = bool(self._pool.ledger.waiting)
        if self._timer is not None:
            if self._rings_at <= at and self._has_ref >= ref:
                return
            self._timer.stop()
            at = min(at, self._rings_at)
        self._rings_at, self._has_ref = at, ref
        clock = self._pool.clock
        self._timer = clock.call_later(max(0.0, at - clock.now()), self._ring, ref=ref)

    def _ring(self) -> None:
        self._stop_timer()
        self.look(self._pool.clock.now())

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.stop()
            self._timer = None


def _throw_soon(greenlet: Any, error: BaseException) -> None:
    gevent.get_hub().loop.run_callback(_throw, greenlet, error)


def _throw(greenlet: Any, error: BaseException) -> None:
    if not greenlet.dead:  # else it has just come to its end, and the error would hit us
        greenlet.throw(error)


def _again(error: BaseException) -> BaseException:
    """The same error for another greenlet, so that their tracebacks do not pile up on one object."""
    try:
        again: Any = copy.copy(error)
    except Exception:  # an exception class need not be copyable
        return error
    return again.with_traceback(error.__traceback__) if type(again) is type(error) else error
