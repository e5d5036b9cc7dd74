"""Looks at all sources once a second, and knows what they say now and have said a moment ago."""

from __future__ import annotations

import logging
import sqlite3
import time
from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import gevent
from gevent.event import Event as GeventEvent
from gevent.lock import BoundedSemaphore

from ..core.causes import DATABASE_DOWN, HUB_BLOCKED, SATURATED
from ..errors import GeventPoolError
from ..observe.text import seconds
from . import problems, records
from .memory import Event, Memory
from .problems import Problem
from .records import Record
from .sources import Published, Source

log = logging.getLogger("geventpool.dashboard")

INTERVAL: Final = 1.0
_HISTORY: Final = 60
_STALE_AFTER: Final = 5.0
_OLD: Final = 15.0
_SHARE: Final = 0.1  # of a processor
_LATELY: Final = 5
_BLOCKS: Final = 20
_TOLD_WHEN_THEY_BEGIN: Final = (SATURATED, DATABASE_DOWN)
_MOST_PROCESSES: Final = 5000
_KEPT_HOLDERS, _KEPT_QUERIES = 20, 20

Key = tuple[str, int, str]


@dataclass
class Pool:
    """One pool of a process as it is now, its namesakes added up.

    Attributes:
        name: its name.
        said: as the snapshot has it, once for each of that name.
        record: what it did in the last second.
        problems: what is wrong, the worst first.
        since: when each of these began, in seconds since 1970.
        history: in use and in line, in the last minute.
    """

    name: str
    said: list[Mapping[str, Any]]
    record: Record
    problems: list[Problem]
    since: dict[str, float]
    history: deque[float]


@dataclass
class Process:
    """One process as it is now.

    Attributes:
        host: where it runs.
        said: its last snapshot.
        stale_for: seconds since it published, if that is too long ago.
        problems: what is wrong with the process itself.
        since: when each of these began.
        pools: by name.
    """

    host: str
    said: Mapping[str, Any]
    stale_for: float | None
    problems: list[Problem]
    since: dict[str, float]
    pools: list[Pool]

    @property
    def pid(self) -> int:
        """Its number on its host."""
        return int(self.said["pid"])

    @property
    def name(self) -> str:
        """As links name it."""
        return f"{self.host}/{self.pid}"


@dataclass
class Now:
    """All that is known at one moment.

    Attributes:
        at: seconds since 1970.
        processes: by host and number.
        sums: records of pools of one name on all hosts.
        errors: sources that could not be read, and why.
    """

    at: float = 0.0
    processes: list[Process] = field(default_factory=list)
    sums: dict[str, Record] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)


@dataclass
class _Seen:
    """What is remembered of a process between two looks."""

    mark: object
    changed_at: float  # monotonic
    gap: float = INTERVAL
    totals: dict[str, dict[str, Any]] = field(default_factory=dict)
    caps: dict[str, float | None] = field(default_factory=dict)
    counted_at: float = 0.0
    recent: dict[str, deque[Record]] = field(default_factory=dict)
    wrong: dict[str, dict[str, float]] = field(default_factory=dict)  # what, since when, by pool
    last: Mapping[str, Any] = field(default_factory=dict)
    blocks: deque[Mapping[str, Any]] = field(default_factory=lambda: deque(maxlen=_BLOCKS))
    warned_at: float = 0.0  # the last warning that was told, by the process's clock


