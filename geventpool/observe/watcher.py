"""What listens to one pool's core, and hands what it hears to its observer.

Called in the midst of the pool's own steps: nothing here switches or raises, and what fails is told once.
"""

from __future__ import annotations

import heapq
import logging
import sys
from functools import partial
from types import FrameType
from typing import Any

import gevent

from ..core import registry, stacks
from ..core.entry import IN_USE, Entry
from ..core.listener import Listener
from ..core.pool import ResourcePool
from ..drivers import driver_for
from . import dbapi
from .findings import Findings
from .holds import Hold, Holder, describe, number_of
from .sites import lines_of_capture, site_of, tell_site, tell_stack
from .thresholds import Thresholds

_HOLDERS = 20
_NOTHING: dict[str, Any] = {
    "histograms": {},
    "warnings": {},
    "recent": [],
    "queries": None,
    "sites": [],
}
_LOOK_EVERY = 8  # a walk up the stack is what a query's statistics cost most


class FiguresListener(Listener):
    """Feeds the histograms, and tells the log when connections come and go.

    Attributes:
        core: the pool.
        holds: what is known of each lent connection.
    """

    def __init__(self, observer: Findings, core: ResourcePool) -> None:
        self.observer = observer
        self.core = core
        self.figures = observer.figures
        self.log = observer.log
        self.holds: dict[Entry, Hold] = {}

    def lent(self, entry: Entry, seconds: float) -> None:
        """A histogram more."""
        try:
            self.figures.acquire.add(seconds)
        except Exception:
            self.observer.failed()

    def returned(self, entry: Entry, held: float) -> None:
        """A histogram more."""
        try:
            self.figures.hold.add(held)
        except Exception:
            self.observer.failed()

    def opened(self, entry: Entry, seconds: float) -> None:
        """A histogram more, and a line in the log."""
        try:
            self.figures.open.add(seconds)
            if self.log.isEnabledFor(logging.INFO):
                self._tell("%r: opened connection %s in %.3g s", number_of(entry), seconds)
        except Exception:
            self.observer.failed()

    def closed(self, entry: Entry, cause: str) -> None:
        """A line in the log."""
        try:
            if self.log.isEnabledFor(logging.INFO):
                self._tell("%r: closing connection %s: %s", number_of(entry), cause)
        except Exception:
            self.observer.failed()

    def handed_out(self, entry: Entry, connection: Any) -> Any:
        """What a user of the raw pool gets instead of the driver's connection. May switch, to log."""
        if self.log.isEnabledFor(logging.DEBUG):
            self.log.debug("%r: connection %s checked out", self.core, number_of(entry))
        return connection

    def stop(self) -> None:
        """Nothing runs."""

    def begin_again_after_fork(self) -> None:
        """What was lent, the parent has."""

    def holders(self, limit: int) -> list[Holder]:
        """Who holds connections now, for longest first. Never switches.

        Args:
            limit: how many; no more are described, which takes a tenth of a millisecond each.
        """
        lent = [entry for entry in list(self.core.ledger.entries) if entry.state is IN_USE]
        longest = heapq.nsmallest(limit, lent, key=lambda entry: entry.taken_at)
        holds, show = self.holds, self.observer.show
        return [describe(self.core, entry, holds.get(entry), show) for entry in longest]

    def to_json(self) -> dict[str, Any]:
        """What a snapshot says of the pool beside its counts.

        Of an older pool of an engine that was disposed of: nothing but who holds its connections.
        """
        holders = self.holders(_HOLDERS)
        is_old = self.observer.core is not self.core
        return {
            "holders": [holder.to_json() for holder in holders],
            **(_NOTHING if is_old else self.observer.to_json()),
        }

    def _tell(self, message: str, *arguments: object) -> None:
        gevent.spawn_raw(partial(self.log.info, message, self.core, *arguments))


