"""Loads of the benchmark that are no family: SAAutoPool's own test grid, a long ramp, a mean of 5,000,
and what the demo's application asked of its pool.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random

from geventpool.simulator import Trace, read_traces
from geventpool.simulator.families import poisson_arrivals

DEMO_DAY = "demo-day"


def demo_day() -> Trace:
    """A day, compressed to five minutes: quiet, a rise, a burst, quiet. Recorded, not made.

    One worker of examples/flask_app on SQLite under `geventpool record`, and
    `python examples/demo_support/load.py URL 300` as its clients; times from the first request on.
    """
    return next(read_traces(str(Path(__file__).with_name(f"{DEMO_DAY}.csv.gz"))))


def long_ramp() -> Trace:
    """From 0 to 200 in use in 20 minutes, holds of a second on average."""
    chance = Random("ramp to 200")
    arrivals = poisson_arrivals(chance, lambda t: t / 6, 200.0, 1200.0)
    return Trace("ramp to 200", ((now, chance.expovariate(1.0)) for now in arrivals))


def grid(requests: int) -> Iterator[Trace]:
    """The loads with which SAAutoPool's author tested it: rates 2^i, holds 2^j, a mean of up to 25."""
    for rate_power in range(-3, 5):
        for hold_power in range(-3, 5):
            rate, hold = 2.0**rate_power, 2.0**hold_power
            if rate * hold <= 25:
                chance = Random(f"grid {rate} {hold}")
                yield Trace(f"{rate:g}/s x {hold:g} s", _poisson(chance, rate, hold, requests))


def busy(requests: int, mean: float = 5000.0) -> Trace:
    """So many in use from the start; 500,000 requests are a million events."""
    return Trace(f"{mean:g} in use", _poisson(Random(5), mean, 1.0, requests))


def _poisson(
    chance: Random, rate: float, hold: float, requests: int
) -> Iterator[tuple[float, float]]:
    now = 0.0
    for _ in range(requests):
        yield now, chance.expovariate(1 / hold)
        now += chance.expovariate(rate)
