"""From a load as it was: the smallest cap that would do, by the real pool in virtual time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..simulator import Outcome, Setting, Trace, simulate
from ..sizing.erlang import servers_for


@dataclass(frozen=True)
class Traced:
    """What a trace says of one process's pool. Durations are seconds.

    Attributes:
        trace: its name.
        requests: how many.
        rate: of them each second, on average.
        hold: mean of a request.
        peak: most at once.
        erlang: connections by Erlang C, as if that rate had been even.
        cap: the smallest cap with which 99 of 100 requests wait for no longer than is acceptable.
        outcome: of a pool with that cap.
    """

    trace: str
    requests: int
    rate: float
    hold: float
    peak: int
    erlang: int
    cap: int
    outcome: Outcome

    @property
    def load(self) -> float:
        """Mean number in use, by Little's law."""
        return self.rate * self.hold


def from_trace(
    trace: Trace,
    acceptable_wait: float,
    connect: float,
    progress: Callable[[int], object] = bool,
) -> Traced:
    """Finds the cap by halving. Switches greenlets.

    Args:
        trace: the load of one pool.
        acceptable_wait: seconds.
        connect: seconds that a connect takes.
        progress: told each cap that is tried.
    """
    hold = sum(trace.holds) / len(trace)
    rate = len(trace) / max(trace.last_return - trace.start, hold)
    peak = _peak(trace)
    tried: dict[int, Outcome] = {}

    def waits(cap: int) -> float:
        progress(cap)
        tried[cap] = simulate(trace, "adaptive", Setting(connect=connect, max_size=cap))
        return tried[cap].p99

    low, high = 1, peak
    while low < high:
        middle = (low + high) // 2
        if waits(middle) <= acceptable_wait:
            high = middle
        else:
            low = middle + 1
    if low not in tried:
        waits(low)
    erlang = servers_for(rate * hold, hold, acceptable_wait, 0.01)
    return Traced(trace.name, len(trace), rate, hold, peak, erlang, low, tried[low])


def _peak(trace: Trace) -> int:
    in_use = most = 0
    for _, is_rise in trace.events():
        in_use += 1 if is_rise else -1
        most = max(most, in_use)
    return most
