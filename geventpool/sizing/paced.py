"""Another policy, held back: a core that stays, growth beyond it after a wait, retirement in steps.

The four knobs of pools that size themselves by hand. Each may be a function, which is called at use.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final, TypeAlias

from ..errors import ConfigError
from .demand import Demand
from .policy import SizingPolicy

_MOST: Final = 1e9

Knob: TypeAlias = "float | Callable[[], float] | None"
"""A number, or a function that is called whenever the number is needed."""


def paced(
    inner: SizingPolicy,
    core_size: Knob = None,
    retire_interval: Knob = None,
    retire_quantity: Knob = 1,
    unload_timeout: Knob = None,
) -> SizingPolicy:
    """Holds a policy back.

    Args:
        inner: decides wherever the knobs do not.
        core_size: connections, in use and idle together, up to which none is retired, and up to which
            one is opened without a wait; `None`: none are kept, and none wait.
        retire_interval: seconds between two retirements, and that a connection has to be idle before
            it is retired; `None`: no pace.
        retire_quantity: connections that are retired at each.
        unload_timeout: seconds for which a caller waits for a return before one is opened above the
            core size; `None`: as long as `inner` says.

    Raises:
        ConfigError: a knob, or what its function returns, is not a number from 0 to 1e9.
    """
    return Paced(inner, core_size, retire_interval, retire_quantity, unload_timeout)


class Paced:
    """See `paced`."""

    def __init__(
        self,
        inner: SizingPolicy,
        core_size: Knob = None,
        retire_interval: Knob = None,
        retire_quantity: Knob = 1,
        unload_timeout: Knob = None,
    ) -> None:
        self._inner = inner
        self._knobs = core_size, retire_interval, retire_quantity, unload_timeout
        self._core_size = _Value("core_size", core_size)
        self._interval = _Value("retire_interval", retire_interval)
        self._quantity = _Value("retire_quantity", retire_quantity)
        self._unload = _Value("unload_timeout", unload_timeout)
        self.min_idle = inner.min_idle
        self.max_size = inner.max_size
        self._in_use = 0
        self._told_at: float | None = None  # when it was said that one is due
        self._told_size = 0  # of how many it was one
        self._retired = 0  # since the last pause
        self._next = -math.inf  # no retirement before

    def __repr__(self) -> str:
        names = ("core_size", "retire_interval", "retire_quantity", "unload_timeout")
        told = ", ".join(f"{name}={knob!r}" for name, knob in zip(names, self._knobs, strict=True))
        return f"{self._inner!r} with {told}"

    def fresh(self) -> Paced:
        """A policy with the same settings and no history."""
        return Paced(self._inner.fresh(), *self._knobs)

    def requested(self, now: float) -> None:
        """Somebody asks for a connection."""
        self._inner.requested(now)

    def rose(self, now: float, in_use: int) -> None:
        """Use rose to `in_use`."""
        self._in_use = in_use
        self._inner.rose(now, in_use)

    def took(self, now: float, in_use: int) -> None:
        """`requested` and `rose` in one."""
        self._in_use = in_use
        self._inner.took(now, in_use)

    def fell(self, now: float, in_use: int) -> None:
        """Use fell to `in_use`."""
        self._in_use = in_use
        self._inner.fell(now, in_use)

    def closes_at(self, now: float, size: int, idle_since: float) -> float:
        """What the inner policy says, but not below the core size, and not faster than the pace.

        A policy is not told of a retirement, but it is asked again: of fewer.
        """
        if self._told_at is not None and size < self._told_size:
            self._retired += self._told_size - size
            if self._retired >= max(1, self._quantity.get(1)):
                self._retired = 0
                self._next = self._told_at + self._interval.get(0)
            self._told_at = None
        if size <= self._core_size.get(0):
            return math.inf
        due = self._inner.closes_at(now, size, idle_since)
        interval = self._interval.get(0)
        if interval > 0:
            due = max(due, self._next, idle_since + interval)
        if due <= now:
            self._told_at, self._told_size = now, size
        return due

    def open_delay(self, now: float, ahead: int, opening: int, connect_time: float) -> float:
        """The inner policy's; above the core size `unload_timeout`, if that is longer."""
        delay = self._inner.open_delay(now, ahead, opening, connect_time)
        if self._in_use + opening < self._core_size.get(math.inf):
            return delay
        return max(delay, self._unload.get(0))

    def demand(self, now: float) -> Demand:
        """What the inner policy has seen and would keep."""
        return self._inner.demand(now)


class _Value:
    """A knob's value, which never raises once it was right: a function that fails keeps the last one."""

    __slots__ = ("_function", "_last")

    def __init__(self, name: str, knob: Knob) -> None:
        self._function = knob if callable(knob) else None
        value = knob() if callable(knob) else knob
        if value is not None and not _is_usable(value):
            raise ConfigError(
                name, knob, f"give a number from 0 to {_MOST:g}, or a function that returns one"
            )
        self._last = value

    def get(self, default: float) -> float:
        """The number; `default` if there is none."""
        if self._function is not None:
            try:
                value = self._function()
            except Exception:  # a user's function; a decision cannot fail
                value = None
            if _is_usable(value):
                self._last = value
        return default if self._last is None else self._last


def _is_usable(value: object) -> bool:
    return (
        isinstance(value, (int, float))
        and not isinstance(value, bool)
        and 0 <= float(value) <= _MOST
    )
