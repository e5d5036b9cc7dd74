"""What watches one pool: a listener of its core, and what it has learnt."""

from __future__ import annotations

import logging
import sys
import time
import weakref
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import gevent

from ..core import stacks
from ..core.entry import IN_USE, Entry
from ..core.pool import ResourcePool
from ..drivers import driver_for
from ..errors import ConfigError
from . import dbapi
from .figures import Figures
from .fingerprint import Fingerprinter
from .holds import Hold, Holder, Thresholds, describe, is_in_transaction, longest_held
from .queries import QueryStatistics
from .sites import Site, lines_of_capture, site_of, tell_site, tell_stack
from .usage import Usage

_READ_EVERY = 0.05  # at 2 ms for each turn, reading new texts takes 4 % of one processor at most


_RECENT = 20
_LOOK_EVERY = 8  # a walk up the stack is what a query's statistics cost most


@dataclass(frozen=True)
class Settings:
    """What is watched. Durations are seconds.

    Attributes:
        figures_only: the histograms, and nothing else.
        queries: keep statistics of queries by fingerprint.
        stacks: the share of checkouts, from 0 to 1, of which the stacks are kept.
        idle_in_transaction_after: warn when a connection is idle in a transaction for longer.
        held_after: warn when a connection is held for longer.
        slow_query_after: warn of a query that takes longer.
        kill: close the connection that is warned of, unless it is in a query.
        max_fingerprints: most different queries to keep statistics of.

    Raises:
        ConfigError: naming the setting, its value and the cure.
    """

    figures_only: bool = False
    queries: bool = True
    stacks: float = 1.0
    idle_in_transaction_after: float | None = 10.0
    held_after: float | None = 30.0
    slow_query_after: float | None = 1.0
    kill: bool = False
    max_fingerprints: int = 1000

    def __post_init__(self) -> None:
        for name in ("figures_only", "queries", "kill"):
            if not isinstance(getattr(self, name), bool):
                raise ConfigError(name, getattr(self, name), "give True or False")
        for name in ("idle_in_transaction_after", "held_after", "slow_query_after"):
            value = getattr(self, name)
            if value is not None and not (_is_number(value) and 0.001 <= value <= 1e9):
                raise ConfigError(name, value, "give a number of seconds above 0, or None")
        if not (_is_number(self.stacks) and 0 <= self.stacks <= 1):
            raise ConfigError("stacks", self.stacks, "give a share from 0 (none) to 1 (all)")
        if not isinstance(self.max_fingerprints, int) or not 1 <= self.max_fingerprints <= 10**6:
            raise ConfigError(
                "max_fingerprints", self.max_fingerprints, "give a whole number from 1"
            )


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


