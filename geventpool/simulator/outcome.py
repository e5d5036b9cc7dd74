"""What a pool did with a trace."""

from __future__ import annotations

import math
from array import array
from dataclasses import dataclass, field, fields
from typing import Any, Final


@dataclass(frozen=True)
class Outcome:
    """The figures of one policy on one trace. Durations are seconds.

    Attributes:
        trace: its name.
        policy: as the user wrote it.
        opens: connections opened.
        idle_seconds: seconds for which open connections were not lent, summed over connections.
        waited: requests that were not served at once.
        p50: median time from request to connection.
        p99: of a hundred requests, all but one were served within this.
        max_wait: the longest.
        peak: most connections at once, opening ones included.
        cost: opens x break-even + idle_seconds.
        optimum: the least possible cost, that of a pool which knows the future.
        ratio: cost / optimum.
        timeline: for plots.
    """

    trace: str
    policy: str
    opens: int
    idle_seconds: float
    waited: int
    p50: float
    p99: float
    max_wait: float
    peak: int
    cost: float
    optimum: float
    ratio: float
    timeline: Timeline = field(repr=False, compare=False)

    def as_dict(self) -> dict[str, Any]:
        """The figures by name, for JSON: `KEYS`, in this order."""
        return {key: getattr(self, key) for key in KEYS}


KEYS: Final = tuple(one.name for one in fields(Outcome) if one.name != "timeline")
"""The keys of `Outcome.as_dict`, and so of `geventpool simulate --json`."""


class Timeline:
    """What happened when, in a thousand slices of the whole time, however long the trace.

    Attributes:
        start: when the first slice begins.
        step: seconds of one.
        held: most connections at once in each slice.
        opens: how many were opened in each.
    """

    SLICES: Final = 1000

    def __init__(self, start: float, end: float) -> None:
        self.start = start
        self.step = max(1e-9, (end - start) / self.SLICES)
        self.held = array("l", [0]) * self.SLICES
        self.opens = array("l", [0]) * self.SLICES
        self._last = 0
        self._holds = 0

    def slice_of(self, now: float) -> int:
        """Which slice a time belongs to."""
        return max(0, min(int((now - self.start) / self.step), self.SLICES - 1))

    def note(self, now: float, held: int) -> None:
        """From now on, so many connections are held."""
        place, held_before = self.slice_of(now), self._holds
        for between in range(self._last + 1, place + 1):
            self.held[between] = held_before
        self.held[place] = max(self.held[place], held)
        self._last, self._holds = place, held

    def opened(self, now: float) -> None:
        """A connection was opened."""
        self.opens[self.slice_of(now)] += 1

    def times(self) -> list[float]:
        """When each slice begins."""
        return [self.start + self.step * place for place in range(self.SLICES)]


class Waits:
    """How long requests waited; only those that did take room."""

    def __init__(self) -> None:
        self.seconds = array("d")

    def add(self, seconds: float) -> None:
        """A request was not served at once."""
        self.seconds.append(seconds)

    def quantiles(self, requests: int) -> tuple[float, float, float]:
        """Median, 99th percentile and maximum over all requests (the nearest-rank method)."""
        waits = sorted(self.seconds)
        at_once = requests - len(waits)

        def at(share: float) -> float:
            place = max(0, math.ceil(share * requests) - 1 - at_once)
            return waits[place] if math.ceil(share * requests) > at_once else 0.0

        return at(0.5), at(0.99), waits[-1] if waits else 0.0
