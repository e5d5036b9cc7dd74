"""What is learnt of one pool that is watched, whoever watches it."""

from __future__ import annotations

import logging
import sys
import time
import weakref
from collections import deque
from functools import partial
from typing import Any

import gevent

from ..core.pool import ResourcePool
from .figures import Figures
from .fingerprint import Fingerprinter
from .queries import QueryStatistics
from .settings import Settings
from .sites import Line, Site, tell_site, tell_stack
from .usage import Usage

_READ_EVERY = 0.05  # at 2 ms for each turn, reading new texts takes 4 % of one processor at most
_RECENT = 20


class Findings:
    """What is known of one pool that is watched, beside who holds its connections.

    Attributes:
        core: the pool; with an engine that was disposed of, it is another one from then on.
        name: the pool's.
        settings: what is watched.
        database: as SQLAlchemy names it, or the driver's name; `None`: not known yet.
        figures: histograms.
        queries: statistics of queries; `None` if they are not watched.
        usage: what each call site did with the time for which it held connections.
        log: where warnings go.
        is_attached: it is still watched.
        warnings: how many there were, by what they were for.
        recent: the last of them.
    """

    def __init__(
        self, core: ResourcePool, settings: Settings, database: str | None, log: logging.Logger
    ) -> None:
        self.core = core
        self.name = core.name
        self.settings = settings
        self.database = database
        self.log = log
        self.figures = Figures()
        self.warnings: dict[str, int] = {}
        self.recent: deque[dict[str, Any]] = deque(maxlen=_RECENT)
        self.usage = Usage()
        self.queries: QueryStatistics | None = None
        if settings.queries and not settings.figures_only:
            fingerprinter = Fingerprinter(database or "")
            self.queries = QueryStatistics(
                fingerprinter, settings.max_fingerprints, self._read_soon
            )
        self.is_attached = True
        self._has_failed = False

    def know(self, database: str) -> None:
        """It has turned out what the raw pool's database is. Never switches."""
        self.database = database
        if self.queries is not None:
            self.queries.fingerprinter = Fingerprinter(database)

    def show(self, text: str) -> str:
        """A query's text without what may be secret. Never switches."""
        return self.queries.fingerprint(text) if self.queries is not None and text else ""

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

    def to_json(self) -> dict[str, Any]:
        """What a snapshot says of a pool beside its counts, and beside who holds its connections."""
        return {
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
        core = self.core
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
        core = self.core
        gevent.spawn_raw(partial(self.log.error, message, core, name, tell_stack(lines)))

    def _read_soon(self) -> None:
        core = self.core
        if core.is_here:
            self._set_reader()
        elif core.mailbox is not None:
            core.mailbox.post(self._set_reader)

    def _set_reader(self) -> None:
        read = partial(_read, weakref.ref(self))  # a timer is to keep no pool alive
        self.core.clock.call_later(_READ_EVERY, read, ref=False)

    def read_some(self) -> None:
        """Reads the texts of some new queries; more a moment later. Never switches."""
        if self.queries is not None and self.queries.read_some():
            self._set_reader()


def _read(findings_ref: weakref.ref[Findings]) -> None:
    findings = findings_ref()
    if findings is not None:
        findings.read_some()
