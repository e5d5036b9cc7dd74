"""The default policy: Poisson knowledge as a prior, each level's own experience on top.

Level k of a LIFO pool is busy while at least k connections are in use, and its idle gaps are the
gaps of one connection. Keeping it through a gap g costs g seconds of idling, closing it costs the
break-even C when it is opened again: whatever the other levels do. So every level has its own idle
timeout, one of seven, and the question is only which. A level that has seen little is judged by what
all levels have seen: while a load grows, each level is new, but its gaps are like those of the others.
"""

from __future__ import annotations

import math
from math import exp
from typing import Final

from .demand import MOST, Demand, Estimator, clamp
from .poisson import mean_gap
from .policy import SizingPolicy, seconds

TIMEOUTS: Final = tuple(2.0**power for power in range(-5, 2))
"""The idle timeouts to choose from, in units of the break-even."""

_WITHIN_BREAKEVEN: Final = tuple(timeout for timeout in TIMEOUTS if timeout <= 1.0)
_SHORTEST: Final = TIMEOUTS[0]
_LONGEST: Final = TIMEOUTS[-1]
_MEMORY: Final = 0.98
_FORGOTTEN: Final = 1.0 - _MEMORY
_POISSON_WEIGHT: Final = 0.5
_PRIOR_WEIGHT: Final = 3.0
_LONG_HOLD: Final = 0.25
_NEVER: Final = 1e6


def _scale_free(timeout: float) -> float:
    """Expected cost of a gap whose length is log-uniform on C/16 … 16·C, in units of C.

    Below C/16 this is the formula's continuation, a little against the shortest timeout.
    """
    return ((timeout - 1 / 16) + (timeout + 1) * math.log(16 / timeout)) / math.log(256)


_PRIOR: Final = tuple(_PRIOR_WEIGHT * _scale_free(timeout) for timeout in TIMEOUTS)


def adaptive(breakeven: float = 30.0, half_life: float = 60.0) -> SizingPolicy:
    """Learns for each level how long a connection is worth keeping idle.

    Args:
        breakeven: C, the seconds of idling that one connect is worth. More of it: fewer connects,
            more idle connections.
        half_life: seconds after which an observation of mean and rate weighs half.

    Raises:
        ConfigError: an argument is not a number from 0.001 to 1e9.
    """
    return Adaptive(seconds("breakeven", breakeven), seconds("half_life", half_life))


