"""At what age callers are killed by time-outs of their own, learnt from those that were."""

from __future__ import annotations

import math
from typing import Final

_ENOUGH: Final = 8
_WEIGHT: Final = 0.1
_NOBODY: Final = (math.inf, -math.inf)


class Patience:
    """Decayed mean and mean deviation of the age at which callers were killed.

    The age counts from when a caller asked, whether the kill hit it in line or in the middle of a query.
    Believed only while kills agree with each other and go on; whoever outlives the age that was learnt
    is nobody to be passed over.

    Attributes:
        is_learnt: it has seen enough to say anything.
    """

    __slots__ = ("_count", "_deviation", "_held", "_last", "_mean", "is_learnt")

    def __init__(self) -> None:
        self._mean = 0.0
        self._deviation = 0.0
        self._held = 0.0
        self._count = 0
        self._last = -math.inf
        self.is_learnt = False

    def ended(self, age: float, now: float) -> None:
        """A caller was killed, so many seconds after it had asked."""
        if now - self._last > max(5.0, 10.0 * self._mean):
            self._count = 0
        self._last = now
        self._count += 1
        self.is_learnt = self._count >= _ENOUGH
        weight = max(_WEIGHT, 1.0 / self._count)
        off = age - self._mean
        self._mean += weight * off
        if self._count == 1:
            self._deviation = 0.0
        else:
            self._deviation += weight * (abs(off) - self._deviation)

    def held(self, seconds: float) -> None:
        """An entry came back after so many seconds, while others waited."""
        self._held += _WEIGHT * (seconds - self._held) if self._held else seconds

    def cut_short(self, seconds: float) -> None:
        """A holder was killed after so many seconds: it would have needed longer, say twice as long."""
        if 2.0 * seconds > self._held:
            self.held(2.0 * seconds)

    def about_to_give_up(self, now: float) -> tuple[float, float]:
        """Between which ages a caller is about to be killed before it could finish.

        Returns:
            Two ages in seconds; the first above the second: nobody is.
        """
        mean, deviation = self._mean, self._deviation
        if not self.is_learnt or now - self._last > max(5.0, 10.0 * mean):
            return _NOBODY
        young = mean - 2.0 * (deviation + self._held)
        if deviation > 0.25 * mean or young <= 0.0:
            return _NOBODY  # they do not agree, or everybody is
        return young, 1.25 * mean + 2.0 * deviation