class Observer:
    """What is known of one pool that is watched. `detach()` ends it.

    Attributes:
        name: the pool's.
        settings: what is watched.
        database: the name of the dialect or the driver; `None`: not known yet.
        figures: histograms.
        queries: statistics of queries; `None` if they are not watched.
        usage: what each call site did with the time for which it held connections.
        log: where warnings go.
        watcher: the listener of the pool's core.
        is_attached: `detach` was not called yet.
        warnings: how many there were, by what they were for.
        recent: the last of them.
    """

    def __init__(
        self, core: ResourcePool, settings: Settings, database: str | None, log: logging.Logger
    ) -> None:
        self.settings = settings
        self.database = database
        self.log = log
        self.figures = Figures()
        self.warnings: dict[str, int] = {}
        self.usage = Usage()
        self.queries: QueryStatistics | None = None
        if settings.queries and not settings.figures_only:
            fingerprinter = Fingerprinter(database or "")
            self.queries = QueryStatistics(
                fingerprinter, settings.max_fingerprints, self._read_soon
            )
        self._undo: list[Callable[[], object]] = []
        self.recent: deque[dict[str, Any]] = deque(maxlen=_RECENT)
        self.is_attached = True
        self.watcher: FiguresListener
        self.watch(core)

    def watch(self, core: ResourcePool) -> None:
        """Watches this pool from now on; with an engine that was disposed of, it is another one."""
        kind = FiguresListener if self.settings.figures_only else Watcher
        self.name = core.name
        self.watcher = kind(self, core)
        core.listener = self.watcher

    def know(self, database: str) -> None:
        """It has turned out what the raw pool's database is. Never switches."""
        self.database = database
        if self.queries is not None:
            self.queries.fingerprinter = Fingerprinter(database)

    def on_detach(self, undo: Callable[[], object]) -> None:
        """Has something undone by `detach`."""
        self._undo.append(undo)

    def detach(self) -> None:
        """Watches no longer. What was learnt stays readable. Never switches greenlets."""
        self.is_attached = False
        if self.watcher.core.listener is self.watcher:
            self.watcher.core.listener = None
        self.watcher.stop()
        while self._undo:
            self._undo.pop()()

    def holders(self, limit: int = 20) -> list[Holder]:
        """Who holds connections now, for longest first. Never switches greenlets."""
        watcher = self.watcher
        in_use = [entry for entry in watcher.core.entries if entry.state is IN_USE]
        holds = watcher.holds
        return longest_held([describe(watcher, entry, holds.get(entry)) for entry in in_use], limit)

    def reset(self) -> None:
        """Forgets the statistics of queries and call sites; the figures go on, as counters do."""
        if self.queries is not None:
            self.queries.reset()
        self.usage.reset()

    def to_json(self) -> dict[str, Any]:
        """What a snapshot says of this pool beside its counts."""
        queries = self.queries
        shown: dict[str, Any] | None = None
        if queries is not None:
            orders = ("total", "calls", "mean", "errors")
            found = {id(query): query for order in orders for query in queries.report(order)}
            shown = {
                "top": [query.to_json() for query in found.values() if query.calls],
                "fingerprints": len(queries),
                "evicted": queries.evicted,
                "evicted_calls": queries.evicted_calls,
            }
        return {
            "histograms": self.figures.to_json(),
            "holders": [holder.to_json() for holder in self.holders()],
            "warnings": dict(self.warnings),
            "recent": list(self.recent),
            "queries": shown,
            "sites": [site.to_json() for site in self.usage.report()],
        }

    def warn(self, what: str, site: Site, message: str, *arguments: object) -> None:
        """Writes a warning to the log, in a greenlet of its own, and remembers it. Never switches.

        Args:
            what: in a few words.
            site: whose fault it is.
            message: the rest of it, with places for the arguments.
            *arguments: what is put there.
        """
        self.warnings[what] = self.warnings.get(what, 0) + 1
        self.recent.append({"at": time.time(), "what": what, "site": tell_site(site)})
        core = self.watcher.core
        gevent.spawn_raw(partial(self.log.warning, f"%r: {what}{message}", core, *arguments))

    def _read_soon(self) -> None:
        core = self.watcher.core
        if core.is_here:
            self._set_reader()
        elif core.mailbox is not None:
            core.mailbox.post(self._set_reader)

    def _set_reader(self) -> None:
        read = partial(_read, weakref.ref(self))  # a timer is to keep no pool alive
        self.watcher.core.clock.call_later(_READ_EVERY, read, ref=False)

    def read_some(self) -> None:
        """Reads the texts of some new queries; more a moment later. Never switches."""
        if self.queries is not None and self.queries.read_some():
            self._set_reader()


def _read(observer_ref: weakref.ref[Observer]) -> None:
    observer = observer_ref()
    if observer is not None:
        observer.read_some()


class FiguresListener:
    """Feeds the histograms, and tells the log when connections come and go.

    Attributes:
        core: the pool.
        holds: what is known of each lent connection.
    """

    def __init__(self, observer: Observer, core: ResourcePool) -> None:
        self.observer = observer
        self.core = core
        self.name = core.name
        self.figures = observer.figures
        self.log = observer.log
        self.holds: dict[Entry, Hold] = {}

    def lent(self, entry: Entry, seconds: float) -> None:
        """A histogram more."""
        self.figures.acquire.add(seconds)

    def waited(self, seconds: float, why: str) -> None:
        """The pool counts it."""

    def refused(self, why: str) -> None:
        """The pool counts it, and who is refused gets an error that says all."""

    def returned(self, entry: Entry, held: float) -> None:
        """A histogram more."""
        self.figures.hold.add(held)

    def opened(self, entry: Entry, seconds: float) -> None:
        """A histogram more, and a line in the log."""
        self.figures.open.add(seconds)
        if self.log.isEnabledFor(logging.INFO):
            self._tell("%r: opened connection %s in %.3g s", self.number(entry), seconds)

    def closed(self, entry: Entry, cause: str) -> None:
        """A line in the log."""
        if self.log.isEnabledFor(logging.INFO):
            self._tell("%r: closing connection %s: %s", self.number(entry), cause)

    def handed_out(self, entry: Entry) -> Any:
        """What a user of the raw pool gets instead of the driver's connection."""
        if self.log.isEnabledFor(logging.DEBUG):
            self.log.debug("%r: connection %s checked out", self.core, self.number(entry))
        return entry.resource

    def cursor_made(self, record: Any, cursor: Any) -> Any:
        """What a user of SQLAlchemy's DBAPI connection gets instead of the driver's cursor."""
        return cursor

    def stop(self) -> None:
        """Nothing runs."""

    def connection(self, entry: Entry) -> Any:
        """The driver's connection behind an entry."""
        resource = entry.resource
        return getattr(resource, "dbapi_connection", resource)

    def number(self, entry: Entry) -> int:
        """The server's own number of a connection, where the driver knows it."""
        return dbapi.number_of(self.connection(entry))

    def show(self, text: str) -> str:
        """A query's text without what may be secret."""
        queries = self.observer.queries
        return queries.fingerprint(text) if queries is not None and text else ""

    def _tell(self, message: str, *arguments: object) -> None:
        gevent.spawn_raw(partial(self.log.info, message, self.core, *arguments))