class Collector:
    """Looks, remembers, and wakes who waits for news.

    Args:
        sources: where to look.
        memory: keeps what was.

    Attributes:
        now: what was seen last.
        number: how often it has looked.
    """

    def __init__(self, sources: Sequence[Source], memory: Memory) -> None:
        self.sources = sources
        self.memory = memory
        self.now = Now()
        self.number = 0
        self._seen: dict[Key, _Seen] = {}
        self._history: dict[tuple[Key, str], deque[float]] = defaultdict(
            lambda: deque(maxlen=_HISTORY)
        )
        self._news = GeventEvent()
        self._looking = BoundedSemaphore()
        self._greenlet: gevent.Greenlet | None = None
        self._looked_at = float("-inf")
        self._failed: set[str] = set()

    def start(self) -> None:
        """Looks from now on, once a second. Never switches."""
        if self._greenlet is None or self._greenlet.dead:
            self._greenlet = gevent.spawn(self._run)

    def stop(self) -> None:
        """Looks no more. May switch greenlets."""
        if self._greenlet is not None:
            self._greenlet.kill()
            self._greenlet = None

    def wait(self, number: int, timeout: float) -> bool:
        """Waits until it has looked more often than that. May switch greenlets."""
        if self.number > number:
            return True
        return bool(self._news.wait(timeout)) and self.number > number

    def refresh(self) -> Now:
        """What is known now; looks first if it never has, or if no hub runs. May switch greenlets."""
        if time.monotonic() - self._looked_at > _OLD:
            self.look()
        return self.now

    def _run(self) -> None:
        while True:
            began = time.thread_time()
            try:
                self.look()
            except Exception:  # a second is lost, and not the page
                log.exception("the dashboard could not look at what is published")
            # At whole seconds, so that each second of the memory has its row; of very many processes
            # less often, so that the page takes little of its machine.
            spent = time.thread_time() - began
            gevent.sleep(max(INTERVAL - time.time() % INTERVAL, INTERVAL / 2, spent / _SHARE))

    def look(self) -> None:
        """Once at everything. May switch greenlets."""
        with self._looking:
            self._looked_at = time.monotonic()
            self._look()

    def _look(self) -> None:
        now = Now(at=time.time())
        events: list[Event] = []
        published = self._read(now)
        for one in published:
            now.processes.append(self._process(one, now.at, events))
        self._forget_gone({one.key for one in published}, now, events)
        by_pool: dict[str, list[Record]] = defaultdict(list)
        for process in now.processes:
            for pool in process.pools:
                by_pool[pool.name].append(pool.record)
        now.sums = {name: records.add(found) for name, found in sorted(by_pool.items())}
        self._keep(now, events)
        self.now = now
        self.number += 1
        self._news.set()
        self._news = GeventEvent()

    def _read(self, now: Now) -> list[Published]:
        found: dict[Key, Published] = {}
        for number, source in enumerate(self.sources, 1):
            try:
                found.update((one.key, one) for one in source.read())
                self._failed.discard(repr(source))
            except (OSError, GeventPoolError) as error:
                # No path of the file system, and nothing of a URL, is on the page.
                self._failing(now, f"source {number} cannot be read", repr(source), error)
        return sorted(found.values(), key=lambda one: one.key)[:_MOST_PROCESSES]

    def _process(self, one: Published, at: float, events: list[Event]) -> Process:
        moment = time.monotonic()
        seen = self._seen.get(one.key)
        if seen is None:
            seen = self._seen[one.key] = _Seen(one.mark, moment, counted_at=moment)
            if self.number:
                self._tell(events, one, at, "started", f"{one.said['program']} publishes")
        elif one.mark != seen.mark:
            seen.gap = moment - seen.changed_at
            seen.mark, seen.changed_at = one.mark, moment
        age = moment - seen.changed_at
        stale_for = age if age > max(_STALE_AFTER, 3 * min(seen.gap, 60)) else None
        block = one.said["hub"] and one.said["hub"]["last"]
        if block and block not in seen.blocks:
            seen.blocks.append(block)
        found = problems.worst_first(problems.of_process(one.said, stale_for, seen.blocks))
        since = self._since(seen, "", found, at)
        pools = self._pools(one, seen, moment, at, events)
        self._tell_warnings(one, seen, events)
        seen.last = one.said
        return Process(one.host, one.said, stale_for, found, since, pools)

    def _pools(
        self, one: Published, seen: _Seen, moment: float, at: float, events: list[Event]
    ) -> list[Pool]:
        by_name: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
        for said in one.said["pools"]:
            by_name[said["name"]].append(said)
        is_new = one.said is not seen.last
        elapsed = moment - seen.counted_at
        seen.counted_at = moment
        pools = []
        for name, said in sorted(by_name.items()):
            totals = records.totals(said)
            record = records.record(said, totals, seen.totals.get(name), elapsed)
            seen.totals[name] = totals
            rose = _lately(seen.recent.setdefault(name, deque(maxlen=_LATELY)), record)
            history = self._history[one.key, name]
            if is_new:
                history.append(record["p"])
            found = [
                problem
                for pool in said
                for problem in problems.of_pool(pool, rose, one.said["time"])
            ]
            found = problems.worst_first(found)
            since = self._since(seen, name, found, at)
            for problem in found:
                if problem.what in _TOLD_WHEN_THEY_BEGIN and since[problem.what] == at:
                    self._tell(events, one, at, problem.what, problem.told, name, problem.site)
            self._tell_cap(one, seen, name, records.gauge(record, "max_size"), at, events)
            pools.append(Pool(name, said, record, found, since, history))
        return pools

    def _since(self, seen: _Seen, name: str, found: list[Problem], at: float) -> dict[str, float]:
        before = seen.wrong.get(name, {})
        seen.wrong[name] = {problem.what: before.get(problem.what, at) for problem in found}
        return seen.wrong[name]

    def _tell(
        self,
        events: list[Event],
        one: Published,
        at: float,
        what: str,
        told: str,
        pool: str = "",
        site: str = "",
    ) -> None:
        events.append(Event(at, what, one.host, one.said["pid"], pool, told, site))

    def _tell_cap(
        self,
        one: Published,
        seen: _Seen,
        name: str,
        cap: float | None,
        at: float,
        events: list[Event],
    ) -> None:
        if name in seen.caps and seen.caps[name] != cap:
            old, new = ("none" if x is None else f"{x:g}" for x in (seen.caps[name], cap))
            self._tell(events, one, at, "resize", f"the cap was {old} and is {new}", name)
        seen.caps[name] = cap

    def _tell_warnings(self, one: Published, seen: _Seen, events: list[Event]) -> None:
        """Warnings of its observers, and its blocked hub; the memory keeps each one once."""
        found = [
            (warning["at"], warning["what"], pool["name"], "", warning["site"])
            for pool in one.said["pools"]
            for warning in (pool["observed"] or {}).get("recent", ())
        ]
        block = one.said["hub"] and one.said["hub"]["last"]
        if block:
            told = f"blocked for {seconds(block['seconds'])}"
            found.append((block["at"], HUB_BLOCKED, "", told, block["site"]))
        for at, what, pool, told, site in found:
            if at > seen.warned_at:
                self._tell(events, one, at, what, told, pool, site)
        seen.warned_at = max([seen.warned_at, *(at for at, *_ in found)])

    def _forget_gone(self, keys: set[Key], now: Now, events: list[Event]) -> None:
        for key in [key for key in self._seen if key not in keys]:
            gone = self._seen.pop(key)
            if not now.errors:
                program = str(gone.last.get("program", ""))
                events.append(Event(now.at, "ended", key[0], key[1], "", program))
        for key, name in [one for one in self._history if one[0] not in keys]:
            del self._history[key, name]

    def _keep(self, now: Now, events: list[Event]) -> None:
        if not self.memory.is_writer:
            return
        processes = {
            f"{process.name}/{pool.name}": pool.record
            for process in now.processes
            for pool in process.pools
        }
        is_minute = int(now.at) // 60 != int(self.now.at) // 60
        detail = _detail(now) if is_minute else None
        try:
            self.memory.add(int(now.at), now.sums, processes, events, detail)
            self._failed.discard("memory")
        except sqlite3.Error as error:
            self._failing(now, "the memory cannot be written", "memory", error)

    def _failing(self, now: Now, told: str, key: str, error: Exception) -> None:
        """Says so on the page, and once in the log."""
        now.errors.append(f"{told}: the log of the dashboard says why")
        if key not in self._failed:
            self._failed.add(key)
            log.warning("%s for now (%s): %s", told, key, error)


