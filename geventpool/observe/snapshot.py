"""All that is known of this process's pools, as plain data: what reports, files and figures are made from.

Never contains values that were bound, literals of queries, lines of code, or anything of a URL.
"""

from __future__ import annotations

import math
import os
import sys
import time
import weakref
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from ..core.pool import ResourcePool
from ..core.registry import at_fork, pools
from ..core.stats import BY_LABEL, COUNTED, COUNTER, GAUGE, HISTOGRAM, METRICS, Counters
from .holds import IN_TRANSACTION
from .hub import hub_snapshot
from .metrics import HUB, IDLE_IN_TRANSACTION, WARNINGS
from .watcher import watcher_of

VERSION = 1


def snapshot() -> dict[str, Any]:
    """The process as it is now. Never switches greenlets."""
    found = sorted(pools(), key=lambda pool: pool.name)
    for pool in found:
        _keep_counts_of(pool)
    return {
        "version": VERSION,
        "pid": os.getpid(),
        "program": os.path.basename(sys.argv[0]) if sys.argv else "",
        "began": began(os.getpid()),
        "time": time.time(),
        "pools": [pool_snapshot(pool) for pool in found],
        "gone": list(_gone.values()),
        "hub": hub_snapshot(),
    }


# What pools counted that are not there any more, such as those of engines that were disposed of, by name.
_gone: dict[str, dict[str, Any]] = {}
_kept: weakref.WeakSet[ResourcePool] = weakref.WeakSet()


def _keep_counts_of(pool: ResourcePool) -> None:
    if pool not in _kept:
        _kept.add(pool)
        weakref.finalize(pool, _add_gone, os.getpid(), pool.name, pool.counters).atexit = False


def _add_gone(pid: int, name: str, counters: Counters) -> None:
    if pid != os.getpid():
        return  # what a parent's pool has counted, the parent tells
    _add_counts(_gone.setdefault(name, _nothing(name)), counters.read())


def _after_fork_in_child() -> None:
    _gone.clear()
    _kept.clear()


at_fork(_after_fork_in_child)


def pool_snapshot(pool: ResourcePool) -> dict[str, Any]:
    """One pool: its `PoolStats`, and what its observer knows, if it has one."""
    stats = asdict(pool.stats())
    if stats["max_size"] == math.inf:
        stats["max_size"] = None  # JSON knows no infinity
    watcher = watcher_of(pool)
    observed = None if watcher is None else watcher.to_json()
    return {**stats, "observed": observed}


def began(pid: int) -> str:
    """What tells a process from a later one of the same number; empty: it is not there any more."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        pass
    else:
        return "" if fields[0] in "ZX" else fields[19]  # start time in clock ticks
    if sys.platform == "linux":
        return ""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    except PermissionError:
        pass
    return "unknown"


@dataclass
class Total:
    """The figures of any number of processes.

    Attributes:
        processes: how many of them run.
        pools: the sums by the pools' names.
        hub: the sums of the hubs; `None`: none is watched.
    """

    processes: int = 0
    pools: dict[str, dict[str, Any]] = field(default_factory=dict)
    hub: dict[str, Any] | None = None


def add_up(living: Iterable[Mapping[str, Any]], ended: Iterable[Mapping[str, Any]] = ()) -> Total:
    """Adds up snapshots.

    Args:
        living: snapshots of processes that run; of these everything counts.
        ended: of such as have ended; of these only what ever rises.
    """
    total = Total()
    for snapshots, is_alive in ((living, True), (ended, False)):
        for one in snapshots:
            total.processes += is_alive
            for pool in one["pools"]:
                name = pool["name"]
                if name not in total.pools:
                    total.pools[name] = _nothing(name)
                _add(total.pools[name], pool, is_alive)
            for gone in one.get("gone", ()):
                name = gone["name"]
                _add_counts(total.pools.setdefault(name, _nothing(name)), gone)
            if one["hub"] is not None:
                total.hub = _add_hub(total.hub, one["hub"])
    return total


def _add_hub(total: dict[str, Any] | None, hub: Mapping[str, Any]) -> dict[str, Any]:
    if total is None:
        return dict(hub)
    longest = [one["longest"] for one in (total, hub) if one["longest"] is not None]
    return {
        **total,
        **{one.name: total[one.name] + hub[one.name] for one in HUB if one.kind == COUNTER},
        "longest": max(longest, key=lambda block: float(block["seconds"]), default=None),
    }


_ADDED_UP: Final = tuple(one for one in METRICS if one.is_added_up)
_GAUGES: Final = tuple(one.name for one in _ADDED_UP if one.kind == GAUGE)
_COMMON: Final = frozenset(one.name for one in METRICS if one.is_common)


def _nothing(name: str) -> dict[str, Any]:
    nothing: dict[str, Callable[[], Any]] = {BY_LABEL: dict, HISTOGRAM: list}
    return {
        "name": name,
        **{one.name: nothing.get(one.kind, int)() for one in _ADDED_UP},
        IDLE_IN_TRANSACTION.name: 0,
        WARNINGS.name: {},
        "histograms": {},
    }


def _add(total: dict[str, Any], pool: Mapping[str, Any], is_alive: bool) -> None:
    if is_alive:
        for name in _GAUGES:
            both = total[name], pool[name]
            add = max if name in _COMMON else sum
            total[name] = None if None in both else add(both)  # a cap that there is not
    _add_counts(total, pool)
    observed = pool["observed"]
    if observed is None:
        return
    _add_by_label(total[WARNINGS.name], observed[WARNINGS.name])
    if is_alive:
        total[IDLE_IN_TRANSACTION.name] += sum(
            holder["state"] == IN_TRANSACTION for holder in observed["holders"]
        )
    for name, value in observed["histograms"].items():
        if isinstance(value, Mapping):
            before = total["histograms"].setdefault(name, {"counts": [], "total": 0.0})
            before["counts"] = _add_lists(before["counts"], value["counts"])
            before["total"] += value["total"]
        else:
            total["histograms"][name] = total["histograms"].get(name, 0) + value


def _add_counts(total: dict[str, Any], pool: Mapping[str, Any]) -> None:
    for one in COUNTED:
        before, more = total[one.name], pool[one.name]
        if one.kind == BY_LABEL:
            _add_by_label(before, more)
        else:
            total[one.name] = _add_lists(before, more) if one.kind == HISTOGRAM else before + more


def _add_by_label(total: dict[str, float], more: Mapping[str, float]) -> None:
    for name, value in more.items():
        total[name] = total.get(name, 0) + value


def _add_lists(left: list[int], right: Iterable[int]) -> list[int]:
    right = list(right)
    if not (left and right):
        return left or right
    return [one + other for one, other in zip(left, right, strict=True)]
