"""One pool as a member of a fleet: a permit for each place, and none that is rightfully another's."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable
from typing import Any, Final, Protocol
from weakref import WeakMethod, WeakSet, ref

from gevent import spawn_raw

from ..core.clock import Alarm
from ..core.entry import Entry
from ..core.listener import Listener
from ..core.pool import ResourcePool
from ..core.registry import at_fork
from .rows import Row, rightful, smallest_size
from .share import TURN, next_turn

log = logging.getLogger("geventpool.fleet")

_PAUSE: Final = 0.005
"""Seconds: who was refused does not ask again so soon, if nothing is heard. Whoever waits, asks."""

_MOMENT: Final = 0.001
"""Seconds: what is due within them is looked at together, so that time has moved on at each look."""

_members: WeakSet[Member] = WeakSet()


class Fleet(Protocol):
    """What keeps a fleet's permits and rows. No method ever switches.

    Attributes:
        slot: this member's number.
    """

    slot: int

    def take(self, size: int, now: float) -> bool:
        """Takes a permit, if one is free; at most `size` are given out."""

    def give_back(self, now: float) -> None:
        """Gives one back: its connection is gone. It is free at `settles_at`."""

    def settles_at(self) -> float:
        """When permits that nobody has are free again; `inf`: there are none."""

    def settle(self, now: float) -> bool:
        """Frees those whose time has come; False: there were none."""

    def rows(self) -> list[Row]:
        """Of all members that live."""

    def write(self, row: Row) -> None:
        """What this member tells of itself."""

    def wake(self, rows: list[Row]) -> None:
        """Has other members look at the rows."""

    def leave(self) -> None:
        """Is no member any more."""

    def forget(self) -> None:
        """In a forked child: the parent is the member."""


Join = Callable[[WeakMethod[Callable[[], object]]], Fleet]


class Member(Listener):
    """Ties a pool to its fleet. All of it runs in the pool's own hub, and never switches.

    A permit is taken before a connection is opened, and given back when it is closed, or could not be
    opened. So a pool that finds what it needs among its own connections has nothing to do with this.

    If no permit is free, the pool is *short*: it says so in its row, and wakes all who may have one to
    spare. As long as anybody is short, all who have permits are *aware* of it: they keep their rows up to
    date, lower their own cap to what is rightfully theirs, and so close what is idle, and what comes back.

    Args:
        core: the pool; kept weakly.
        join: makes it a member, in its hub, when it first needs a permit.

    Attributes:
        granted: permits that it has.
    """

    def __init__(self, core: ResourcePool, join: Join) -> None:
        self._core = ref(core)
        self._join = join
        self._fleet: Fleet | None = None
        self._alarm = Alarm(WeakMethod(self._ring))
        self._is_aware = False
        self._is_short = False
        self._asks_at = -math.inf
        self._mailbox: Any = None
        self.granted = 0
        _members.add(self)

    @property
    def is_short(self) -> bool:
        """Callers wait because no permit is free."""
        return self._is_short

    @property
    def size(self) -> int:
        """How many connections all members may have, as far as this one was told."""
        core = self._core()
        return 0 if core is None else core.config.fleet_size or 0

    @property
    def demand(self) -> int:
        """How many it needs: in use, for callers in line, and such as were in use a moment ago."""
        core = self._core()
        return 0 if core is None else self._needs(core, core.clock.now())

    def take(self) -> bool:
        """Takes a permit for a connection that is about to be opened; False: there is none for now."""
        core = self._core()
        if core is None or (now := core.clock.now()) < self._asks_at:
            return False
        fleet = self._fleet or self._joined(core, now)
        if fleet is None:
            return False
        rows = self._tell(core, fleet, now, more=1)
        others = [row for row in rows if row.slot != fleet.slot]
        is_rightful = (
            not _is_contended(others, now)
            or self.granted < rightful(rows, now, fleet.slot)[fleet.slot]
        )
        is_taken = is_rightful and fleet.take(smallest_size(rows), now)
        if is_taken:
            self.granted += 1
            self._is_short = False
            self._tell(core, fleet, now)
        else:
            self._asks_at = now + _PAUSE
            was_short, self._is_short = self._is_short, bool(core.line.callers)
            if self._is_short:
                self._ask_others(fleet, self._tell(core, fleet, now), now, is_new=not was_short)
        self._set_alarm(core, fleet, now)
        return is_taken

    def give_back(self) -> None:
        """A connection is gone, or could not be opened."""
        core, fleet = self._core(), self._fleet
        if core is None or fleet is None:
            return
        now = core.clock.now()
        self.granted -= 1
        fleet.give_back(now)
        rows = self._tell(core, fleet, now)
        if sum(row.granted for row in rows) >= smallest_size(rows):
            core.counters.fleet_overdrawn += 1
        self._set_alarm(core, fleet, now)

    def changed(self) -> None:
        """The pool's settings, perhaps the fleet's size: all who have permits are to look."""
        core, fleet = self._core(), self._fleet
        if core is not None and fleet is not None:
            rows = self._tell(core, fleet, core.clock.now())
            fleet.wake([row for row in rows if row.granted])
            self.look()

    def look(self) -> None:
        """Something may have changed: gives up what is others', takes what is its own."""
        core, fleet = self._core(), self._fleet
        if core is None or fleet is None:
            return
        now = core.clock.now()
        is_any_free = fleet.settle(now)
        self._is_short = self._is_short and bool(core.line.callers)
        rows = self._tell(core, fleet, now)
        theirs = rightful(rows, now, fleet.slot)
        if is_any_free:
            fleet.wake(
                [row for row in rows if row.is_in_want(now) and row.granted < theirs[row.slot]]
            )
        if core.is_closed and not self.granted and fleet.settles_at() == math.inf:
            self._leave()
            return
        mine = theirs[fleet.slot]
        is_above = sum(row.granted for row in rows) > smallest_size(rows)
        cap = mine if self.granted > mine and (self._is_aware or is_above) else math.inf
        if cap != core.ledger.cap.granted or (self._is_short and self.granted < mine):
            self._asks_at = -math.inf
            core.grant(cap)  # which has the pool take, or close, what it can
        self._set_alarm(core, fleet, now)

    def returned(self, entry: Entry, held: float) -> None:
        """Told only while somebody is short: what comes back may soon be spare."""
        core = self._core()
        if core is not None:
            now = core.clock.now()
            self._alarm.set(now + self._patience(core), core.clock, now)

    def __del__(self) -> None:
        # Perhaps in another thread. The pool is gone, and so are its connections.
        if self._fleet is not None and self._mailbox is not None:
            self._mailbox.post(self._fleet.leave)

    def begin_again(self) -> None:
        """In a forked child: it has no permits, and the parent goes on as before."""
        fleet, self._fleet = self._fleet, None
        core = self._core()
        self.granted, self._is_short, self._asks_at = 0, False, -math.inf
        self._alarm.stop()
        if core is not None and self._is_aware:
            self._is_aware = False
            core.remove_listener(self)
        if fleet is not None:
            fleet.forget()

    def _joined(self, core: ResourcePool, now: float) -> Fleet | None:
        try:
            self._fleet = self._join(WeakMethod(self.look))
        except Exception as error:  # whoever waits is told that it is for the fleet
            self._asks_at = now + TURN
            if not self._is_short:
                self._is_short = True
                spawn_raw(log.error, "%r cannot join its fleet: %s", core, error)
            return None
        self._mailbox = core.mailbox
        return self._fleet

    def _leave(self) -> None:
        fleet, self._fleet = self._fleet, None
        self._alarm.stop()
        if fleet is not None:
            fleet.leave()

    def _ask_others(self, fleet: Fleet, rows: list[Row], now: float, is_new: bool) -> None:
        """Wakes all who may have a permit to spare.

        Who is aware has none that its row does not show, and what it has too many it gives by itself.
        """
        theirs = rightful(rows, now, fleet.slot)
        fleet.wake(
            [
                row
                for row in rows
                if row.slot != fleet.slot
                and row.granted
                and (not row.is_aware or (is_new and row.granted > theirs[row.slot]))
            ]
        )

    def _set_alarm(self, core: ResourcePool, fleet: Fleet, now: float) -> None:
        """To when something is due by time alone. While nobody is short, that is nothing.

        Who waits for another process keeps this one alive: nothing in it would.
        """
        looks_at = fleet.settles_at()
        if self._is_aware or core.ledger.cap.granted < math.inf:
            looks_at = min(looks_at, next_turn(now), self._idles_until(core, now))
        self._alarm.set(max(looks_at, now + _MOMENT), core.clock, now, ref=self._is_short)

    def _tell(self, core: ResourcePool, fleet: Fleet, now: float, more: int = 0) -> list[Row]:
        """Writes its row, and reads all."""
        rows = self._exchange(core, fleet, now, more)
        while _is_contended(rows, now) != self._is_aware:
            # Who is short relies on what is told here. So it is told first, and then seen who is short.
            self._is_aware = not self._is_aware
            (core.add_listener if self._is_aware else core.remove_listener)(self)
            rows = self._exchange(core, fleet, now, more)
        return rows

    def _exchange(self, core: ResourcePool, fleet: Fleet, now: float, more: int) -> list[Row]:
        fleet.write(
            Row(
                fleet.slot,
                os.getpid(),
                self.size,
                self.granted,
                core.ledger.in_use,
                core.line.length,
                self._needs(core, now),
                max(self.granted + more, core.config.min_idle if core.is_warm else 0),
                self._is_short,
                self._is_aware,
                now,
            )
        )
        return fleet.rows()

    def _needs(self, core: ResourcePool, now: float) -> int:
        ledger, patience, fresh = core.ledger, self._patience(core), 0
        for entry in reversed(ledger.idle):
            if now - entry.idle_since >= patience:
                break
            fresh += 1
        needs = ledger.in_use + max(core.line.length, ledger.opening) + fresh
        return int(min(needs, ledger.cap.configured, ledger.cap.found))

    def _patience(self, core: ResourcePool) -> float:
        """For how many seconds a connection has to be idle to be spare while others wait.

        For as long as opening one takes: that is what it costs at most twice as much as if the future were
        known, whether it is wanted again or not (ski rental).
        """
        return min(core.upkeep.pace.connect_time, TURN)

    def _idles_until(self, core: ResourcePool, now: float) -> float:
        """When the next idle connection will be spare."""
        patience = self._patience(core)
        return min(
            (
                one.idle_since + patience
                for one in core.ledger.idle
                if now - one.idle_since < patience
            ),
            default=math.inf,
        )

    def _ring(self, at: float) -> None:
        self.look()


def _is_contended(rows: list[Row], now: float) -> bool:
    return any(row.is_in_want(now) for row in rows)


def _begin_again() -> None:
    for member in list(_members):
        member.begin_again()


at_fork(_begin_again)
