"""How a load changes: its level over the run, as a share of the peak; the same for the same seed."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass

NOISE = 0.1
"""A level is drawn from within ±10 % of the shape's, anew each second."""

# The load of a web shop by the hour, from 6 in the morning to 6 in the morning.
_HOURS = (0.10, 0.25, 0.55, 0.85, 1.0, 0.95, 0.70, 0.75, 0.90, 0.85, 0.70, 0.50, 0.40)
_HOURS += (0.40, 0.45, 0.35, 0.22, 0.14, 0.09, 0.06, 0.05, 0.04, 0.04, 0.06, 0.10)
_BURSTS, _BURST_LENGTH = 6, 0.04
_CRON_JOBS = 6
_PARTS = 50


@dataclass(frozen=True)
class Shape:
    """A load over time.

    Attributes:
        name: for `--shape`.
        about: for people.
        level: share of the peak at a share of the run, 0 to 1; the seed may move what is random.
    """

    name: str
    about: str
    level: Callable[[float, int], float]

    def users(self, at: float, seconds: float, peak: int, seed: int) -> int:
        """How many users are at work, the same throughout each second.

        Locust asks once a second, at no certain part of it. What is shorter must neither be missed nor
        depend on when it asks: so the highest level within the second holds for all of it.

        Args:
            at: seconds from the start.
            seconds: the length of the run, into which the whole shape is compressed.
            peak: users at level 1.
            seed: of all that is random.
        """
        second = math.floor(at)
        moments = [min((second + part / _PARTS) / seconds, 1.0) for part in range(_PARTS)]
        level = max(self.level(moment, seed) for moment in moments)
        noise = random.Random(f"{seed}/{second}").uniform(-NOISE, NOISE)
        return max(1, round(peak * level * (1 + noise)))


def _day(share: float, _seed: int) -> float:
    hour = share * (len(_HOURS) - 1)
    first = min(int(hour), len(_HOURS) - 2)
    return _HOURS[first] + (hour - first) * (_HOURS[first + 1] - _HOURS[first])


def _step(share: float, _seed: int) -> float:
    return 1.0 if 1 / 3 <= share < 2 / 3 else 0.1


def _burst(share: float, seed: int) -> float:
    # One in each sixth of the run, anywhere in it.
    number = min(int(share * _BURSTS), _BURSTS - 1)
    start = random.Random(f"{seed}/burst {number}").uniform(number, number + 1) / _BURSTS
    return 1.0 if start <= share < start + _BURST_LENGTH else 0.1


def _flash_crowd(share: float, _seed: int) -> float:
    return 0.1 if share < 0.3 else 0.1 + 0.9 * math.exp(-(share - 0.3) / 0.12)


def _cron(share: float, _seed: int) -> float:
    return 1.0 if share * _CRON_JOBS % 1 < 0.08 else 0.05


def _soak(share: float, _seed: int) -> float:
    return 0.5 + 0.3 * math.sin(2 * math.pi * 12 * share)


def _overload(share: float, _seed: int) -> float:
    return 2.0 if 0.2 <= share < 0.8 else 0.5


SHAPES = {
    shape.name: shape
    for shape in (
        Shape("day", "a day, from 6 in the morning to 6 in the morning", _day),
        Shape("step", "a tenth of the peak, the peak, a tenth", _step),
        Shape("burst", "a tenth of the peak, and six short bursts at random times", _burst),
        Shape("flash-crowd", "suddenly everybody, who then go away one by one", _flash_crowd),
        Shape("cron", "next to nothing, and six jobs that start many at once", _cron),
        Shape("soak", "half of the peak, up and down twelve times", _soak),
        Shape("overload", "half, then twice what 20 connections can serve, then half", _overload),
    )
}