class Watcher(FiguresListener):
    """Follows each lent connection, its queries and its transactions."""

    def __init__(self, observer: Observer, core: ResourcePool) -> None:
        super().__init__(observer, core)
        settings = observer.settings
        self._queries = observer.queries
        self._usage = observer.usage
        self._sample_every = round(1 / settings.stacks) if settings.stacks else 0
        self._until_sample = 1
        self._slow = settings.slow_query_after or float("inf")
        self.thresholds = Thresholds(self, settings)
        self._last: Hold | None = None

    def lent(self, entry: Entry, seconds: float) -> None:
        """Somebody holds it from now on."""
        self.figures.acquire.add(seconds)
        frame = sys._getframe(2)
        taken = None
        if self._sample_every:
            self._until_sample -= 1
            if not self._until_sample:
                self._until_sample = self._sample_every
                taken = stacks.capture(2)
        self.holds[entry] = Hold(entry.taken_at, site_of(frame), taken)
        if not self.thresholds.is_armed:
            self.thresholds.arm()

    def returned(self, entry: Entry, held: float) -> None:
        """Nobody holds it any more."""
        self.figures.hold.add(held)
        hold = self.holds.pop(entry, None)
        if hold is None:
            return  # it was lent before we watched
        if hold.began is not None:  # whoever sent that query has been killed, or has dropped it
            self.query_ended(hold, -1, is_error=True)
        self._usage.add(hold.site, held, hold.busy)
        self._last = hold
        if hold.warned is not None:
            self.thresholds.returned(hold, held)

    def closed(self, entry: Entry, cause: str) -> None:
        """If its greenlet has ended with it in hand: where that took it."""
        super().closed(entry, cause)
        hold = self._last  # `returned` was called for the same entry just before
        if cause == "owner ended" and hold is not None:
            stack = tell_stack(lines_of_capture(hold.taken)).rstrip()
            where = f"{tell_site(hold.site)}\n{stack}".rstrip()
            number = self.number(entry)
            self.observer.warn("leak", hold.site, ": connection %s was taken at %s", number, where)

    def handed_out(self, entry: Entry) -> Any:
        """A connection that tells us of its cursors and queries."""
        super().handed_out(entry)
        if self.observer.database is None:
            self.observer.know(driver_for(entry.resource).name)
        hold = self.holds.get(entry)
        return entry.resource if hold is None else dbapi.Connection(self, hold, entry.resource)

    def cursor_made(self, record: Any, cursor: Any) -> Any:
        """A cursor that tells us of its queries, unless SQLAlchemy does."""
        if sys._getframe(2).f_globals.get("__name__", "").startswith("sqlalchemy."):
            return cursor
        hold = None if record is None else self.holds.get(record.entry)
        if hold is None:
            return cursor
        self.cursor_by(hold)
        return dbapi.Cursor(self, hold, cursor, record.dbapi_connection)

    def stop(self) -> None:
        """Warns no longer."""
        self.thresholds.stop()

    def cursor_by(self, hold: Hold) -> None:
        """A cursor is being made by the calling code. Never switches."""
        hold.active_at = self.core.clock.now()
        if hold.is_sampled:
            hold.cursor = stacks.capture(2)

    def query_began(self, hold: Hold, text: str, connection: Any) -> None:
        """A query is being sent by the calling code on the driver's connection. Never switches."""
        if hold.transaction_at is not None and not is_in_transaction(connection):
            hold.transaction_at = None  # it was committed, or rolled back
        hold.began = self.core.clock.now()
        hold.text = text
        if not hold.site:
            hold.site = site_of(sys._getframe(2))  # it was taken in another thread for this one
        if hold.is_sampled:
            hold.executed = stacks.capture(2)

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
            return
        now = self.core.clock.now()
        began, hold.began = hold.began, None
        seconds = now - began
        hold.active_at = now
        hold.busy += seconds
        hold.queries += 1
        self.figures.query.add(seconds)
        self.figures.query_errors += is_error
        if connection is not None:
            if not is_in_transaction(connection):
                hold.transaction_at = None
            elif hold.transaction_at is None:
                hold.transaction_at = began
        is_slow = seconds >= self._slow
        if self._queries is not None:
            query = self._queries.add(hold.text, seconds, rows, is_error)
            if is_slow or query.calls % _LOOK_EVERY == 1:
                query.site = hold.execute_site = site_of(sys._getframe(2))
        if is_slow:
            self._warn_of_slow(hold, seconds)

    def transaction_ended(self, hold: Hold) -> None:
        """A commit or a rollback is being sent. Never switches."""
        hold.transaction_at = None
        hold.active_at = self.core.clock.now()

    def _warn_of_slow(self, hold: Hold, seconds: float) -> None:
        text, site = self.show(hold.text), site_of(sys._getframe(3))
        message = ", %.3g s: %s, sent at %s"
        self.observer.warn("slow query", site, message, seconds, text, tell_site(site))
