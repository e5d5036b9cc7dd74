"""The figures of a turn, of a pool over its turns, and of one pool beside another."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from .pools import VARIANTS
from .turn import Turn

BACK_OFF = 1.0
"""Seconds between two attempts to connect while the server is down, at most."""

OURS = VARIANTS["geventpool"].title
DEFAULT = VARIANTS["queuepool"].title
TUNED = (VARIANTS["queuepool-20-10"].title, VARIANTS["queuepool-50-25"].title)
LARGE = TUNED[1]

LEAST_SECONDS = 30.0
"""A day that is shorter is over before an idle connection is."""

Figures = dict[str, float]
Rounds = Mapping[str, Sequence[Figures]]


def measure(turn: Turn) -> Figures:
    """All figures of one turn: counts, and seconds."""
    good = sorted(row[2] for row in turn.requests if row[4] is None)
    beyond = sorted(row[3] for row in turn.requests if row[4] is None)
    found = {
        "requests": float(len(turn.requests)),
        "errors": float(len(turn.requests) - len(good)),
        "p50": quantile(good, 0.50),
        "p95": quantile(good, 0.95),
        "p99": quantile(good, 0.99),
        "beyond p99": quantile(beyond, 0.99),
        "demand": statistics.fmean(row[2] for row in turn.samples) if turn.samples else 0.0,
        "opened": float(len(turn.opens) or turn.counters.get("connects", 0)),
        "most held": max((count for _, count in turn.server), default=0.0),
        "connection seconds": area(turn.server),
    }
    return found | (_of_fault(turn) if turn.fault else {})


def _of_fault(turn: Turn) -> Figures:
    began, ended = turn.fault
    bad = [row[0] for row in turn.requests if row[4] is not None]
    near = sorted(row[2] for row in turn.requests if began <= row[0] <= ended + 3)
    return {
        "fault seconds": ended - began,
        "errors in the fault": sum(at <= ended + BACK_OFF for at in bad),
        "errors after it": sum(at > ended + BACK_OFF for at in bad),
        "last error after its end": max([0.0, *(at - ended for at in bad)]),
        "slowest near it": near[-1] if near else 0.0,
        "served after it": sum(
            row[4] is None and row[0] > ended + BACK_OFF for row in turn.requests
        ),
    }


def by_pool(turns: Sequence[Turn]) -> dict[str, list[Figures]]:
    """The figures of each round, by the pool's title, in the order in which pools appear."""
    found: dict[str, list[Figures]] = {}
    for turn in sorted(turns, key=lambda one: one.round):
        found.setdefault(turn.title, []).append(measure(turn))
    return found


def median(rounds: Sequence[Figures]) -> Figures:
    """The median of the rounds for each figure; counts of errors are added up."""
    found = {
        name: statistics.median(one.get(name, 0.0) for one in rounds)
        for name in {name for one in rounds for name in one}
    }
    for name in ("errors", "errors in the fault", "errors after it"):
        if name in found:
            found[name] = sum(one.get(name, 0.0) for one in rounds)
    return found


def ratios(rounds: Rounds, name: str, ours: str, theirs: str) -> list[float]:
    """Ours as a multiple of theirs, in each round that both have taken part in."""
    both = zip(rounds.get(ours, ()), rounds.get(theirs, ()), strict=False)
    return [mine[name] / other[name] for mine, other in both if other[name]]


@dataclass(frozen=True)
class Verdict:
    """Something that must hold.

    Attributes:
        what: it says.
        values: of the rounds.
        most: that the median may be.
    """

    what: str
    values: list[float]
    most: float

    @property
    def value(self) -> float:
        """The median."""
        return statistics.median(self.values)

    @property
    def holds(self) -> bool:
        """Is it so?"""
        return self.value <= self.most

    @property
    def shown(self) -> str:
        """For people; with more digits, where two would hide that it is above the limit."""
        value = self.value
        return f"{value:g}" if value.is_integer() else f"{value:.{2 if self.holds else 3}f}"


