"""What each page shows, as plain data: the templates make tables of it, and /api gives it as JSON."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any, Final

from . import records
from .collector import Collector, Now, holders_of, queries_of
from .memory import Memory, step_for
from .problems import Problem, cure, outlook, worst_first
from .records import Record, count, gauge, wait_at

ROWS: Final = 100
WINDOWS: Final = {"15 min": 900, "1 h": 3600, "4 h": 4 * 3600, "24 h": 24 * 3600}
ORDERS: Final = ("total", "calls", "mean", "p99", "errors")
_DAY: Final = 86_400
_LONGEST_NAME: Final = 300


@dataclass(frozen=True)
class Query:
    """What a page is asked for. Whatever is given, there is something to show.

    Attributes:
        pool: of this name; empty: all.
        process: of this one, as `Process.name` says; empty: all.
        begin: of a stretch of time; 0: so long ago as `window` says.
        end: of a stretch of time; 0: now.
        window: seconds, if there is no `begin`.
        order: of queries.
        page: of long tables, from 1.
        what: which events; empty: all.
    """

    pool: str = ""
    process: str = ""
    begin: float = 0.0
    end: float = 0.0
    window: int = 900
    order: str = "total"
    page: int = 1
    what: str = ""

    @classmethod
    def of(cls, given: Mapping[str, str]) -> Query:
        """From a URL's parameters; what makes no sense counts as not given."""
        window, page = _number(given.get("window")), _number(given.get("page"))
        order = given.get("order", "")
        begin, end = _number(given.get("from")), _number(given.get("to"))
        return cls(
            pool=given.get("pool", "")[:_LONGEST_NAME],
            process=given.get("process", "")[:_LONGEST_NAME],
            begin=begin if not end or begin < end else 0.0,
            end=end,
            window=int(window) if window in WINDOWS.values() else 900,
            order=order if order in ORDERS else "total",
            page=int(min(max(page, 1), 1000)),
            what=given.get("what", "")[:_LONGEST_NAME],
        )

    def stretch(self, now: float) -> tuple[float, float]:
        """Its begin and end, within what is remembered."""
        end = min(self.end, now) or now
        begin = self.begin or end - self.window
        return max(begin, now - _DAY - 3600), max(end, now - _DAY)


def _number(text: str | None) -> float:
    try:
        value = float(text or 0)
    except ValueError:
        return 0.0
    return value if 0 < value < 1e11 and math.isfinite(value) else 0.0


View = Callable[[Collector, Query], dict[str, Any]]


def fleet(collector: Collector, query: Query) -> dict[str, Any]:
    """Hosts, processes and pools, and what is wrong with them."""
    now = collector.now
    rows = [
        _fleet_row(process, pool)
        for process in now.processes
        for pool in process.pools
        if query.pool in ("", pool.name) and query.process in ("", process.name)
    ]
    begin = (query.page - 1) * ROWS
    return {
        "at": now.at,
        "errors": now.errors,
        "problems": list(islice(_problems(now), ROWS)),
        "sums": [_sum_row(name, one) for name, one in now.sums.items()],
        "hosts": len({process.host for process in now.processes}),
        "processes": len(now.processes),
        "rows": rows[begin : begin + ROWS],
        "more": len(rows) > begin + ROWS,
        "many": len(rows),
    }


def _fleet_row(process: Any, pool: Any) -> dict[str, Any]:
    found = worst_first([*process.problems, *pool.problems])
    since = {**pool.since, **process.since}
    return {
        "process": process.name,
        "program": process.said["program"],
        "pool": pool.name,
        "stale_for": process.stale_for,
        **_figures(pool.record),
        "history": list(pool.history),
        "state": ", ".join(one.what for one in found) or outlook(pool.record),
        "is_wrong": bool(found),
        "since": since[found[0].what] if found else None,
        "view": found[0].view if found else "timeline",
    }


def _sum_row(name: str, one: Record) -> dict[str, Any]:
    return {"pool": name, **_figures(one)}


