"""Which queries are common, which are slow: statistics by fingerprint, in bounded memory.

A text is looked up as it is. One that was never seen has its statistics begun at once and is read later, a
few at a time: then it joins those of its fingerprint. While more new texts come than can be read, what is
beyond the backlog is counted together as unread.
"""

from __future__ import annotations

import heapq
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from ..core import stacks
from .figures import Quantiles
from .fingerprint import Fingerprinter
from .sites import Site, site_of_capture, tell_site

UNREAD = "(texts that came too fast to be read)"

_BACKLOG = 1_000
_SHOWN = 10
_MOST_TEXTS = 5_000
_MOST_CHARACTERS = 4_000_000
# As pg_stat_statements does it: the least used 5 % go, and what was used long ago counts less and less.
_EVICTED_SHARE = 0.05
_FADING = 0.99

ORDERS: dict[str, Callable[[Any], float]] = {
    "total": lambda query: query.total,
    "calls": lambda query: query.calls,
    "mean": lambda query: query.total / query.calls if query.calls else 0.0,
    "longest": lambda query: query.longest,
    "errors": lambda query: query.errors,
}
"""What reports may be ordered by."""


class QueryStats:
    """The statistics of one fingerprint.

    Attributes:
        text: the fingerprint; empty until the text is read.
        calls: how often it was sent, failures included.
        errors: how often it failed or was abandoned.
        rows: rows found or changed, as far as the driver says.
        total: seconds in sum.
        longest: seconds.
        quantiles: of the seconds.
        sent_at: the stack where it was sent last, if that is kept.
        last_site: else who sent it: of one call in eight, and of slow ones.
    """

    __slots__ = (
        "calls",
        "errors",
        "last_site",
        "longest",
        "quantiles",
        "rows",
        "sent_at",
        "text",
        "total",
        "usage",
    )

    def __init__(self, text: str = "") -> None:
        self.text = text
        self.calls = 0
        self.errors = 0
        self.rows = 0
        self.total = 0.0
        self.longest = 0.0
        self.quantiles = Quantiles()
        self.sent_at: stacks.Stack | None = None
        self.last_site: Site = ()
        self.usage = 0.0

    @property
    def site(self) -> Site:
        """Who sent it last."""
        if self.sent_at is not None:
            self.last_site, self.sent_at = site_of_capture(self.sent_at), None
        return self.last_site

    def absorb(self, other: QueryStats) -> None:
        """Adds another's."""
        self.calls += other.calls
        self.errors += other.errors
        self.rows += other.rows
        self.total += other.total
        self.longest = max(self.longest, other.longest)
        self.quantiles.absorb(other.quantiles)
        if other.sent_at is not None or other.last_site:
            self.sent_at, self.last_site = other.sent_at, other.last_site
        self.usage += other.usage

    def to_json(self) -> dict[str, Any]:
        """As a snapshot has it. Durations are seconds."""
        p50, p95, p99 = self.quantiles.at((0.5, 0.95, 0.99))
        return {
            "query": self.text,
            "calls": self.calls,
            "errors": self.errors,
            "rows": self.rows,
            "total": self.total,
            "mean": self.total / self.calls if self.calls else 0.0,
            "p50": min(p50, self.longest),
            "p95": min(p95, self.longest),
            "p99": min(p99, self.longest),
            "longest": self.longest,
            "site": tell_site(self.site),
        }


