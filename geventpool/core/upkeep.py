"""What has to be done next: open, close, refuse, and look again. It switches no caller's greenlet.

Whatever happens to a pool is first written into its books; then `react` brings the pool to what its
callers, its settings and the sizing want by now, and sets the one alarm to when it has to look again. All
that it does is to start a greenlet or a timer, so nothing comes between a decision and its act. A plain
checkout and a plain return need none of it.
"""

from __future__ import annotations

import contextlib
import contextvars
import logging
import math
from collections.abc import Callable
from functools import partial
from typing import Any
from weakref import WeakMethod

import gevent

from ..errors import ConnectTimeout, printable, without_passwords
from . import causes, registry
from .ages import Ages
from .clock import Alarm
from .closing import close_retired
from .entry import CLOSED, IDLE, IN_USE, Entry
from .opening import another, attempt
from .owners import clear_owner
from .pace import Pace
from .shared import Shared
from .waiter import Waiter
from .waiting import Waiting
from .watch import Tell, is_dead, leave, watch

log = logging.getLogger("geventpool")

SOON = 0.1
"""Seconds: how late an idle entry may be closed, and how often callers in line are looked after."""


class Upkeep:
    """Opens and closes one pool's entries, and serves and refuses those in line.

    Args:
        pool: whose.
        release: takes an entry back.

    Attributes:
        pace: when something may be opened.
        ages: when entries are too old.
        waiting: the callers in line.
        alarm: rings when something is due.
        in_flight: greenlets that open, and what for.
        is_over: this is a forked child, and all of it is the parent's.
    """

    def __init__(self, pool: Shared, release: Callable[[Entry, bool, bool], object]) -> None:
        self._pool = pool
        self.pace = Pace()
        self.ages = Ages()
        self.alarm = Alarm(WeakMethod(self._ring))
        self.waiting = Waiting(
            pool,
            self.pace,
            self.alarm,
            want=self._want,
            open_one=partial(self._open_wanted, extra=1),
            discard=self.discard,
            release=release,
        )
        self.in_flight: dict[Any, Entry] = {}
        self.is_over = False
        self._hung_up: WeakMethod[Tell] = WeakMethod(self.hung_up)

    def react(self, now: float) -> None:
        """Does what is due, and sees to it that the rest will be done in time. Never switches."""
        pool, line = self._pool, self._pool.line
        if now >= line.earliest:
            for waiter in line.late(now):
                waiter.expire()
        self.waiting.shed(now, least=0)
        ledger = pool.ledger
        while ledger.idle and ledger.surplus > 0:
            self.discard(ledger.idle[0], causes.RESIZED)
        for entry in self.ages.due(now):
            self._is_of_age(entry, now)
        idle_until = self._idle_until(now)
        while idle_until <= now:
            self.discard(ledger.idle[0], causes.SURPLUS)
            idle_until = self._idle_until(now)
        opens_at = math.inf
        if ledger.room > 0 or ledger.opening:  # else nothing can be opened, whoever has waited long
            opens_at = line.look_for_overdue(now, self.pace.connect_time)
            opens_at = min(opens_at, self._open_wanted(now))
        due = min(self.ages.next_due(), opens_at, idle_until if pool.config.cleaner else math.inf)
        is_awaited = bool(line.callers)
        if is_awaited:
            due = min(due, now + SOON, line.earliest)
        self.alarm.stop()
        self.alarm.set(due, pool.clock, now, is_awaited and min(line.earliest, opens_at) < math.inf)
        self._keep_for(idle_until)

    def became_idle(self, now: float) -> None:
        """Something has come back, which may become surplus, or be the last. Never switches."""
        if not self._pool.config.cleaner or self._pool.is_shrinking:
            self.react(now)  # a listener may have lowered the grant just now
        else:
            idle_until = self._idle_until(now)
            if not self._pool.ledger.in_use:
                # What was due after some traffic may now be due earlier; but traffic may go on, one
                # caller after the other.
                idle_until = min(idle_until, now + SOON)
            self.alarm.set(idle_until, self._pool.clock, now)
            self._keep_for(idle_until)
        self.waiting.draining.notify()

    def _want(self, waiter: Waiter, now: float) -> None:
        """A caller has joined the line: opens for it, at once or when it has waited. Never switches."""
        pool, pace = self._pool, self.pace
        ledger = pool.ledger
        # A deadline keeps the process alive until it has come; a wait without one does not.
        earliest, soon = pool.line.earliest, now + SOON
        at = soon if soon < earliest else earliest
        self.alarm.set(at, pool.clock, now, earliest < math.inf)
        self.alarm.keeps = pool  # what comes of this may be surplus
        if ledger.room <= 0:
            return  # `react` finds it when a place is free
        if not (ledger.opening or ledger.in_use):
            pace.let_one_try(now)
        ahead = len(pool.line.callers) - 1
        delay = pool.policy.open_delay(now, ahead, ledger.opening, pace.connect_time)
        looks_at = math.inf
        if ahead < len(pool.resetting):
            delay = max(delay, pace.connect_time)  # one is about to come back, a round trip later
        if delay <= pace.connect_time and now + delay + pace.connect_time > waiter.deadline:
            delay = 0.0  # what is begun after a wait for a return would come too late
        if delay <= 0.0:
            pool.line.wants_open(waiter)
            looks_at = self._open_wanted(now)
        elif delay > pace.connect_time:
            waiter.holds_until = now + delay
        if pace.connect_time or delay > 0.0:
            looks_at = min(looks_at, now + max(pace.connect_time, delay))
        if looks_at < math.inf:
            self.alarm.set(looks_at, pool.clock, now, ref=True)

    def abort(self) -> None:
        """Ends the opens in flight: the process has forked, and their sockets are the parent's."""
        self.alarm.stop()
        for greenlet in self.in_flight:
            gevent.get_hub().loop.run_callback(greenlet.throw, gevent.GreenletExit)

    def discard(self, entry: Entry, cause: str) -> None:
        """Has an entry closed in the background. In the owner's thread. Never switches."""
        try:
            self.retire(entry, cause)
        finally:  # also if the listener is killed
            self.in_background(partial(close_retired, self._pool, self.closed), entry)

    def retire(self, entry: Entry, cause: str) -> None:
        """Takes an entry out of circulation, to be closed. Never switches."""
        pool = self._pool
        leave(entry)
        was_in_use = entry.state is IN_USE
        pool.ledger.retire(entry)
        self.ages.forget(entry)
        entry.cause = cause
        pool.counters.closed[cause] += 1
        if cause in causes.SIGNS_OF_AN_OUTAGE:
            self.pace.doubt()
        if was_in_use:
            now = pool.clock.now()
            clear_owner(entry)
            held = now - entry.taken_at
            pool.counters.hold_seconds += held
            pool.policy.fell(now, pool.ledger.in_use)
            self.waiting.draining.notify()
        listener = pool.listener
        if listener is not None:
            if was_in_use:
                listener.returned(entry, held)
            listener.closed(entry, cause)

    def closed(self, entry: Entry) -> None:
        """A retired entry's resource is gone. Never switches."""
        if entry.state is CLOSED:
            return  # the process has forked while it was being closed
        pool = self._pool
        pool.ledger.closed(entry)
        self.react(pool.clock.now())

    def hung_up(self, entry: Entry) -> None:
        """An entry's socket has hung up, or one that had its number before. Never switches."""
        if entry.state is IN_USE:
            entry.is_suspect = True  # looked at when it comes back
        elif entry.state is IDLE and is_dead(entry, self._pool.handlers):
            self.discard(entry, causes.DEAD)

    def watch(self, entry: Entry) -> None:
        """Its socket is a new one, or not known to be the same. Never switches."""
        pool = self._pool
        watch(entry, pool.handlers, self._hung_up)
        self.settle_sure_for(entry)

    def settle_sure_for(self, entry: Entry) -> None:
        """For how long an entry need not be pinged, from its next return on. Never switches."""
        pool = self._pool
        seconds = pool.config.sure_for(is_watched=entry.fd >= 0)
        entry.sure_for = seconds if pool.handlers.needs_check(entry.resource) else math.inf

    def in_background(self, errand: Callable[[Entry], object], entry: Entry) -> None:
        """Does what may switch where the caller must not. Raw: programs kill all `Greenlet`s."""
        gevent.spawn_raw(self._run_errand, errand, entry)

    def came_back_old(self, entry: Entry, now: float) -> bool:
        """A lent one has come back too old: may it stay until its replacement is there?"""
        lifetime = self._pool.config.lifetime
        return self.ages.came_back(entry, lifetime, now) and self._replace(entry, now)

    def lifetime_changed(self) -> None:
        """It counts for what is open, too. Never switches."""
        for entry in self._pool.ledger.entries:
            if entry.state in (IDLE, IN_USE):
                self.ages.lifetime_changed(entry, self._pool.config.lifetime)

    def _ring(self, at: float) -> None:
        now, line = self._pool.clock.now(), self._pool.line
        if line.callers:
            line.blocked = line.blocked_by(now, at)
        self.react(now)
        if line.callers:
            self.waiting.owners.break_deadlock()

    def _keep_for(self, idle_until: float) -> None:
        """A pool that nobody refers to any more goes on until what is surplus in it was closed."""
        if self._pool.line.callers or (idle_until < math.inf and self._pool.config.cleaner):
            self.alarm.keeps = self._pool

    def _idle_until(self, now: float) -> float:
        """When the entry that is idle for longest is to be closed; `inf`: if nothing happens, never."""
        pool = self._pool
        ledger = pool.ledger
        size = len(ledger.idle) + ledger.in_use
        to_come = ledger.opening - len(self.ages.ageing)  # what takes another's place is no more
        if not ledger.idle or size + to_come <= pool.config.min_idle:
            return math.inf
        return pool.policy.closes_at(now, size, ledger.idle[0].idle_since)

    def _is_of_age(self, entry: Entry, now: float) -> None:
        pool = self._pool
        ledger = pool.ledger
        if entry in self.ages.ageing:  # no replacement has come for as long as it may be lent
            self.ages.forget(entry)
            self._retire_aged(entry)
        elif entry.state is IN_USE:
            self.ages.wait_for_return(entry)
        else:
            kept = max(pool.config.min_idle, pool.policy.demand(now).level)
            if len(ledger.idle) + ledger.in_use > kept or not self._replace(entry, now):
                self._retire_aged(entry)

    def _replace(self, entry: Entry, now: float) -> bool:
        """Has another one opened, if there is room for both."""
        if self._pool.ledger.room <= 0 or self._pool.is_dormant:
            return False
        self.ages.wants_replacement(entry)
        retry_at = self._open_wanted(now)
        self.alarm.set(min(retry_at, entry.expires_at), self._pool.clock, now)
        return True

    def _retire_aged(self, entry: Entry) -> None:
        if entry.state is IDLE:
            self.discard(entry, causes.EXPIRED)
        elif entry.state is IN_USE:
            entry.expires_at = -math.inf  # when it comes back

    def _open_wanted(self, now: float, extra: int = 0) -> float:
        """Starts the opens that are wanted and allowed.

        An open outlives the caller that asked for it: whoever is first in line when it is done gets it,
        and if nobody waits it is idle. So a caller that is killed or times out never tears down a
        connect that others could use.

        Args:
            now: the pool's time.
            extra: opens for callers that are not in line (`timeout=0`).

        Returns:
            When it is to be tried again; `inf`: not because of the time.
        """
        pool, pace = self._pool, self.pace
        ledger, line = pool.ledger, pool.line
        while not pool.is_closed:
            wanted: float = line.wanted + line.overdue + extra
            if not pool.is_dormant:
                floor = min(pool.config.min_idle, ledger.cap.limit) if pool.is_warm else 0
                missing = floor - ledger.size
                wanted = max(wanted, ledger.opening + missing, len(self.ages.ageing))
            if ledger.opening >= min(wanted, pace.allowed(line.overdue)):
                break
            opens_at = pace.opens_at(is_awaited=bool(line.callers or extra))
            if now < opens_at:
                return opens_at
            entry = ledger.reserve()
            if entry is None:
                break
            # A raw greenlet, because a program may kill all the `Greenlet`s that it finds, and one
            # that is killed before it starts does not even clean up. In the caller's context, as
            # `gevent.spawn` would have it.
            opening = gevent.spawn_raw(contextvars.copy_context().run, self._open, entry)
            self.in_flight[opening] = entry
            pace.began(now)
        return math.inf

    def _open(self, entry: Entry) -> None:
        if self.is_over:
            return  # the process forked before this had its first turn; the books are the child's
        pool, ledger = self._pool, self._pool.ledger
        started = pool.clock.now()
        try:
            resource = attempt(pool)
        except gevent.GreenletExit:  # somebody ended this greenlet; those who wait want another
            ledger.open_failed(entry)
            self.pace.interrupted(pool.clock.now())
        except BaseException as error:  # whatever it is, it is the business of those who wait
            ledger.open_failed(entry)
            if not self.is_over:
                self._failed(error, started)
        else:
            if self.is_over:  # the process forked inside of `open`
                registry.keep_for_good(resource)
                return
            entry.resource = resource
            self._opened(entry, started)
        finally:
            self.in_flight.pop(gevent.getcurrent(), None)
        if self.is_over:
            return
        if not (ledger.opening or pool.line.callers):
            self.pace.burst_is_over()
        self.react(pool.clock.now())

    def _opened(self, entry: Entry, started: float) -> None:
        """Puts a new resource into circulation. Never switches."""
        pool = self._pool
        ledger, now = pool.ledger, pool.clock.now()
        self.pace.succeeded(now - started)
        pool.counters.opened += 1
        listener = pool.listener
        if listener is not None:
            listener.opened(entry, now - started)
        entry.opened_at = now
        ledger.opened(entry)
        self.waiting.owners.add(entry)
        self.watch(entry)
        replaced = self.ages.add(entry, pool.config.lifetime)
        if replaced is not None:
            self._retire_aged(replaced)
        if started < self.ages.distrusted_at:  # and so perhaps to the same server
            entry.expires_at = -math.inf
        if pool.line.callers:
            pool.policy.rose(now, ledger.in_use)
            self.waiting.serve_next(entry, now)
            return
        ledger.put(entry)
        entry.idle_since = now
        why_not = pool.why_not_kept()
        if why_not:
            self.discard(entry, why_not)

    def _failed(self, error: BaseException, started: float) -> None:
        """Refuses the first whom it was for; all in line, if nothing is left that could serve them.

        Nobody in the first second of an outage; nobody who has asked since the attempt began, unless
        that was long ago.
        """
        pool, pace = self._pool, self.pace
        ledger, callers = pool.ledger, pool.line.callers
        pool.counters.open_errors += 1
        may_be_restart, server_is_full = False, False
        with contextlib.suppress(
            Exception
        ):  # a driver's surprise must not leave those in line waiting
            may_be_restart = bool(pool.counters.opened and pool.handlers.is_transient(error))
            server_is_full = pool.handlers.server_is_full(error)
        if isinstance(error, ConnectTimeout):
            error.__traceback__ = None  # it would keep alive what was given up
        kept, now = another(error).with_traceback(None), pool.clock.now()
        is_to_be_told = pace.failed(kept, started, now, may_be_restart, server_is_full)
        if not callers:
            self._say(error)
        if not is_to_be_told:
            return
        asked_by = now if pace.is_slow else started
        concerned = [waiter for waiter in callers if waiter.parked_at <= asked_by]
        if not (ledger.opening or ledger.in_use):  # nothing is left that could serve them
            for waiter in concerned:
                self.waiting.refuse(waiter, error)
                error = another(error)
            return
        for waiter in concerned:
            if waiter.wants_open or waiter.is_overdue:  # the others wait for a return
                self.waiting.refuse(waiter, error)
                return

    def _say(self, error: BaseException) -> None:
        """An error that is nobody's: of the 1st, 2nd, 4th, 8th … failure in a row."""
        failures = self.pace.failures
        if failures & (failures - 1) == 0:
            told = printable(without_passwords(str(error)))
            log.warning("%r: could not open ahead: %s: %s", self._pool, type(error).__name__, told)
        if isinstance(error, (KeyboardInterrupt, SystemExit)):
            gevent.get_hub().handle_system_error(type(error), error)

    def _run_errand(self, errand: Callable[[Entry], object], entry: Entry) -> None:
        registry.look_for_fork()
        if entry.state is CLOSED:
            return  # the parent's
        pool = self._pool
        try:
            pool.handlers.move(entry.resource)  # its holder may have been another thread
        except Exception:
            log.exception("%r: error while moving %r to this thread", pool, entry.resource)
        try:
            errand(entry)
        except Exception:
            log.exception("%r: error in the background", pool)