def judge(turns: Sequence[Turn]) -> list[Verdict]:
    """What must hold on a day; nothing for other loads, with faults, or on a day that is too short."""
    rounds = by_pool(turns)
    plans = [turn.plan for turn in turns]
    if OURS not in rounds or any(
        plan["shape"] != "day" or plan["fault"] or plan["seconds"] < LEAST_SECONDS for plan in plans
    ):
        return []
    mine = rounds[OURS]
    found = [Verdict("errors", [sum(one["errors"] for one in mine)], 0)]
    tuned = [title for title in TUNED if title in rounds]
    if tuned:
        best = min(tuned, key=lambda title: median(rounds[title])["p99"])
        found.append(Verdict(f"p99 / {best}", ratios(rounds, "p99", OURS, best), 1.05))
    if LARGE in rounds:
        of_seconds = ratios(rounds, "connection seconds", OURS, LARGE)
        found.append(Verdict(f"connection seconds / {LARGE}", of_seconds, 0.5))
    if DEFAULT in rounds:
        of_opens = ratios(rounds, "opened", OURS, DEFAULT)
        found.append(Verdict(f"connections opened / {DEFAULT}", of_opens, 0.2))
    return [verdict for verdict in found if verdict.values]


def quantile(ordered: Sequence[float], share: float) -> float:
    """The nearest-rank quantile of sorted values; 0 of none."""
    return ordered[math.ceil(share * len(ordered)) - 1] if ordered else 0.0


def area(points: Sequence[Sequence[float]]) -> float:
    """Under a line of `[seconds, value]`, by trapezoids."""
    return sum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in pairwise(points))


Format = Callable[[float], str]


def milliseconds(value: float) -> str:
    """For people."""
    return f"{value * 1e3:,.1f} ms" if value < 0.1 else f"{value * 1e3:,.0f} ms"


def whole(value: float) -> str:
    """For people."""
    return f"{value:,.0f}"


def seconds(value: float) -> str:
    """For people."""
    return f"{value:.2f} s"


COLUMNS: dict[str, tuple[str, Format]] = {
    "requests": ("requests", whole),
    "errors": ("errors", whole),
    "p50": ("p50", milliseconds),
    "p95": ("p95", milliseconds),
    "p99": ("p99", milliseconds),
    "beyond p99": ("p99 beyond the queries' own time", milliseconds),
    "opened": ("connections opened", whole),
    "most held": ("most at once", whole),
    "connection seconds": ("connection seconds", whole),
}
FAULT_COLUMNS: dict[str, tuple[str, Format]] = {
    "fault seconds": ("it lasted", seconds),
    "errors in the fault": (f"errors until {BACK_OFF:g} s after its end", whole),
    "errors after it": ("errors later", whole),
    "last error after its end": ("last error after its end", seconds),
    "slowest near it": ("slowest request until 3 s after it", milliseconds),
    "served after it": ("served after it", whole),
}
RATIOS = ("p50", "p95", "p99", "beyond p99", "opened", "most held", "connection seconds")


def table(rounds: Rounds, columns: Mapping[str, tuple[str, Format]]) -> list[list[str]]:
    """A heading and a row for each pool."""
    if not _has_own_time(rounds):
        columns = {name: column for name, column in columns.items() if name != "beyond p99"}
    rows = [["pool", *(heading for heading, _ in columns.values())]]
    for title, each in rounds.items():
        middle = median(each)
        rows.append([title, *(shown(middle[name]) for name, (_, shown) in columns.items())])
    return rows


def ratio_table(rounds: Rounds) -> list[list[str]]:
    """What the others need, as a multiple of ours: the median of the rounds, and their range."""
    names = [name for name in RATIOS if name != "beyond p99" or _has_own_time(rounds)]
    rows = [["pool", *(COLUMNS[name][0] for name in names)]]
    for title in rounds:
        if title != OURS and OURS in rounds:
            rows.append([title, *(_range(ratios(rounds, name, title, OURS)) for name in names)])
    return rows


def _has_own_time(rounds: Rounds) -> bool:
    """Is it known how long the queries themselves take? Not of a web server's."""
    return any(one["beyond p99"] != one["p99"] for each in rounds.values() for one in each)


def _range(values: Sequence[float]) -> str:
    if not values:
        return ""
    middle = f"{statistics.median(values):.2f}"
    return middle if len(values) == 1 else f"{middle}\n{min(values):.2f} to {max(values):.2f}"


def server_table(turns: Sequence[Turn]) -> list[list[str]]:
    """What the server counted, in all and for each request."""
    counted: dict[str, list[Turn]] = {}
    for turn in turns:
        if turn.counters and turn.requests:
            counted.setdefault(turn.title, []).append(turn)
    names = list(dict.fromkeys(name for turn in turns for name in turn.counters))
    rows = [["pool", *names]]
    for title, own in counted.items():
        requests = sum(len(turn.requests) for turn in own)
        sums = [sum(turn.counters.get(name, 0) for turn in own) for name in names]
        rows.append([title, *(f"{count:,}\n{count / requests:.3f}" for count in sums)])
    return rows if counted else []
