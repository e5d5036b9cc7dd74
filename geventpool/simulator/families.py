"""Loads made by seeded chance, by family. The same seed gives the same trace on every machine."""

from __future__ import annotations

import bisect
import math
import random
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from ..errors import ConfigError
from .trace import Trace

Requests = Iterator[tuple[float, float]]
Family = Callable[[random.Random], Requests]


def make_trace(family: str, seed: int = 0) -> Trace:
    """A trace of a family.

    Raises:
        ConfigError: there is no such family.
    """
    if family not in FAMILIES:
        raise ConfigError("family", family, f"give one of {', '.join(FAMILIES)}")
    return Trace(f"{family}-{seed}", FAMILIES[family](random.Random(f"{family} {seed}")))


def poisson_arrivals(
    chance: random.Random, rate: Callable[[float], float], most: float, end: float
) -> Iterator[float]:
    """Arrivals of an inhomogeneous Poisson process, by thinning (Lewis and Shedler 1979).

    Args:
        chance: where randomness comes from.
        rate: arrivals per second at a time.
        most: what `rate` never exceeds.
        end: seconds.
    """
    now = 0.0
    while (now := now + chance.expovariate(most)) < end:
        if chance.random() * most < rate(now):
            yield now


def _steady(chance: random.Random) -> Requests:
    """The same rate all the time."""
    rate, hold = chance.choice([2, 10, 40]), chance.choice([0.05, 0.3, 1.0])
    for now in poisson_arrivals(chance, lambda t: rate, rate, 1800):
        yield now, chance.expovariate(1 / hold)


def _diurnal(chance: random.Random) -> Requests:
    """A day: quiet at night, a peak at noon, scaled to two hours."""
    top, day, hold = chance.choice([5, 20]), 7200.0, chance.choice([0.1, 0.6])
    share = chance.choice([0.02, 0.1])

    def rate(t: float) -> float:
        return top * (share + (1 - share) * math.sin(math.pi * t / day) ** 4)

    for now in poisson_arrivals(chance, rate, top, day):
        yield now, chance.expovariate(1 / hold)


def _bursts(chance: random.Random) -> Requests:
    """On and off: bursts of random length with pauses of random length."""
    top, on, off = chance.choice([10, 30]), chance.choice([10, 40]), chance.choice([20, 100])
    hold = chance.choice([0.2, 0.8])
    turns = [0.0]
    while turns[-1] < 3600:
        turns.append(turns[-1] + chance.expovariate(1 / (on if len(turns) % 2 else off)))

    def rate(t: float) -> float:
        return top if bisect.bisect(turns, t) % 2 else top / 20

    for now in poisson_arrivals(chance, rate, top, 3600):
        yield now, chance.expovariate(1 / hold)


def _flash_crowd(chance: random.Random) -> Requests:
    """Twice, half a minute of a hundred times the usual."""
    usual, top = chance.choice([1, 3]), chance.choice([50, 100])

    def rate(t: float) -> float:
        return top if 900 < t % 1800 < 930 else usual

    for now in poisson_arrivals(chance, rate, top, 3600):
        yield now, chance.expovariate(1 / 0.3)


def _cron(chance: random.Random) -> Requests:
    """Many at once every so often, and nothing in between."""
    period, many = chance.choice([30, 60, 300]), chance.choice([10, 30])
    for start in range(0, 7200, period):
        for _ in range(many):
            yield start + 0.2 * chance.random(), chance.expovariate(2)


def _heavy_tailed(chance: random.Random) -> Requests:
    """Most holds are short, some are as long as five minutes (Pareto)."""
    rate, shape = chance.choice([2, 8]), chance.choice([1.3, 1.7])
    for now in poisson_arrivals(chance, lambda t: rate, rate, 3600):
        yield now, min(300.0, 0.1 * chance.paretovariate(shape))


def _near_idle(chance: random.Random) -> Requests:
    """A request now and then."""
    rate = 1 / chance.choice([10, 40, 120])
    for now in poisson_arrivals(chance, lambda t: rate, rate, 40_000):
        yield now, chance.expovariate(1 / 0.1)


def _sequential(chance: random.Random) -> Requests:
    """One client that asks again when it has finished, with pauses to think."""
    pause, hold, now = chance.choice([0.01, 0.5, 5.0]), chance.choice([0.02, 0.2]), 0.0
    while now < 3600:
        held = chance.expovariate(1 / hold)
        yield now, held
        now += held + chance.expovariate(1 / pause)


def _ramp(chance: random.Random) -> Requests:
    """From nothing to a hundred or two hundred in use within five minutes, and then nothing."""
    top = chance.choice([100, 200])
    for now in poisson_arrivals(chance, lambda t: top * t / 300, top, 300):
        yield now, chance.expovariate(1.0)