class Watcher(FiguresListener):
    """Follows each lent connection, its queries and its transactions."""

    def __init__(self, observer: Findings, core: ResourcePool) -> None:
        super().__init__(observer, core)
        settings = observer.settings
        self._queries = observer.queries
        self._usage = observer.usage
        self._share = settings.stacks
        self._sampled = 1.0 - settings.stacks  # so that the first one is
        self._slow = settings.slow_query_after or float("inf")
        self.thresholds = Thresholds(core, observer, self.holds)
        self._last: Hold | None = None

    def lent(self, entry: Entry, seconds: float) -> None:
        """Somebody holds it from now on."""
        try:
            self.figures.acquire.add(seconds)
            taken = None
            self._sampled += self._share
            if self._sampled >= 1.0:
                self._sampled -= 1.0
                taken = stacks.capture(2)
            # A greenlet may run the pool's own method, whose frame has none behind it.
            self.holds[entry] = Hold(entry.taken_at, site_of(sys._getframe(1).f_back), taken)
            if not self.thresholds.is_armed:
                self.thresholds.arm()
        except Exception:
            self.observer.failed()

    def returned(self, entry: Entry, held: float) -> None:
        """Nobody holds it any more."""
        try:
            self.figures.hold.add(held)
            self._last = hold = self.holds.pop(entry, None)
            if hold is None:
                return  # it was lent before we watched, or its caller was killed when it was served
            if hold.began is not None:  # whoever sent that query has been killed, or has dropped it
                self.query_ended(hold, -1, is_error=True)
            self._usage.add(hold.site, held, hold.busy)
            if hold.warned is not None:
                self.thresholds.returned(hold, held)
        except Exception:
            self.observer.failed()

    def closed(self, entry: Entry, cause: str) -> None:
        """If its greenlet has ended with it in hand: where that took it."""
        super().closed(entry, cause)
        hold = self._last  # `returned` was called for the same entry just before
        try:
            if cause == "owner ended" and hold is not None:
                stack = tell_stack(lines_of_capture(hold.taken)).rstrip()
                where = f"{tell_site(hold.site)}\n{stack}".rstrip()
                said = ": connection %s was taken at %s"
                self.observer.warn("leak", hold.site, said, number_of(entry), where)
        except Exception:
            self.observer.failed()

    def handed_out(self, entry: Entry, connection: Any) -> Any:
        """A connection that tells us of its cursors and queries."""
        super().handed_out(entry, connection)
        if self.observer.database is None:
            driver = driver_for(entry.resource)
            self.observer.know(driver.database or driver.name)
        hold = self.holds.get(entry)
        return connection if hold is None else dbapi.Connection(self, hold, connection)

    def cursor_made(self, record: Any, cursor: Any) -> Any:
        """A cursor that tells us of its queries, unless SQLAlchemy does."""
        caller: FrameType | None = sys._getframe(1)
        while caller is not None and _module(caller) == "geventpool":
            caller = caller.f_back
        if caller is not None and _module(caller) == "sqlalchemy":
            return cursor
        hold = None if record is None else self.holds.get(record.entry)
        if hold is None:
            return cursor
        self.cursor_by(hold)
        return dbapi.Cursor(self, hold, cursor, record.dbapi_connection)

    def transaction_ending(self, entry: Entry | None) -> None:
        """A commit or a rollback is being sent."""
        hold = None if entry is None else self.holds.get(entry)
        if hold is not None:
            self.transaction_ended(hold)

    def stop(self) -> None:
        """Warns no longer."""
        self.thresholds.stop()

    def begin_again_after_fork(self) -> None:
        """What was lent, the parent has."""
        registry.keep_for_good(self.holds.copy())
        self.holds.clear()
        self.thresholds.begin_again_after_fork()

    def cursor_by(self, hold: Hold) -> None:
        """A cursor is being made by the calling code. Never switches."""
        hold.active_at = self.core.clock.now()
        if hold.is_sampled:
            hold.cursor = stacks.capture(2)

    def query_began(self, hold: Hold, text: str, connection: Any) -> None:
        """A query is being sent by the calling code on the driver's connection. Never switches."""
        try:
            hold.begin(self.core.clock.now(), text, connection)
            if not hold.site:  # it was taken in another thread for this one
                hold.site = site_of(sys._getframe(1).f_back)
            if hold.is_sampled:
                hold.executed = stacks.capture(2)
        except Exception:
            self.observer.failed()

    def query_ended(
        self, hold: Hold, rows: int, connection: Any = None, *, is_error: bool = False
    ) -> None:
        """It is over. Never switches.

        Args:
            hold: whose query.
            rows: found or changed; below 0: unknown.
            connection: the driver's, to see whether it is in a transaction.
            is_error: it failed, or nobody waited for its end.
        """
        if hold.began is None:
            return  # it was taken away from who sent it
        try:
            seconds = hold.end(self.core.clock.now(), connection)
            self.figures.query.add(seconds)
            self.figures.query_errors += is_error
            is_slow = seconds >= self._slow
            if self._queries is not None:
                query = self._queries.add(hold.text, seconds, rows, is_error)
                if hold.is_sampled:
                    query.sent_at = hold.executed
                elif is_slow or not (query.calls - 1) % _LOOK_EVERY:
                    query.sent_at = None
                    query.last_site = hold.execute_site = site_of(sys._getframe(1).f_back)
            if is_slow:
                self._warn_of_slow(hold, seconds, sys._getframe(1).f_back)
        except Exception:
            self.observer.failed()

    def transaction_ended(self, hold: Hold) -> None:
        """A commit or a rollback is being sent. Never switches."""
        hold.transaction_at = None
        hold.active_at = self.core.clock.now()

    def _warn_of_slow(self, hold: Hold, seconds: float, frame: FrameType | None) -> None:
        text, site = self.observer.show(hold.text), site_of(frame)
        message = ", %.3g s: %s, sent at %s"
        self.observer.warn("slow query", site, message, seconds, text, tell_site(site))


def _module(frame: FrameType) -> str:
    """The package whose code a frame runs."""
    return str(frame.f_globals.get("__name__", "")).partition(".")[0]


def watcher_of(core: ResourcePool) -> FiguresListener | None:
    """Who observes a pool; `None`: nobody."""
    found = (one for one in core.listeners if isinstance(one, FiguresListener))
    return next(found, None)
