"""The default policy: Poisson knowledge as a prior, each level's own experience on top.

Level k of a LIFO pool is busy while at least k connections are in use, and its idle gaps are the
gaps of one connection. Keeping it through a gap g costs g seconds of idling, closing it costs the
break-even C when it is opened again: whatever the other levels do. So every level has its own idle
timeout, one of seven, and the question is only which. A level that has seen little is judged by what
all levels have seen: while a load grows, each level is new, but its gaps are like those of the others.

When all has gone silent, only gaps that had such a silence in them are experience.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from math import exp
from typing import Final

from .budget import ALLOWANCE, Budget
from .demand import MOST, Demand, Estimator, clamp
from .poisson import mean_gap
from .policy import SizingPolicy, seconds

TIMEOUTS: Final = tuple(2.0**power for power in range(-5, 2))
"""The idle timeouts to choose from, in units of the break-even."""

_SHORTEST: Final = TIMEOUTS[0]
_LONGEST: Final = TIMEOUTS[-1]
_MEMORY: Final = 0.98
_FORGOTTEN: Final = 1.0 - _MEMORY
_POISSON_WEIGHT: Final = 0.5
_PRIOR_WEIGHT: Final = 3.0
_LONG_HOLD: Final = _SHORTEST
_SILENT: Final = 2.5
"""So many requests that were to be expected and did not come: by chance, one time in twelve."""
_PAUSE: Final = 0.05
_NEVER: Final = 1e6


def _scale_free(timeout: float) -> float:
    """Expected cost of a gap whose length is log-uniform on C/16 … 16·C, in units of C.

    Below C/16 this is the formula's continuation, a little against the shortest timeout.
    """
    return ((timeout - 1 / 16) + (timeout + 1) * math.log(16 / timeout)) / math.log(256)


_NOTHING: Final = (0.0,) * len(TIMEOUTS)
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


class Experience:
    """What each timeout would have cost in past gaps, in units of C: of each level, and of all."""

    __slots__ = ("_common", "_gaps", "_levels")

    def __init__(self) -> None:
        self._levels: dict[
            int, list[float]
        ] = {}  # decayed cost of a level's gaps with each timeout
        self._common = list(_PRIOR)  # the same of all levels' gaps; the prior stands for the first
        self._gaps = _PRIOR_WEIGHT  # decayed number of these

    def __len__(self) -> int:
        return len(self._levels)

    def learn(self, level: int, gap: float) -> None:
        """A level was idle for `gap` break-evens."""
        losses = self._levels.get(level)
        if losses is None:
            self._levels[level] = losses = [0.0] * len(TIMEOUTS)
        common = self._common
        for index, timeout in enumerate(TIMEOUTS):
            cost = gap if gap <= timeout else timeout + 1.0
            losses[index] = _MEMORY * losses[index] + cost
            common[index] = _MEMORY * common[index] + cost + _FORGOTTEN * _PRIOR[index]
        self._gaps = _MEMORY * self._gaps + 1.0 + _FORGOTTEN * _PRIOR_WEIGHT

    def least(self, level: int, start: int, expected: Sequence[float]) -> int:
        """The timeout of the least cost, from `start` on; `expected` is added.

        A level that was never idle for long itself is given the break-even at most.
        """
        losses = self._levels.get(level)
        weight = _PRIOR_WEIGHT / self._gaps
        best, least = start, math.inf
        for index in range(start, len(TIMEOUTS) if losses else len(TIMEOUTS) - 1):
            cost = weight * self._common[index] + expected[index]
            if losses is not None:
                cost += losses[index]
            if cost < least:
                best, least = index, cost
        return best


class Adaptive(Estimator):
    """See `adaptive`.

    Memory: one time for each level that use ever fell from, and seven figures, twice, for each level that
    was ever idle for more than C/32.
    """

    __slots__ = (
        "_asked_size",
        "_budget",
        "_down",
        "_ended",
        "_gaps",
        "_held",
        "_noticed",
        "_rests",
        "_seen",
        "_timeout",
        "breakeven",
    )

    def __init__(self, breakeven: float, half_life: float, allowance: float = ALLOWANCE) -> None:
        super().__init__(half_life)
        self.breakeven = breakeven
        self._noticed = breakeven * _SHORTEST  # shorter gaps cost the same with every timeout
        self._down: dict[int, float] = {}  # when use last fell from this level
        self._gaps = Experience()
        self._rests = Experience()  # of gaps in which all was silent
        self._ended = -math.inf  # when all was silent last
        self._budget = Budget(breakeven, allowance)
        self._asked_size = 0
        self._held = 0  # in use when the size was last another
        self._seen: tuple[float, int, float] | None = None  # the state that `_timeout` knows of
        self._timeout = 0.0

    def __repr__(self) -> str:
        return f"adaptive(breakeven={self.breakeven:g}, half_life={self.half_life:g})"

    def fresh(self) -> Adaptive:
        """A policy with the same settings and no history."""
        return Adaptive(self.breakeven, self.half_life)

    def requested(self, now: float) -> None:
        """Somebody asks for a connection."""
        elapsed = now - self._last
        if elapsed > self._noticed:  # as it is after any silence
            self._hear(now, elapsed, self._rate)
        if elapsed:
            self._advance(now)
        self._rate += self._kappa

    def rose(self, now: float, in_use: int) -> None:
        """Use rose to `in_use` connections: a gap of that level has ended."""
        if now != self._last:
            self._advance(now)
        self._in_use = in_use = in_use if 0 <= in_use <= MOST else clamp(in_use)
        if in_use in self._down:
            self._learn(now, in_use)
        else:
            self._budget.add_level()

    def took(self, now: float, in_use: int) -> None:
        """`requested` and `rose` in one."""
        elapsed = now - self._last  # as in `_advance`, for one frame less
        self._last = now
        rate = self._rate
        if elapsed > 0.0:
            weight, held = exp(self._decay * elapsed), self._in_use
            self._mean = held + (self._mean - held) * weight
            self._rate = rate * weight + self._kappa
        else:
            self._rate = rate + self._kappa
        self._in_use = in_use = in_use if 0 <= in_use <= MOST else clamp(in_use)
        try:
            gap = now - self._down[in_use]
        except KeyError:  # a new level: an exception once, not a call each time
            self._hear(now, elapsed, rate)
            self._budget.add_level()
            return
        if gap > self._noticed:  # as it is after any silence
            self._hear(now, elapsed, rate)
            self._learn(now, in_use)

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

        The timeout is chosen anew when the size has changed, when all has gone silent, and at its end
        if something has happened in between: one addition for everybody else.
        """
        if size < 1:
            return math.inf
        due = idle_since + self._timeout
        if size == self._asked_size and now - self._last < _PAUSE:
            soon = min(due, idle_since + self.breakeven)  # what is beyond has to be paid for anew
            if soon > now:
                return soon
        if size != self._asked_size:
            self._held = self._in_use
        if size != self._asked_size or self._seen != self._state():
            self._budget.keep(size)
            size = min(size, 2 * MOST)
            due = self._budget.allowed(self._due(now, size, idle_since), size, idle_since)
            self._timeout = due - idle_since
            self._asked_size, self._seen = size, self._state()
        if due <= now:
            self._budget.close(now, size, idle_since)
        return due

    def demand(self, now: float) -> Demand:
        """What was seen, and what a LIFO pool would hold now, if higher levels fall due first."""
        mean, rate = self._at(now)
        low = self._in_use
        high = low + len(self._down) + 1
        while high - low > 1:
            middle = (low + high) // 2
            if self._is_kept(now, middle):
                low = middle
            else:
                high = middle
        return Demand(mean, rate, low)

    def _is_kept(self, now: float, level: int) -> bool:
        fell_at = self._down.get(level, -math.inf)
        if now - fell_at >= self.breakeven * _LONGEST or self._budget.is_closed(level):
            return False
        return self._budget.allowed(self._due(now, level, fell_at), level, fell_at) > now

    def _due(self, now: float, size: int, idle_since: float) -> float:
        """When the highest level is due if nothing happens until then.

        Its idle time passes seven marks, the timeouts. At each one it is closed if that timeout is the
        best of those that are left, by what is known then: that all has been silent since, too.
        """
        mean, rate = self._at(now)
        if self._is_surplus(size, mean, rate):
            return max(now, idle_since + self._noticed)
        marks = [idle_since + timeout * self.breakeven for timeout in TIMEOUTS]
        ahead = sum(mark <= now for mark in marks)
        if ahead and self._is_best(now, size, ahead - 1):
            return now
        for index in range(ahead, len(marks)):
            if self._is_best(marks[index], size, index):
                return marks[index]
        return now

    def _is_best(self, now: float, level: int, index: int) -> bool:
        """Is this timeout the best of those from it on, as things will be at `now` in silence?"""
        if self._is_silent(now - self._last, self._rate):
            return self._rests.least(level, index, _NOTHING) == index
        return self._gaps.least(level, index, self._expected(now, level)) == index

    def _is_silent(self, silence: float, rate: float) -> bool:
        """Silence is evidence: a rate of r has an empty span t by chance with e^(-r·t) only."""
        return silence > self._noticed and silence * rate > _SILENT

    def _hear(self, now: float, silence: float, rate: float) -> None:
        """Somebody asks, after so long a silence; the rate is that of before."""
        if self._is_silent(silence, rate):
            self._ended = now

    def _is_surplus(self, size: int, mean: float, rate: float) -> bool:
        """So many idle connections cannot be needed within C seconds, unless the load changes.

        With holds (mean / rate) that are long enough, use goes up and down like a random walk of 2·rate·C
        steps, so that in C seconds it rises by about √(2·rate·C).
        """
        traffic = rate * self.breakeven
        if mean <= 0.0 or mean < _LONG_HOLD * traffic:
            return False
        return size - self._in_use > math.sqrt(3.0 * traffic) + 1.0

    def _expected(self, now: float, level: int) -> list[float]:
        """What each timeout is expected to cost if requests come by a Poisson process.

        While a load grows the mean lags; what is in use now, or was when the size changed, is then the
        better guess.
        """
        mean, rate = self._at(now)
        gap = math.inf
        mean = max(mean, self._in_use, self._held)
        if level == 1 or rate * self.breakeven > 1.0:
            gap = mean_gap(level, mean, rate) / self.breakeven
        if gap > _NEVER:
            gap = math.inf  # 1 - survives would be rounding errors
        # The chance that an exponential gap is longer; each timeout is twice the one before.
        survives = exp(-_SHORTEST / gap)
        costs = []
        for timeout in TIMEOUTS:
            expected = timeout if gap == math.inf else gap * (1.0 - survives)
            costs.append(_POISSON_WEIGHT * (expected + survives))
            survives *= survives
        return costs

    def _learn(self, now: float, level: int) -> None:
        """A gap of a level has ended: what would each timeout have cost?"""
        fell_at = self._down[level]
        gap = now - fell_at
        self._budget.rose(level, gap)
        if gap > self._noticed:
            self._gaps.learn(level, gap / self.breakeven)
            if self._ended > fell_at:
                self._rests.learn(level, gap / self.breakeven)