def _figures(one: Record) -> dict[str, Any]:
    seconds = one["n"] or 1
    return {
        **dict(zip(records.GAUGES, one["g"], strict=True)),
        "checkouts": count(one, "checkouts") / seconds,
    }


def _problems(now: Now) -> Any:
    found: list[tuple[Problem, str, str, float]] = []
    for process in now.processes:
        found += [(one, process.name, "", process.since[one.what]) for one in process.problems]
        for pool in process.pools:
            found += [(one, process.name, pool.name, pool.since[one.what]) for one in pool.problems]
    order = {id(one): place for place, one in enumerate(worst_first([x[0] for x in found]))}
    for one, process_name, pool_name, since in sorted(found, key=lambda x: order[id(x[0])]):
        yield {
            **asdict(one),
            "cure": one.cure,
            "process": process_name,
            "pool": pool_name,
            "since": since,
        }


def timeline(collector: Collector, query: Query) -> dict[str, Any]:
    """Figures over time, of one pool's sum or of one process's pool."""
    now = collector.now.at or time.time()
    begin, end = query.stretch(now)
    pools = list(collector.now.sums)
    pool = query.pool or max(pools, key=lambda one: _use_of(collector.now.sums[one]), default="")
    step, rows = _series(collector.memory, pool, query.process, begin, end, now)
    events = collector.memory.events(begin, end, ROWS)
    return {
        "at": now,
        "pools": pools,
        "pool": pool,
        "process": query.process,
        "processes": [process.name for process in collector.now.processes][:ROWS],
        "begin": begin,
        "end": end,
        "is_live": not query.end,
        "window": query.window,
        "step": step,
        "rows": [_timeline_row(at, one) for at, one in rows],
        "events": [asdict(one) for one in events if one.pool in ("", pool)],
    }


def _use_of(one: Record) -> float:
    """What is looked at first is what is used most."""
    return count(one, "checkouts") + (gauge(one, "in_use") or 0)


def _series(
    memory: Memory, pool: str, process: str, begin: float, end: float, now: float
) -> tuple[int, list[tuple[int, Record]]]:
    step = step_for(begin, end, now)
    column, name = ("processes", f"{process}/{pool}") if process else ("pools", pool)
    rows = memory.read(begin, end, step, column)
    # The newest coarse row is a minute old at most; what is missing is left out.
    return step, [(at, tick[name]) for at, tick in rows if name in tick]


def _timeline_row(at: int, one: Record) -> dict[str, Any]:
    seconds = one["n"] or 1
    return {
        "at": at,
        "demand": (gauge(one, "in_use") or 0) + (gauge(one, "waiting") or 0),
        "peak": one["p"],
        **dict(zip(records.GAUGES, one["g"], strict=True)),
        "checkouts": count(one, "checkouts") / seconds,
        "opened": count(one, "opened"),
        "closed": count(one, "closed"),
        "open_errors": count(one, "open_errors"),
        "wait_p50": wait_at(one, 0.5),
        "wait_p99": wait_at(one, 0.99),
        "errors": one["e"],
    }


def holders(collector: Collector, query: Query) -> dict[str, Any]:
    """Who holds connections: idle in transaction first, then the longest."""
    then, found = _now_or_then(collector, query, "holders", holders_of)
    found = [one for one in found if _is_asked_for(one, query)]
    return {"at": then, "is_live": not query.end, "rows": found[:ROWS], "many": len(found)}


def queries(collector: Collector, query: Query) -> dict[str, Any]:
    """Queries by what they cost, and who keeps connections without using them."""
    then, found = _now_or_then(collector, query, "queries", queries_of)
    found = [one for one in found if query.pool in ("", one["pool"])]
    found.sort(key=lambda one: -float(one[query.order]))
    return {
        "at": then,
        "is_live": not query.end,
        "order": query.order,
        "orders": list(ORDERS),
        "rows": found[:ROWS],
        "many": len(found),
        "sites": _sites(collector.now, query)[:20],
    }


