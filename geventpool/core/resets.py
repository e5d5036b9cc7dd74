"""What is done to an entry between two callers; who gives it back need not wait for the answer.

A reset *behind* is run by a greenlet of the pool's: it sends what it has to, and where it first waits for
the answer, whoever has given the entry back goes on. Until the answer is there the entry is in use, as it
would be if its caller waited: what happens to a pool meanwhile, happens to it as to any that is lent.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from contextvars import copy_context
from typing import Any

import gevent
from gevent import getcurrent
from greenlet import greenlet  # type: ignore[import-untyped]

from ..errors import PoolClosed
from . import causes
from .closing import in_time
from .entry import IN_USE, Entry
from .registry import is_gone
from .shared import Shared
from .waiter import Waiter

log = logging.getLogger("geventpool")

# Seconds, if abandoned queries are not to be waited for at all.
_LONGEST = 5.0


class _Behind(greenlet):  # type: ignore[misc]
    """Runs at once until it first waits; there its maker goes on, without a turn of the hub.

    Attributes:
        maker: who has made it, and given back what it resets.
    """

    def __init__(self, run: Callable[[Entry], object]) -> None:
        self.maker: greenlet = getcurrent()
        super().__init__(run, self.maker)  # to which it returns if it never waits
        self.gr_context = copy_context()  # as if its maker did it, for tracers
        self._has_waited = self._is_away = False

    def switch(self, *value: Any) -> Any:
        """What it waits for may come before it is in the hub, and is not to be lost: there first."""
        if self._is_away:
            super().switch()
        return super().switch(*value)

    def switch_out(self) -> None:
        """The hub's call when it is about to be switched to."""
        if self._has_waited:
            return
        self._has_waited = self._is_away = True
        self.parent = hub = gevent.get_hub()
        to_hub = hub.loop.run_callback(super().switch)
        try:
            greenlet.switch(self.maker)  # not its own `switch`: it does not come from the hub
        finally:
            self._is_away = False
            to_hub.stop()


class Resets:
    """Resets the entries of one pool.

    Args:
        pool: whose.
        take_over: has the calling greenlet hold an entry.
        discard: takes an entry out of circulation, for a cause.
        release: takes an entry back.
    """

    def __init__(
        self,
        pool: Shared,
        take_over: Callable[[Entry], object],
        discard: Callable[[Entry, str], object],
        release: Callable[[Entry, bool], object],
    ) -> None:
        self._pool = pool
        self._take_over = take_over
        self._discard = discard
        self._release = release
        self._waiting: list[Waiter] = []

    def now(self, entry: Entry) -> bool:
        """Resets a returned entry; the caller owns it. True: it can be lent again. May switch."""
        if is_gone(entry):
            return False
        pool = self._pool
        self._take_over(entry)  # it may be another than the one that took it
        pool.counters.resets += 1
        try:
            is_fit = pool.handlers.reset(entry.resource)
        except BaseException as error:
            if isinstance(error, Exception) and is_gone(entry):
                return False  # it was closed meanwhile, or is the parent's of a forked child
            self._discard(entry, causes.RESET_FAILED)
            if not isinstance(error, Exception):
                raise
            log.warning("%r: error while resetting %r", pool, entry.resource, exc_info=True)
            return False
        if not is_fit and entry.state is IN_USE:
            self._discard(entry, causes.ABANDONED)
        return is_fit

    def behind(self, entry: Entry) -> None:
        """Sends the reset of a returned entry, and releases it when the answer is there.

        In the owner's thread. Never switches to the hub.
        """
        if entry in self._pool.resetting:
            raise AssertionError("bug: released an entry that is being reset")
        self._pool.resetting[entry] = behind = _Behind(self._run)
        behind.switch(entry)

    def wait_for_own(self, timeout: float | None) -> float | None:
        """Waits until what the calling greenlet has given back is reset. May switch greenlets.

        So it meets no lock of its own, whichever connection it gets next.

        Returns:
            What is left of the time-out.

        Raises:
            PoolClosed: the process has forked meanwhile, and the pool is the parent's.
        """
        me, pool, clock = getcurrent(), self._pool, self._pool.clock
        began_at = clock.now()
        left = math.inf if timeout is None else timeout
        self._wait(lambda: any(one.maker is me for one in pool.resetting.values()), began_at + left)
        if not pool.is_here:
            raise PoolClosed(f"{pool!r} belongs to the parent of this process")
        return None if timeout is None else max(began_at + left - clock.now(), 0.0)

    def settle(self) -> None:
        """Waits for the answers that are due by now. May switch greenlets, but not in the hub."""
        pool = self._pool
        due = set(pool.resetting.values())  # what others give back meanwhile may have no end
        self._wait(lambda: not due.isdisjoint(pool.resetting.values()), math.inf)

    def _wait(self, is_due: Callable[[], bool], deadline: float) -> None:
        clock = self._pool.clock
        while is_due() and clock.now() < deadline and getcurrent() is not gevent.get_hub():
            waiter = Waiter()
            self._waiting.append(waiter)
            try:
                waiter.wait(clock, None if deadline == math.inf else deadline - clock.now())
            finally:
                if waiter in self._waiting:
                    self._waiting.remove(waiter)

    def _run(self, entry: Entry) -> None:
        pool = self._pool
        is_fit = False
        try:
            with in_time(pool, entry, pool.config.cancel_deadline or _LONGEST, "resetting"):
                is_fit = self.now(entry)
        finally:
            pool.resetting.pop(entry, None)
            waiting, self._waiting = self._waiting, []
            for waiter in waiting:
                waiter.serve(None)
            if is_fit and entry.state is IN_USE:
                self._release(entry, True)
