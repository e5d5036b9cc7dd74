"""The callers in line: who of them is next, and who has waited for too long. Pure: never switches.

First come, first served, with two exceptions. A caller that is about to be killed by its own time-out, as
the ages of those who were killed before it tell, is passed over while younger ones wait: what it would
begin it could not end. And with `shed_after`, a line that has stood for longer than that is served newest
first, and who has waited for longer is refused at once (Nichols and Jacobson, Controlling Queue Delay,
2012; Maurer, Fail at Scale, 2015).
"""

from __future__ import annotations

import math
from collections import deque
from typing import Generic, TypeVar

from .patience import Patience

LATE = 0.02
"""Seconds by which a hub is late that is worth a word."""

_SOON = 1e-6


class Caller:
    """One in line; whoever makes it sets all.

    Attributes:
        parked_at: when it began to wait, in seconds of the pool's clock.
        deadline: until when it waits.
        blocked_before: for how long in sum the hub had been seen without a turn when it began.
        is_pools: it is the pool itself, before all others: in no figure and under no limit.
        wants_open: the policy would not have it wait for a return.
        is_overdue: it has waited for as long as an open takes, and for as long as the policy wants.
        holds_until: the policy wants nothing opened for it before; 0: as soon as it is overdue.
    """

    __slots__ = (
        "blocked_before",
        "deadline",
        "holds_until",
        "is_overdue",
        "is_pools",
        "parked_at",
        "wants_open",
    )

    parked_at: float
    deadline: float
    blocked_before: float
    is_pools: bool
    wants_open: bool
    is_overdue: bool
    holds_until: float


C = TypeVar("C", bound=Caller)


class Line(Generic[C]):
    """The callers of one pool that have to wait.

    Attributes:
        callers: left: the first.
        patience: what was learnt of callers that were killed.
        wanted: how many of them want one opened as soon as may be.
        overdue: how many have waited for as long as an open takes.
        earliest: the earliest deadline, perhaps of one who has left.
        blocked: for how many seconds in sum the hub had no turn while somebody waited.
    """

    def __init__(self) -> None:
        self.callers: deque[C] = deque()
        self.patience = Patience()
        self.wanted = 0
        self.overdue = 0
        self.earliest = math.inf
        self.blocked = 0.0
        self._standing_since = 0.0

    @property
    def length(self) -> int:
        """Callers in line; the pool itself is none."""
        return len(self.callers) - self._begins_with_pool()

    def park(self, caller: C, is_again: bool = False) -> None:
        """A caller joins at the end, or where it was: as the first. The pool itself is before all."""
        if caller.is_pools:
            self.callers.appendleft(caller)
            return
        callers = self.callers
        if not callers or (len(callers) == 1 and callers[0].is_pools):
            self._standing_since = caller.parked_at
        if caller.deadline < self.earliest:
            self.earliest = caller.deadline
        if is_again:
            callers.insert(int(self._begins_with_pool()), caller)
        else:
            callers.append(caller)

    def wants_open(self, caller: C) -> None:
        """One is to be opened for it at once."""
        caller.wants_open = True
        self.wanted += 1

    def leave(self, caller: C) -> None:
        """One that gets nothing leaves the line."""
        self.callers.remove(caller)
        self._left(caller)

    def next(self, now: float, shed_after: float | None) -> C:
        """Takes out who is to be served next. There is somebody.

        Args:
            now: the time.
            shed_after: the setting. Who is to be refused has been (`too_old`).
        """
        callers = self.callers
        if callers[0].is_pools:
            caller = callers.popleft()
        elif shed_after is not None and self.is_overloaded(now, shed_after):
            caller = callers.pop()
        elif self.patience.is_learnt:
            place = self._first_with_a_future(now)
            caller = callers[place]
            del callers[place]
        else:
            caller = callers.popleft()
        self._left(caller)
        return caller

    def too_old(self, now: float, shed_after: float | None, least: int) -> list[C]:
        """Those who have waited for too long in a line that stands; `least` are left in any case."""
        if shed_after is None or not self.is_overloaded(now, shed_after):
            return []
        old: list[C] = []
        for caller in self.callers:
            if len(self.callers) - len(old) <= least or now - caller.parked_at <= shed_after:
                break
            old.append(caller)
        return old

    def late(self, now: float) -> list[C]:
        """Those whose deadline has come. To be asked when `earliest` has."""
        self.earliest = min(
            (caller.deadline for caller in self.callers if caller.deadline > now), default=math.inf
        )
        return [caller for caller in self.callers if now >= caller.deadline]

    def look_for_overdue(self, now: float, connect_time: float) -> float:
        """Notes who has waited for as long as an open takes.

        Returns:
            When the next one will have; `inf`: nobody else is in line.
        """
        looks_at = math.inf
        for caller in self.callers:
            if caller.is_overdue:
                continue
            at = caller.parked_at + connect_time
            if at >= looks_at:
                break  # so it is for all behind, who have come later
            at = max(at, caller.holds_until)
            if at - now > _SOON:
                looks_at = min(looks_at, at)
                continue
            if caller.wants_open:
                self.wanted -= 1
            caller.is_overdue = True
            self.overdue += 1
        return looks_at

    def is_overloaded(self, now: float, shed_after: float | None) -> bool:
        """Has the line not been empty for longer than `shed_after`?"""
        return (
            shed_after is not None
            and bool(self.callers)
            and not self._begins_with_pool()
            and now - self._standing_since > shed_after
        )

    def blocked_by(self, now: float, looked_at: float) -> float:
        """For how long in sum the hub had no turn while somebody waited, so far.

        Args:
            now: the time.
            looked_at: when the hub was to have its next turn.
        """
        late = now - looked_at
        return self.blocked + (late if late > LATE else 0.0)

    def _begins_with_pool(self) -> bool:
        return bool(self.callers) and self.callers[0].is_pools

    def _first_with_a_future(self, now: float) -> int:
        young, old = self.patience.about_to_give_up(now)
        if young < now - self.callers[0].parked_at < old:
            for place, caller in enumerate(self.callers):
                if now - caller.parked_at <= young:
                    return place
        return 0

    def _left(self, caller: C) -> None:
        if not self.callers:
            self.earliest = math.inf
        if caller.is_overdue:
            self.overdue -= 1
        elif caller.wants_open:
            self.wanted -= 1
