"""Decayed statistics of what is asked of a pool: mean connections in use, checkouts per second."""

from __future__ import annotations

import math
from dataclasses import dataclass
from math import exp
from typing import Final

MOST: Final = 10_000_000
"""Use beyond this is counted as this: no process holds more, and no formula has to cope with it."""

_PATIENCE: Final = 0.25


@dataclass(frozen=True)
class Demand:
    """What a policy has seen and what it would keep.

    Attributes:
        mean_in_use: decayed mean of connections in use.
        checkouts_per_second: decayed rate of requests.
        level: connections, in use and idle together, that the policy would hold now.
    """

    mean_in_use: float
    checkouts_per_second: float
    level: int


class Estimator:
    """Exponentially decayed statistics, fed by a pool at every checkout and return.

    The mean integrates what was in use since the last event, not what events happen to see:

        mean ← in_use + (mean - in_use)·w,   rate ← rate·w (+ κ at a request),   w = e^(-κ·Δt)

    with κ = ln 2 / half_life. An interval that is not positive counts for nothing, and the next one
    is measured from its end: a clock that is set back costs that one interval.

    Every policy is one, so that a checkout costs no further call. Never switches.

    Args:
        half_life: seconds after which an observation weighs half.
    """

    __slots__ = ("_decay", "_in_use", "_kappa", "_last", "_mean", "_rate", "half_life")

    min_idle: int | None = None
    max_size: int | None = None

    def __init__(self, half_life: float) -> None:
        self.half_life = half_life
        self._kappa = math.log(2) / half_life
        self._decay = -self._kappa
        self._last = -math.inf  # the time of the last event
        self._in_use = 0
        self._mean = 0.0
        self._rate = 0.0

    def requested(self, now: float) -> None:
        """Somebody asks for a connection.

        Args:
            now: monotonic seconds, here and everywhere.
        """
        if now != self._last:
            self._advance(now)
        self._rate += self._kappa

    def rose(self, now: float, in_use: int) -> None:
        """Use rose to `in_use` connections."""
        if now != self._last:
            self._advance(now)
        self._in_use = in_use if 0 <= in_use <= MOST else clamp(in_use)

    def took(self, now: float, in_use: int) -> None:
        """`requested` and `rose` in one, for the most frequent case: who asks is served at once."""
        if now != self._last:
            self._advance(now)
        self._rate += self._kappa
        self._in_use = in_use if 0 <= in_use <= MOST else clamp(in_use)

    def fell(self, now: float, in_use: int) -> None:
        """Use fell to `in_use` connections."""
        if now != self._last:
            self._advance(now)
        self._in_use = in_use if 0 <= in_use <= MOST else clamp(in_use)

    def open_delay(self, now: float, ahead: int, opening: int, connect_time: float) -> float:
        """How long a caller should wait for a return before a connection is opened for it.

        By Little's law (Little 1961) a connection is held for mean / rate, so that
        connect_time · in_use · rate / mean returns are expected while one connection is opened. If
        four times as many as this caller needs are expected, it waits; never for longer than
        opening one would have taken.

        Args:
            now: the time.
            ahead: callers in line before this one.
            opening: connections being opened.
            connect_time: seconds that opening one takes; 0 if that is not known.

        Returns:
            Seconds; 0.0: open now.
        """
        in_use = self._in_use
        if in_use == 0 or not connect_time > 0.0:
            return 0.0
        mean, rate = self._at(now)
        needed = max(-MOST, min(ahead - opening + 1, MOST))
        expected = connect_time * in_use * rate
        return connect_time if needed * mean <= _PATIENCE * expected else 0.0

    def _advance(self, now: float) -> None:
        elapsed = now - self._last
        self._last = now
        if elapsed > 0.0:
            weight = exp(self._decay * elapsed)
            self._mean = self._in_use + (self._mean - self._in_use) * weight
            self._rate *= weight

    def _state(self) -> tuple[float, int, float]:
        """Differs if anything has happened that changes an answer, also within one instant."""
        return self._last, self._in_use, self._rate

    def _at(self, now: float) -> tuple[float, float]:
        """Mean and rate as they will be at `now` if nothing happens until then."""
        elapsed = now - self._last
        if elapsed <= 0.0:
            return self._mean, self._rate
        weight = exp(self._decay * elapsed)
        return self._in_use + (self._mean - self._in_use) * weight, self._rate * weight


def clamp(in_use: int) -> int:
    """The nearest number of connections that can be meant."""
    return max(0, min(in_use, MOST))