def _lately(recent: deque[Record], record: Record) -> Record:
    """What went wrong in the last seconds, so that a fault of each other second is one fault."""
    recent.append(record)
    is_quiet = not any(one["e"] or one["r"] or records.count(one, "open_errors") for one in recent)
    return record if is_quiet else records.merge(recent)


def holders_of(now: Now) -> list[dict[str, Any]]:
    """Who holds connections; idle in transaction first, then the longest."""
    found = [
        {**holder, "process": process.name, "pool": pool.name}
        for process in now.processes
        for pool in process.pools
        for said in pool.said
        for holder in (said["observed"] or {}).get("holders", ())
    ]
    return sorted(
        found, key=lambda one: (one["state"] != problems.OPEN_TRANSACTION, -one["held_for"])
    )


def queries_of(now: Now) -> list[dict[str, Any]]:
    """All fingerprints of all processes, those of one text and pool added up."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for process in now.processes:
        for pool in process.pools:
            for said in pool.said:
                for query in ((said["observed"] or {}).get("queries") or {}).get("top", ()):
                    key = pool.name, query["query"]
                    found[key] = _add_query(found.get(key), {**query, "pool": pool.name})
    return list(found.values())


def _add_query(before: dict[str, Any] | None, query: dict[str, Any]) -> dict[str, Any]:
    """Quantiles of several processes: the worst one's."""
    if before is None:
        return query
    for name in ("calls", "errors", "rows", "total"):
        query[name] += before[name]
    for name in ("p50", "p95", "p99", "longest"):
        query[name] = max(query[name], before[name])
    query["mean"] = query["total"] / query["calls"] if query["calls"] else 0.0
    return query


def _detail(now: Now) -> dict[str, Any]:
    queries = sorted(queries_of(now), key=lambda one: -float(one["total"]))
    return {"holders": holders_of(now)[:_KEPT_HOLDERS], "queries": queries[:_KEPT_QUERIES]}