def _now_or_then(
    collector: Collector, query: Query, name: str, read: Callable[[Now], list[dict[str, Any]]]
) -> tuple[float, list[dict[str, Any]]]:
    if not query.end:
        return collector.now.at, read(collector.now)
    at, said = collector.memory.detail(query.end) or (query.end, {})
    return at, said.get(name, [])


def _is_asked_for(one: Mapping[str, Any], query: Query) -> bool:
    return query.pool in ("", one["pool"]) and query.process in ("", one["process"])


def _sites(now: Now, query: Query) -> list[dict[str, Any]]:
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for process in now.processes:
        for pool in process.pools:
            if query.pool not in ("", pool.name):
                continue
            for said in pool.said:
                for site in (said["observed"] or {}).get("sites", ()):
                    one = found.setdefault(
                        (pool.name, site["site"]),
                        {
                            "pool": pool.name,
                            "site": site["site"],
                            "count": 0,
                            "held": 0.0,
                            "busy": 0.0,
                            "longest": 0.0,
                        },
                    )
                    for name in ("count", "held", "busy"):
                        one[name] += site[name]
                    one["longest"] = max(one["longest"], site["longest"])
    return sorted(found.values(), key=lambda one: one["busy"] - one["held"])


def waits(collector: Collector, query: Query) -> dict[str, Any]:
    """Why callers wait or get nothing, and whose fault it is."""
    now = collector.now
    at = now.at or time.time()
    begin, end = query.stretch(at)
    ticks = [tick for _, tick in collector.memory.read(begin, end, step_for(begin, end, at))]
    by_pool: dict[str, list[Record]] = {}
    for tick in ticks:
        for name, one in tick.items():
            if query.pool in ("", name):
                by_pool.setdefault(name, []).append(one)
    culprits = [one for one in _problems(now) if one["site"] and query.pool in ("", one["pool"])]
    blocks = [
        {"process": process.name, **process.said["hub"], "blocked": process.said["hub"]["longest"]}
        for process in now.processes
        if process.said["hub"] and process.said["hub"]["longest"]
    ]
    blocks.sort(key=lambda one: -float(one["blocked_seconds"]))
    return {
        "at": at,
        "begin": begin,
        "end": end,
        "window": query.window,
        "rows": _causes(by_pool)[:ROWS],
        "culprits": culprits[:ROWS],
        "blocks": blocks[:ROWS],
    }


def _causes(by_pool: Mapping[str, list[Record]]) -> list[dict[str, Any]]:
    """Why callers waited, or got nothing; most of the latter first."""
    rows = []
    for name, found in by_pool.items():
        merged = records.merge(found)
        for why in merged["r"].keys() | merged["e"].keys():
            rows.append(
                {
                    "pool": name,
                    "why": why,
                    "waits": merged["r"].get(why, 0),
                    "timeouts": merged["e"].get(why, 0),
                    "wait_p50": wait_at(merged, 0.5),
                    "wait_p99": wait_at(merged, 0.99),
                    "cure": cure(why),
                }
            )
    return sorted(rows, key=lambda one: (-one["timeouts"], -one["waits"]))


def events(collector: Collector, query: Query) -> dict[str, Any]:
    """What happened: leaks, warnings, blocked hubs, resizes, outages."""
    at = collector.now.at or time.time()
    end = query.end or at + 3600  # another host's clock may be ahead
    begin = query.begin or at - _DAY
    found = [
        {**asdict(one), "cure": cure(one.what)}
        for one in collector.memory.events(begin, end, 1000)
        if query.what in ("", one.what) and query.pool in ("", one.pool)
    ]
    kinds = sorted({one["what"] for one in found})
    return {
        "at": at,
        "what": query.what,
        "kinds": kinds[:30],
        "rows": found[:200],
        "many": len(found),
    }


VIEWS: Final[Mapping[str, View]] = {
    "fleet": fleet,
    "timeline": timeline,
    "holders": holders,
    "queries": queries,
    "waits": waits,
    "events": events,
}
"""Each page, in the order of the menu."""
