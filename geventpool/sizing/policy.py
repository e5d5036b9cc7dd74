"""What a sizing policy is, and the two that need no experience: `poisson` and `fixed`."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final, Protocol

from ..errors import ConfigError
from .demand import MOST, Demand, Estimator
from .poisson import level_for, log_tail

_LN2: Final = math.log(2)
_LONGEST: Final = 1e9
_SHORTEST: Final = 1e-3


class SizingPolicy(Protocol):
    """Figures in, decisions out. Times are monotonic seconds. No method ever switches or raises.

    The pool tells every request, rise and fall, asks when the longest-idle connection is to be
    closed, and by itself never goes below `min_idle` or above `max_size`.

    Attributes:
        min_idle: what the policy wants the pool's to be; `None`: the pool's own setting.
        max_size: likewise.
    """

    min_idle: int | None
    max_size: int | None

    def fresh(self) -> SizingPolicy:
        """A policy with the same settings and no history, for another pool or a forked child."""

    def requested(self, now: float) -> None:
        """Somebody asks for a connection."""

    def rose(self, now: float, in_use: int) -> None:
        """Use rose to `in_use`."""

    def took(self, now: float, in_use: int) -> None:
        """Somebody asked and was served at once: `requested` and `rose` in one."""

    def fell(self, now: float, in_use: int) -> None:
        """Use fell to `in_use`."""

    def closes_at(self, now: float, size: int, idle_since: float) -> float:
        """When the longest-idle connection is due to be closed.

        Asked again at the time that it returned, with nothing having happened in between, a policy
        says that it is due.

        Args:
            now: the time.
            size: connections open, idle and in use together.
            idle_since: when the longest-idle one was returned.

        Returns:
            A time; `now` or before: it is due; `inf`: never, if nothing happens.
        """

    def open_delay(self, now: float, ahead: int, opening: int, connect_time: float) -> float:
        """With nothing idle: seconds to wait for a return before one is opened; 0.0: open now.

        Args:
            now: the time.
            ahead: callers in line before this one.
            opening: connections being opened.
            connect_time: seconds that opening one takes; 0 if that is not known.
        """

    def demand(self, now: float) -> Demand:
        """What was seen and what is wanted, for people."""


def poisson(open_interval: float = 5.0, half_life: float = 60.0) -> SizingPolicy:
    """Keeps what a Poisson-distributed demand of the observed mean needs.

    That is the smallest n with P(in use ≥ n) ≤ 1 / max(2, open_interval·rate): a request then opens
    a connection about once in `open_interval` seconds.

    Args:
        open_interval: seconds between two opens that are acceptable. A connection is never closed
            before it has been idle for as long, and the level never falls below one until so long
            after the last event.
        half_life: seconds after which an observation weighs half.

    Raises:
        ConfigError: an argument is not a number from 0.001 to 1e9.
    """
    return Poisson(seconds("open_interval", open_interval), seconds("half_life", half_life))


def fixed(min_idle: int = 1, max_size: int = 20, idle_timeout: float = 600.0) -> SizingPolicy:
    """Keeps `min_idle` connections, and any other until it has been idle for `idle_timeout`.

    Args:
        min_idle: never close while the pool is no larger.
        max_size: never open while the pool is as large.
        idle_timeout: seconds; `math.inf` for ever.

    Raises:
        ConfigError: an argument is of the wrong type, negative, or `min_idle` above `max_size`.
    """
    for name, value, least in (("min_idle", min_idle, 0), ("max_size", max_size, 1)):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ConfigError(name, value, f"give a whole number, {least} or more")
    if min_idle > max_size:
        raise ConfigError("min_idle", min_idle, f"is above max_size={max_size}; lower it")
    if not _is_number(idle_timeout) or not idle_timeout >= 0.0:
        raise ConfigError(
            "idle_timeout", idle_timeout, "give seconds, 0 or more; math.inf for ever"
        )
    return Fixed(min_idle, max_size, idle_timeout)


def seconds(name: str, value: float) -> float:
    """A span of time given by a user, checked.

    Raises:
        ConfigError: naming it, unless it is a number from 0.001 to 1e9.
    """
    if not _is_number(value) or not _SHORTEST <= value <= _LONGEST:
        raise ConfigError(name, value, f"give seconds, a number from {_SHORTEST:g} to {_LONGEST:g}")
    return float(value)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


class Poisson(Estimator):
    """See `poisson`."""

    __slots__ = ("_asked_at", "_asked_size", "_drop", "_seen", "open_interval")

    def __init__(self, open_interval: float, half_life: float) -> None:
        super().__init__(half_life)
        self.open_interval = open_interval
        self._asked_size = 0
        self._asked_at = -math.inf
        self._seen: tuple[float, int, float] | None = None  # the state that `_drop` knows of
        self._drop = math.inf

    def __repr__(self) -> str:
        return f"poisson(open_interval={self.open_interval:g}, half_life={self.half_life:g})"

    def fresh(self) -> Poisson:
        """A policy with the same settings and no history."""
        return Poisson(self.open_interval, self.half_life)

    def demand(self, now: float) -> Demand:
        """What was seen, and the level. O(√mean)."""
        mean, rate = self._at(now)
        level = level_for(mean, 1.0 / max(2.0, self.open_interval * rate))
        if level == 1 and now >= self._last_drop():
            level = 0
        return Demand(mean, rate, level)

    def closes_at(self, now: float, size: int, idle_since: float) -> float:
        """When, in silence, the level falls below `size`, but not before `open_interval` idle.

        An answer for the same size is kept for a hundredth of the half-life unless use has fallen,
        so that asking at every checkout is cheap; it is final if nothing has happened since.
        """
        if size < 1:
            return math.inf
        earliest = idle_since + self.open_interval
        if size == self._asked_size:
            due = max(self._drop, earliest)
            if self._seen == self._state():
                return due
            if now < due and self._is_recent(now):
                return due
        self._drop = self._last_drop() if size == 1 else self._next_drop(now, size)
        self._asked_size, self._asked_at, self._seen = size, now, self._state()
        return max(self._drop, earliest)

    def _is_recent(self, now: float) -> bool:
        """Is `_drop` at most a little too early? With less in use the level falls earlier."""
        if self._seen is None or self._in_use < self._seen[1]:
            return False
        return 0.0 <= now - self._asked_at < 0.01 * self.half_life

    def _last_drop(self) -> float:
        """When the level falls from one to none.

        log₂(C·rate) half-lives after the last event, not before the mean is such that one would do,
        nor before `open_interval`; never while something is in use.
        """
        if self._in_use:
            return math.inf
        spent = max(self.open_interval * self._rate, self._mean / _LN2, 1.0)
        return self._last + max(self.half_life * math.log2(spent), self.open_interval)

    def _next_drop(self, now: float, size: int) -> float:
        """When P(in use ≥ size - 1) falls to the accepted chance, with `in_use` as it is.

        With w = 2^(-half-lives of silence), the sign of
        h(w) = ln P(L ≥ size - 1) + ln max(2, C·rate·w) changes at most once: where the mean falls,
        h falls as w does. Where the mean rises, h is concave in w until C·rate·w = 2, and from
        there on it only rises.
        """
        needed = size - 1
        if needed > 2 * MOST:
            return now
        in_use, interval = self._in_use, self.open_interval
        mean, rate = self._at(now)

        def excess(time: float) -> float:
            weight = 2.0**-time
            chance = max(2.0, interval * rate * weight)
            return log_tail(needed, in_use + (mean - in_use) * weight) + math.log(chance)

        spent = math.log2(max(2.0, interval * rate)) - 1.0
        settled = spent if mean < in_use else spent + math.log2(max(1.0, mean)) + 64.0
        if excess(0.0) <= 0.0:
            return now
        if excess(settled) > 0.0:
            return math.inf
        return now + self.half_life * _first_root(excess, settled)


def _first_root(excess: Callable[[float], float], high: float) -> float:
    """Where a function that is positive at 0 and not at `high` stops being positive, from above.

    Bisection, because the tail may be flat over most of the range; to a millionth of a half-life.
    """
    low = 0.0
    while high - low > 1e-6:
        middle = 0.5 * (low + high)
        if excess(middle) > 0.0:
            low = middle
        else:
            high = middle
    return high


class Fixed(Estimator):
    """See `fixed`."""

    __slots__ = ("_settings", "idle_timeout", "max_size", "min_idle")

    def __init__(self, min_idle: int, max_size: int, idle_timeout: float) -> None:
        super().__init__(60.0)
        self.min_idle = min_idle
        self.max_size = max_size
        self.idle_timeout = idle_timeout
        self._settings = min_idle, max_size, idle_timeout

    def __repr__(self) -> str:
        return (
            f"fixed(min_idle={self.min_idle}, max_size={self.max_size}, "
            f"idle_timeout={self.idle_timeout:g})"
        )

    def fresh(self) -> Fixed:
        """A policy with the same settings and no history."""
        return Fixed(*self._settings)

    def closes_at(self, now: float, size: int, idle_since: float) -> float:
        """`idle_timeout` after it was returned."""
        return idle_since + self.idle_timeout if size >= 1 else math.inf

    def demand(self, now: float) -> Demand:
        """What was seen; the level is `min_idle`, or what is in use."""
        mean, rate = self._at(now)
        return Demand(mean, rate, max(self._settings[0], self._in_use))
