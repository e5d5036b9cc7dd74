"""How the load of the demo changes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Phase:
    """A stretch of time in which the number of clients goes from one figure to another."""

    name: str
    start: float  # seconds from the start of the load
    end: float
    first: int  # clients at its start
    last: int  # clients at its end
    think: float  # mean pause of a client between two requests, in seconds

    def clients(self, at: float) -> int:
        """How many clients are at work `at` seconds from the start of the load."""
        share = (at - self.start) / (self.end - self.start)
        return round(self.first + share * (self.last - self.first))


# name, share of the time, clients at its start and end, mean pause in seconds
SHAPE = (
    ("quiet", 0.15, 2, 2, 0.30),
    ("rise", 0.25, 2, 14, 0.25),
    ("burst", 0.15, 32, 32, 0.15),
    ("quiet again", 0.45, 2, 2, 0.30),
)


def phases(seconds: float) -> list[Phase]:
    """The phases of a load of this length."""
    return list(_phases(seconds))


def _phases(seconds: float) -> Iterator[Phase]:
    start = 0.0
    for name, share, first, last, think in SHAPE:
        end = start + share * seconds
        yield Phase(name, start, end, first, last, think)
        start = end


def phase_at(all_phases: list[Phase], at: float) -> Phase:
    """The phase that holds `at` seconds from the start; the last one after the end."""
    return next((phase for phase in all_phases if at < phase.end), all_phases[-1])