class Adaptive(Estimator):
    """See `adaptive`.

    Memory: one time for each level that use ever fell from, and seven figures for each level that
    was ever idle for more than C/32.
    """

    __slots__ = (
        "_asked_size",
        "_common",
        "_down",
        "_gaps",
        "_losses",
        "_noticed",
        "_seen",
        "_timeout",
        "breakeven",
    )

    def __init__(self, breakeven: float, half_life: float) -> None:
        super().__init__(half_life)
        self.breakeven = breakeven
        self._noticed = breakeven * _SHORTEST  # shorter gaps cost the same with every timeout
        self._down: dict[int, float] = {}  # when use last fell from this level
        self._losses: dict[int, list[float]] = {}  # decayed cost of its gaps with each timeout
        self._common = list(_PRIOR)  # the same of all levels' gaps; the prior stands for the first
        self._gaps = _PRIOR_WEIGHT  # decayed number of these
        self._asked_size = 0
        self._seen: tuple[float, int, float] | None = None  # the state that `_timeout` knows of
        self._timeout = 0.0

    def __repr__(self) -> str:
        return f"adaptive(breakeven={self.breakeven:g}, half_life={self.half_life:g})"

    def fresh(self) -> Adaptive:
        """A policy with the same settings and no history."""
        return Adaptive(self.breakeven, self.half_life)

    def rose(self, now: float, in_use: int) -> None:
        """Use rose to `in_use` connections: a gap of that level has ended."""
        if now != self._last:
            self._advance(now)
        self._in_use = in_use = in_use if 0 <= in_use <= MOST else clamp(in_use)
        gap = now - self._down.get(in_use, now)
        if gap > self._noticed:
            self._learn(in_use, gap / self.breakeven)

    def took(self, now: float, in_use: int) -> None:
        """`requested` and `rose` in one."""
        elapsed = now - self._last  # as in `_advance`, for one frame less
        self._last = now
        if elapsed > 0.0:
            weight, held = exp(self._decay * elapsed), self._in_use
            self._mean = held + (self._mean - held) * weight
            self._rate = self._rate * weight + self._kappa
        else:
            self._rate += self._kappa
        self._in_use = in_use = in_use if 0 <= in_use <= MOST else clamp(in_use)
        try:
            gap = now - self._down[in_use]
        except KeyError:  # a new level: an exception once, not a call each time
            return
        if gap > self._noticed:
            self._learn(in_use, gap / self.breakeven)

    def fell(self, now: float, in_use: int) -> None:
        """Use fell to `in_use` connections: a gap of the level above begins."""
        elapsed = now - self._last  # as in `_advance`, for one frame less
        self._last = now
        if elapsed > 0.0:
            weight, held = exp(self._decay * elapsed), self._in_use
            self._mean = held + (self._mean - held) * weight
            self._rate *= weight
        self._in_use = in_use = in_use if 0 <= in_use <= MOST else clamp(in_use)
        self._down[in_use + 1] = now

    def closes_at(self, now: float, size: int, idle_since: float) -> float:
        """The idle timeout of level `size` after `idle_since`.

        The timeout is chosen anew when the size has changed, and at its end if something has
        happened in between: one addition for everybody else.
        """
        if size < 1:
            return math.inf
        if size == self._asked_size:
            due = idle_since + self._timeout
            if due > now or self._seen == self._state():
                return due
        mean, rate = self._at(now)
        if self._is_surplus(size, mean, rate):
            return now
        self._timeout = self._timeout_of(size, mean, rate)
        self._asked_size, self._seen = size, self._state()
        return idle_since + self._timeout

    def demand(self, now: float) -> Demand:
        """What was seen, and what a LIFO pool would hold now, if higher levels fall due first."""
        mean, rate = self._at(now)
        low = self._in_use
        high = low + len(self._down) + 1
        while high - low > 1:
            middle = (low + high) // 2
            if self._is_kept(now, middle, mean, rate):
                low = middle
            else:
                high = middle
        return Demand(mean, rate, low)

    def _is_kept(self, now: float, level: int, mean: float, rate: float) -> bool:
        fell_at = self._down.get(level, -math.inf)
        if now - fell_at >= self.breakeven * _LONGEST or self._is_surplus(level, mean, rate):
            return False
        return now < fell_at + self._timeout_of(level, mean, rate)

    def _is_surplus(self, size: int, mean: float, rate: float) -> bool:
        """With long holds (mean / rate ≥ C/4) few levels change in C seconds: about √(2·rate·C)."""
        traffic = rate * self.breakeven
        if mean <= 0.0 or mean < _LONG_HOLD * traffic:
            return False
        return size - self._in_use > math.sqrt(2.0 * traffic) + 1.0

    def _timeout_of(self, level: int, mean: float, rate: float) -> float:
        """The timeout of the least cost: what happened, and priors for what has not yet.

        While a load grows the mean lags; what is in use now is then the better guess. A level that was
        never idle for long itself is given the break-even at most, as others' gaps are no proof: who
        waits for no longer pays at most twice what one would who knows the future (Karlin, Manasse,
        Rudolph and Sleator, Competitive Snoopy Caching, 1988).
        """
        gap = math.inf
        mean = max(mean, self._in_use)
        if level == 1 or rate * self.breakeven > 1.0:
            gap = mean_gap(min(level, 2 * MOST), mean, rate) / self.breakeven
        if gap > _NEVER:
            gap = math.inf  # 1 - survives would be rounding errors
        losses = self._losses.get(level)
        weight = _PRIOR_WEIGHT / self._gaps
        best = least = math.inf
        # The chance that an exponential gap is longer; each timeout is twice the one before.
        survives = exp(-_SHORTEST / gap)
        for index, timeout in enumerate(TIMEOUTS if losses else _WITHIN_BREAKEVEN):
            expected = timeout if gap == math.inf else gap * (1.0 - survives)
            cost = weight * self._common[index] + _POISSON_WEIGHT * (expected + survives)
            if losses is not None:
                cost += losses[index]
            if cost < least:
                least, best = cost, timeout
            survives *= survives
        return best * self.breakeven

    def _learn(self, level: int, gap: float) -> None:
        """A level was idle for `gap` break-evens: what would each timeout have cost?"""
        losses = self._losses.get(level)
        if losses is None:
            self._losses[level] = losses = [0.0] * len(TIMEOUTS)
        common = self._common
        for index, timeout in enumerate(TIMEOUTS):
            cost = gap if gap <= timeout else timeout + 1.0
            losses[index] = _MEMORY * losses[index] + cost
            common[index] = _MEMORY * common[index] + cost + _FORGOTTEN * _PRIOR[index]
        self._gaps = _MEMORY * self._gaps + 1.0 + _FORGOTTEN * _PRIOR_WEIGHT
