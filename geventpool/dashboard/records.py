"""Figures of one moment or of a stretch of time: what the memory keeps of each pool.

Pure: snapshots in, records out, and records are added up over processes and merged over time. A record is
a plain dict, so that it goes into JSON as it is:

    n   seconds that it is of
    g   means of `GAUGES`; no cap is null
    p   the most that were in use or in line at once
    c   what `COUNTS` rose by
    w   how many waits ended in each bucket of `WAIT_EDGES`
    e   callers that got nothing, by why
    r   callers that waited, by why
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from operator import add as add_two
from typing import Any, Final

from ..core.stats import WAIT_EDGES

Record = dict[str, Any]

GAUGES: Final = ("in_use", "idle", "waiting", "size", "level", "mean_in_use", "max_size")
COUNTS: Final = (
    "checkouts",
    "hold_seconds",
    "waits",
    "wait_seconds",
    "timeouts",
    "opened",
    "open_errors",
    "closed",
)
_BY_LABEL: Final = {"e": "timeout_reasons", "r": "wait_reasons"}
_DIGITS: Final = 4
_MOST_LABELS: Final = 20


def totals(pools: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The counters of a process's pools of one name, added up."""
    found: dict[str, Any] = {"c": [], "w": [], "e": {}, "r": {}}
    for pool in pools:
        counts = [*map(pool.__getitem__, COUNTS[:-1]), sum(pool["closed"].values())]
        found["c"] = _lists(found["c"], counts)
        found["w"] = _lists(found["w"], pool["wait_counts"])
        for key, name in _BY_LABEL.items():
            found[key] = _labels(found[key], pool[name])
    return found


def record(
    pools: Sequence[Mapping[str, Any]],
    now: Mapping[str, Any],
    before: Mapping[str, Any] | None,
    seconds: float,
) -> Record:
    """What a process's pools of one name did since their counters were `before`.

    Args:
        pools: as their snapshot has them.
        now: their `totals`.
        before: those of then; `None`: not known, so that nothing is counted.
        seconds: since then.
    """
    gauges = [[pool[name] for pool in pools] for name in GAUGES]
    rose: Record = {"c": [0] * len(COUNTS), "w": [], "e": {}, "r": {}}
    if before is not None and all(x >= y for x, y in zip(now["c"], before["c"], strict=True)):
        rose["c"] = [round(x - y, _DIGITS) for x, y in zip(now["c"], before["c"], strict=True)]
        if len(before["w"]) == len(now["w"]):
            rose["w"] = [x - y for x, y in zip(now["w"], before["w"], strict=True)]
        for key in _BY_LABEL:
            grown = {name: many - before[key].get(name, 0) for name, many in now[key].items()}
            rose[key] = {name: many for name, many in grown.items() if many > 0}
    if not any(rose["w"]):
        rose["w"] = []
    means = [None if None in one else round(sum(one), _DIGITS) for one in gauges]
    return {"n": round(seconds, 2), "g": means, "p": means[0] + means[2], **rose}  # type: ignore[operator]


def add(records: Sequence[Record]) -> Record:
    """Those of several processes in the same stretch of time."""
    return _join(records, [None if None in one else sum(one) for one in _gauges(records)], sum)


def merge(records: Collection[Record]) -> Record:
    """Those of one pool in stretches that follow one another."""
    total = sum(one["n"] for one in records) or 1
    weights = [one["n"] / total for one in records]
    means = [
        None if None in one else sum(x * y for x, y in zip(one, weights, strict=True))
        for one in _gauges(records)
    ]
    merged = _join(records, means, max)
    merged["n"] = round(sum(one["n"] for one in records), 2)
    return merged


def _gauges(records: Iterable[Record]) -> list[tuple[Any, ...]]:
    return list(zip(*(one["g"] for one in records), strict=True))


def _join(records: Collection[Record], means: list[Any], peak: Any) -> Record:
    joined: Record = {
        "n": max(one["n"] for one in records),
        "g": [None if one is None else round(one, _DIGITS) for one in means],
        "p": round(peak(one["p"] for one in records), _DIGITS),
        "c": [0] * len(COUNTS),
        "w": [],
        "e": {},
        "r": {},
    }
    for one in records:
        joined["c"] = _lists(joined["c"], one["c"])
        joined["w"] = _lists(joined["w"], one["w"])
        for key in _BY_LABEL:
            if one[key]:
                joined[key] = _labels(joined[key], one[key])
    joined["c"] = [round(one, _DIGITS) for one in joined["c"]]
    return joined


def gauge(one: Record, name: str) -> float | None:
    """A mean, by its name."""
    value: float | None = one["g"][GAUGES.index(name)]
    return value


def count(one: Record, name: str) -> float:
    """What a counter rose by, by its name."""
    value: float = one["c"][COUNTS.index(name)]
    return value


def wait_at(one: Record, share: float) -> float:
    """A quantile of the waits: the upper edge of its bucket, in seconds; 0: nobody has waited."""
    left = share * sum(one["w"])
    if left <= 0:
        return 0.0
    for edge, many in zip((*WAIT_EDGES, WAIT_EDGES[-1]), one["w"], strict=False):
        left -= many
        if left <= 1e-9:
            return edge
    return WAIT_EDGES[-1]


def _lists(left: Sequence[float], right: Sequence[float]) -> list[float]:
    if not (left and right):
        return list(left or right)
    return list(map(add_two, left, right))


def _labels(left: Mapping[str, float], right: Mapping[str, float]) -> dict[str, float]:
    if not left and len(right) <= _MOST_LABELS:
        return dict(right)
    joined = dict(left)
    for name, many in right.items():
        # Names come from outside: beyond a few of them they would only fill the memory.
        if name in joined or len(joined) < _MOST_LABELS:
            joined[name] = joined.get(name, 0) + many
    return joined
