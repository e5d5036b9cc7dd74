"""Busy against held, by call site: who keeps connections while doing something else."""

from __future__ import annotations

import heapq
from typing import Any

from .sites import Site, tell_site

_MOST_SITES = 1000


class SiteUsage:
    """What one call site did with the connections that it took. Durations are seconds.

    Attributes:
        site: who.
        count: connections taken and returned.
        held: for how long, in sum.
        busy: how much of that was spent in queries.
        longest: the longest that one was held.
    """

    __slots__ = ("busy", "count", "held", "longest", "site")

    def __init__(self, site: Site) -> None:
        self.site = site
        self.count = 0
        self.held = 0.0
        self.busy = 0.0
        self.longest = 0.0

    @property
    def wasted(self) -> float:
        """The seconds for which a connection was held and no query ran."""
        return self.held - self.busy

    def to_json(self) -> dict[str, Any]:
        """As a snapshot has it."""
        return {
            "site": tell_site(self.site),
            "count": self.count,
            "held": self.held,
            "busy": self.busy,
            "busy_share": self.busy / self.held if self.held else 1.0,
            "longest": self.longest,
        }


class Usage:
    """All call sites of one pool; beyond a thousand, the rest are counted together."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forgets everything. Never switches."""
        self._sites: dict[Site, SiteUsage] = {}

    def add(self, site: Site, held: float, busy: float) -> None:
        """A connection has come back. Never switches."""
        usage = self._sites.get(site)
        if usage is None:
            if len(self._sites) >= _MOST_SITES:
                site = ()
            usage = self._sites.setdefault(site, SiteUsage(site))
        usage.count += 1
        usage.held += held
        usage.busy += busy
        if held > usage.longest:
            usage.longest = held

    def report(self, limit: int = 10) -> list[SiteUsage]:
        """Those who kept connections for longest without using them, first."""
        return heapq.nlargest(limit, [*self._sites.values()], key=lambda usage: usage.wasted)