class QueryStatistics:
    """The queries of one pool.

    Args:
        fingerprinter: reads texts.
        max_fingerprints: when there are more, the least used are evicted.
        call_soon: is told when there are texts to be read, and has `read_some` called a moment later.

    Attributes:
        fingerprinter: reads texts.
        evicted: fingerprints that had to go.
        evicted_calls: the calls that were counted for them.
        unread: what came when the backlog was full.
    """

    def __init__(
        self, fingerprinter: Fingerprinter, max_fingerprints: int, call_soon: Callable[[], object]
    ) -> None:
        self.fingerprinter = fingerprinter
        self.max_fingerprints = max_fingerprints
        self._call_soon = call_soon
        self.reset()

    def reset(self) -> None:
        """Forgets everything. Never switches."""
        self._by_text: dict[str, QueryStats] = {}
        self._characters = 0
        self._by_fingerprint: dict[str, QueryStats] = {}
        self._backlog: deque[tuple[str, QueryStats]] = deque()
        self.unread = QueryStats(UNREAD)
        self.evicted = 0
        self.evicted_calls = 0

    def __len__(self) -> int:
        return len(self._by_fingerprint)

    def add(self, text: str, seconds: float, rows: int, is_error: bool) -> QueryStats:
        """A query is over. Never switches.

        Args:
            text: as it was sent, without the values that were bound.
            seconds: from sending it to the end of `execute`.
            rows: found or changed; below 0: unknown.
            is_error: it failed, or nobody waited for its end.

        Returns:
            What it was counted for.
        """
        query = self._by_text.get(text)
        if query is None:
            query = self._begin(text)
        query.calls += 1
        query.usage += 1.0
        query.total += seconds
        query.quantiles.add(seconds)
        if seconds > query.longest:
            query.longest = seconds
        if rows > 0:
            query.rows += rows
        if is_error:
            query.errors += 1
        return query

    def fingerprint(self, text: str) -> str:
        """A text as it may be shown. Never switches."""
        known = self._by_text.get(text)
        return known.text if known is not None and known.text else self.fingerprinter.read(text)

    def read_some(self, seconds: float = 0.002) -> bool:
        """Reads new texts for about so long. Never switches.

        Returns:
            True: there are more.
        """
        deadline = time.monotonic() + seconds
        while self._backlog:
            self._read(*self._backlog.popleft())
            if time.monotonic() >= deadline:
                break
        return bool(self._backlog)

    def report(self, order: str = "total", limit: int = 10) -> list[QueryStats]:
        """The queries with the most of something.

        Args:
            order: a key of `ORDERS`: `"calls"` for the most common, `"mean"` for the slowest.
            limit: how many.
        """
        self.read_some(0.05)
        return self._most(order, limit)

    def to_json(self) -> dict[str, Any]:
        """What a snapshot says: the most of several orders, of what is read in 2 ms. Never switches."""
        self.read_some()
        orders = ("total", "calls", "mean", "errors")
        found = {id(query): query for order in orders for query in self._most(order, _SHOWN)}
        return {
            "top": [query.to_json() for query in found.values() if query.calls],
            "fingerprints": len(self),
            "evicted": self.evicted,
            "evicted_calls": self.evicted_calls,
        }

    def _most(self, order: str, limit: int) -> list[QueryStats]:
        queries = [*self._by_fingerprint.values()]
        if self.unread.calls:
            queries.append(self.unread)
        return heapq.nlargest(limit, queries, key=ORDERS[order])

    def _begin(self, text: str) -> QueryStats:
        """A text that was never seen, or was forgotten."""
        if len(self._backlog) >= _BACKLOG:
            return self.unread
        if len(self._by_text) >= _MOST_TEXTS or self._characters > _MOST_CHARACTERS:
            self._by_text = dict(self._backlog)
            self._characters = sum(map(len, self._by_text))
        query = self._by_text[text] = QueryStats()
        self._characters += len(text)
        self._backlog.append((text, query))
        if len(self._backlog) == 1:
            self._call_soon()
        return query

    def _read(self, text: str, query: QueryStats) -> None:
        fingerprint = self.fingerprinter.read(text)
        known = self._by_fingerprint.get(fingerprint)
        if known is None:
            if len(self._by_fingerprint) >= self.max_fingerprints:
                self._evict()
            query.text = fingerprint
            self._by_fingerprint[fingerprint] = query
        elif known is not query:
            known.absorb(query)
            if text in self._by_text:
                self._by_text[text] = known

    def _evict(self) -> None:
        queries = self._by_fingerprint.values()
        for query in queries:
            query.usage *= _FADING
        count = max(1, int(len(self._by_fingerprint) * _EVICTED_SHARE))
        for query in heapq.nsmallest(count, queries, key=lambda query: query.usage):
            del self._by_fingerprint[query.text]
            self.evicted += 1
            self.evicted_calls += query.calls
        kept = set(map(id, self._by_fingerprint.values())) | {
            id(query) for _, query in self._backlog
        }
        self._by_text = {text: query for text, query in self._by_text.items() if id(query) in kept}
        self._characters = sum(map(len, self._by_text))
