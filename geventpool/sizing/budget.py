"""What keeps `adaptive` from ever costing more than about twice what a pool costs that knows the future.

Keeping every connection for exactly the break-even C costs twice the optimum at most. Every other
choice is a risk: closed earlier, a connection may be wanted at once; kept for longer, never again. So
every other choice is paid for in advance, from what was saved before. docs/sizing.md has the proof.
"""

from __future__ import annotations

from typing import Final

ALLOWANCE: Final = 0.75
"""Of C, for each new level. Less, and what has stopped is closed later; more does not help."""


class Budget:
    """Seconds of cost that a policy may risk, and so the bound: for any load and at any time

        cost ≤ 2 · optimum + 3·C/4 for each level that was ever used.

    Never switches.

    Args:
        breakeven: C.
        allowance: what each new level adds, in units of C.

    Attributes:
        left: seconds that are not risked yet; never negative.
    """

    __slots__ = ("_allowance", "_breakeven", "_closed", "left")

    def __init__(self, breakeven: float, allowance: float = ALLOWANCE) -> None:
        self._breakeven = breakeven
        self._allowance = allowance * breakeven
        self._closed: dict[int, float] = {}  # after how long each level was closed, C at most
        self.left = 0.0

    def add_level(self) -> None:
        """A level is used for the first time."""
        self.left += self._allowance

    def rose(self, level: int, gap: float) -> None:
        """A level is used again after a gap: the optimum has paid min(gap, C), and twice that counts."""
        closed = self._closed.pop(level, None)
        if closed is None:
            self.left += max(0.0, min(gap, 2.0 * self._breakeven - gap))
        else:
            self.left += max(0.0, 2.0 * (min(gap, self._breakeven) - closed))

    def allowed(self, due: float, size: int, idle_since: float) -> float:
        """The time nearest to `due` at which the highest level may be closed.

        Before C there has to be enough for the rest of C; after C, for as much beyond it of all levels,
        because none can be closed before the highest.
        """
        end = idle_since + self._breakeven
        if due > end and self.left < (due - end) * size:
            return end
        return max(due, end - self.left)

    def close(self, now: float, level: int, idle_since: float) -> None:
        """The highest level is closed."""
        if level not in self._closed:
            idle = now - idle_since
            self.left = max(0.0, self.left - abs(self._breakeven - idle))
            self._closed[level] = min(idle, self._breakeven)

    def keep(self, level: int) -> None:
        """It has not been closed after all."""
        closed = self._closed.pop(level, None)
        if closed is not None:
            self.left += self._breakeven - closed

    def is_closed(self, level: int) -> bool:
        """Was the level closed, and not used since?"""
        return level in self._closed