def _batches(chance: random.Random) -> Requests:
    """Batches of random size at random times."""
    pause, many, now = chance.choice([2, 10, 50]), chance.choice([5, 20]), 0.0
    while now < 3600:
        for _ in range(1 + int(chance.expovariate(1 / many))):
            yield now, chance.expovariate(2.5)
        now += chance.expovariate(1 / pause)


def _stop(chance: random.Random) -> Requests:
    """A steady load that stops for half an hour, comes back, and stops for good."""
    rate, hold = chance.choice([5, 20]), chance.choice([0.3, 1.0])

    def current(t: float) -> float:
        return 0.0 if 900 <= t < 2700 else rate

    for now in poisson_arrivals(chance, current, rate, 3600):
        yield now, chance.expovariate(1 / hold)


def _scale(chance: random.Random) -> Requests:
    """A busy worker: hundreds in use, for a quarter of an hour."""
    mean, hold = chance.choice([200, 500]), chance.choice([2.0, 10.0])
    rate = mean / hold
    for now in poisson_arrivals(chance, lambda t: rate, rate, 900):
        yield now, chance.expovariate(1 / hold)


def _short_ramp(chance: random.Random) -> Requests:
    """From nothing to 20-500 in use within ten seconds to five minutes, and then nothing."""
    top, length = chance.choice([20, 60, 150, 500]), chance.choice([10, 30, 60, 300])
    hold = 4.0 if top * length > 40_000 else chance.choice([0.5, 1.0])
    rate = top / hold
    for now in poisson_arrivals(chance, lambda t: rate * t / length, rate, length):
        yield now, chance.expovariate(1 / hold)


def _sawtooth(chance: random.Random) -> Requests:
    """Climbs for some minutes and falls to nearly nothing, again and again."""
    top, period, hold = chance.choice([10, 40]), chance.choice([60, 240]), chance.choice([0.3, 1])

    def rate(t: float) -> float:
        return top * (0.02 + 0.98 * (t % period) / period)

    for now in poisson_arrivals(chance, rate, top, 3600):
        yield now, chance.expovariate(1 / hold)


def _two_speed_day(chance: random.Random) -> Requests:
    """A day, scaled to two hours, with ups and downs of some minutes on top."""
    top, day, hold = chance.choice([5, 15]), 7200.0, chance.choice([0.2, 0.8])
    fast = chance.choice([40.0, 180.0, 600.0])

    def rate(t: float) -> float:
        slow = math.sin(math.pi * t / day) ** 2
        return top * slow * (0.55 + 0.45 * math.sin(2 * math.pi * t / fast))

    for now in poisson_arrivals(chance, rate, top, day):
        yield now, chance.expovariate(1 / hold)


def _deploy(chance: random.Random) -> Requests:
    """A steady load that is held up for some seconds by each deployment, and then comes at once."""
    rate, hold = chance.choice([5, 20]), chance.choice([0.3, 1.0])
    every, stop = chance.choice([300, 900]), chance.choice([5, 15, 40])
    for now in poisson_arrivals(chance, lambda t: rate, rate, 2700):
        until = now - now % every + stop
        yield max(now, until + 0.2 * chance.random()), chance.expovariate(1 / hold)


def _lunch_break(chance: random.Random) -> Requests:
    """Steady, twenty minutes of nothing, steady."""
    rate, hold = chance.choice([2, 8, 30]), chance.choice([0.1, 0.5, 2.0])

    def current(t: float) -> float:
        return 0.0 if 1200 <= t < 2400 else rate

    for now in poisson_arrivals(chance, current, rate, 3600):
        yield now, chance.expovariate(1 / hold)


def _week(chance: random.Random) -> Requests:
    """Five working days with nights, and a quiet week-end; a day is scaled to twenty minutes."""
    top, day, hold = chance.choice([4, 12]), 1200.0, chance.choice([0.2, 0.8])
    night = chance.choice([0.0, 0.01])

    def rate(t: float) -> float:
        work = max(0.0, math.sin(2 * math.pi * (t % day) / day - math.pi / 2))
        return top * (night + (1 - night) * work * (1.0 if t < 5 * day else 0.15))

    for now in poisson_arrivals(chance, rate, top, 7 * day):
        yield now, chance.expovariate(1 / hold)


FAMILIES: Final[Mapping[str, Family]] = {
    "steady": _steady,
    "diurnal": _diurnal,
    "bursts": _bursts,
    "flash-crowd": _flash_crowd,
    "cron": _cron,
    "heavy-tailed": _heavy_tailed,
    "near-idle": _near_idle,
    "sequential": _sequential,
    "ramp": _ramp,
    "batches": _batches,
    "stop": _stop,
    "scale": _scale,
    "short-ramp": _short_ramp,
    "sawtooth": _sawtooth,
    "two-speed-day": _two_speed_day,
    "deploy": _deploy,
    "lunch-break": _lunch_break,
    "week": _week,
}
"""By name; the first line of each one's docstring says what it is."""
