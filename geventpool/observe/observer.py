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

from ..core.pool import ResourcePool
from ..core.registry import at_fork
from ..errors import ConfigError
from .figures import Figures
from .fingerprint import Fingerprinter
from .holds import Holder, longest_held
from .queries import QueryStatistics
from .sites import Line, Site, tell_site, tell_stack
from .usage import Usage
from .watcher import FiguresListener, Watcher

_READ_EVERY = 0.05  # at 2 ms for each turn, reading new texts takes 4 % of one processor at most


_RECENT = 20
_HOLDERS = 20


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
        database: as SQLAlchemy names it, or the driver's name; `None`: not known yet.
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
        self._has_failed = False
        self._watchers: weakref.WeakSet[FiguresListener] = weakref.WeakSet()
        self.watcher: FiguresListener
        self.watch(core)
        _observers.add(self)

    def watch(self, core: ResourcePool) -> None:
        """Watches this pool from now on; with an engine that was disposed of, it is another one."""
        kind = FiguresListener if self.settings.figures_only else Watcher
        self.name = core.name
        self.watcher = kind(self, core)
        self._watchers.add(self.watcher)
        core.add_listener(self.watcher)

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
        for watcher in list(self._watchers):  # of pools that were disposed of, too
            watcher.core.remove_listener(watcher)
            watcher.stop()
        while self._undo:
            self._undo.pop()()

    def holders(self, limit: int = 20) -> list[Holder]:
        """Who holds connections now, for longest first. Never switches greenlets."""
        found = [holder for watcher in list(self._watchers) for holder in watcher.holders()]
        return longest_held(found, limit)

    def reset(self) -> None:
        """Forgets the statistics of queries and call sites; the figures go on, as counters do."""
        if self.queries is not None:
            self.queries.reset()
        self.usage.reset()

    def begin_again_after_fork(self) -> None:
        """The child's part of a fork: what was learnt is the parent's. Never switches."""
        self.reset()
        self.figures.reset()
        self.warnings.clear()
        self.recent.clear()
        for watcher in list(self._watchers):
            watcher.begin_again_after_fork()

    def to_json(self, watcher: FiguresListener) -> dict[str, Any]:
        """What a snapshot says of a pool beside its counts.

        Args:
            watcher: the pool's. An engine that was disposed of may have an older pool, too, of which
                nothing is said but who holds its connections.
        """
        holders = longest_held(watcher.holders(), _HOLDERS)
        said = {"holders": [holder.to_json() for holder in holders]}
        if watcher is not self.watcher:
            return {
                **said,
                "histograms": {},
                "warnings": {},
                "recent": [],
                "queries": None,
                "sites": [],
            }
        return {
            **said,
            "histograms": self.figures.to_json(),
            "warnings": dict(self.warnings),
            "recent": list(self.recent),
            "queries": None if self.queries is None else self.queries.to_json(),
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

    def failed(self) -> None:
        """A listener's method raised, which is no concern of the program's: told once. Never switches."""
        if self._has_failed:
            return
        self._has_failed = True
        kind, _, traceback = sys.exc_info()
        lines: list[Line] = []
        while traceback is not None:
            code = traceback.tb_frame.f_code
            lines.append((code.co_filename, traceback.tb_lineno, code.co_name))
            traceback = traceback.tb_next
        message = "%r: observing it has failed, which is told only once: %s at\n%s"
        name = "" if kind is None else kind.__name__
        core = self.watcher.core
        gevent.spawn_raw(partial(self.log.error, message, core, name, tell_stack(lines)))

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


_observers: weakref.WeakSet[Observer] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for observer in list(_observers):
        observer.begin_again_after_fork()


at_fork(_after_fork_in_child)


def _read(observer_ref: weakref.ref[Observer]) -> None:
    observer = observer_ref()
    if observer is not None:
        observer.read_some()
