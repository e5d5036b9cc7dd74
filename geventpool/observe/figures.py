"""Histograms of what a pool does, beside the counts that it keeps itself."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from ..core.stats import HISTOGRAM, counter, declared_by, metric

EDGES = (
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
)  # fmt: skip
"""Seconds: the upper edges of all histograms; the last bucket is everything beyond."""


class Histogram:
    """How often, by how long.

    Attributes:
        counts: for each of `EDGES`, and beyond the last: how many were in that bucket.
        total: the sum, in seconds.
    """

    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts = [0] * (len(EDGES) + 1)
        self.total = 0.0

    def add(self, seconds: float) -> None:
        """One more. Never switches."""
        self.counts[bisect_left(EDGES, seconds)] += 1
        self.total += seconds

    def reset(self) -> None:
        """Begins anew."""
        self.counts[:] = [0] * len(self.counts)
        self.total = 0.0

    def to_json(self) -> dict[str, Any]:
        """As a snapshot has it."""
        return {"counts": list(self.counts), "total": self.total}


# Buckets of equal ratio: whoever reads a quantile is wrong by 5 % at most.
_RATIO = 1.1
_LEAST = 1e-5
_LOG = math.log(_RATIO)


class Quantiles:
    """Quantiles of any number of durations, from 10 µs up, in at most a few hundred counters.

    Buckets of equal ratio, as in HdrHistogram and DDSketch (Masson, Rim and Lee, 2019); merging is adding.
    """

    __slots__ = ("counts",)

    def __init__(self, counts: Mapping[int, int] | None = None) -> None:
        self.counts: dict[int, int] = dict(counts or {})

    def add(self, seconds: float) -> None:
        """One more duration. Never switches."""
        bucket = int(math.log(seconds / _LEAST) / _LOG) if seconds > _LEAST else 0
        self.counts[bucket] = self.counts.get(bucket, 0) + 1

    def absorb(self, other: Quantiles) -> None:
        """Adds those of another."""
        for bucket, count in other.counts.items():
            self.counts[bucket] = self.counts.get(bucket, 0) + count

    def at(self, shares: Sequence[float]) -> list[float]:
        """The quantiles in seconds, within 5 %; 0 if there are no durations.

        Args:
            shares: between 0 and 1, rising.
        """
        total = sum(self.counts.values())
        found: list[float] = []
        seen = 0
        for bucket, count in sorted(self.counts.items()):
            seen += count
            while len(found) < len(shares) and seen >= shares[len(found)] * total:
                found.append(_LEAST * _RATIO ** (bucket + 0.5))
        return found + [0.0] * (len(shares) - len(found))


histogram = partial(metric, HISTOGRAM)


@dataclass(slots=True)
class Figures:
    """The histograms of one pool that is observed, in seconds; `query` only if queries are watched."""

    acquire: Histogram = field(
        default_factory=Histogram,
        metadata=histogram("From asking for a connection to having it", "acquire_seconds"),
    )
    hold: Histogram = field(
        default_factory=Histogram,
        metadata=histogram("For how long returned connections had been lent", "hold_seconds"),
    )
    open: Histogram = field(
        default_factory=Histogram,
        metadata=histogram("What opening a connection took", "open_seconds"),
    )
    query: Histogram = field(
        default_factory=Histogram, metadata=histogram("What queries took", "query_seconds")
    )
    query_errors: int = field(default=0, metadata=counter("Queries that failed or were abandoned"))

    def reset(self) -> None:
        """Begins anew."""
        for one in FIGURES:
            if one.kind == HISTOGRAM:
                getattr(self, one.name).reset()
            else:
                setattr(self, one.name, 0)

    def to_json(self) -> dict[str, Any]:
        """As a snapshot has them: by the names under which they are exported."""
        said = {one.exposed: getattr(self, one.name) for one in FIGURES}
        return {
            name: value.to_json() if isinstance(value, Histogram) else value
            for name, value in said.items()
        }


FIGURES: Final = declared_by(Figures)
