"""A fleet in memory, for pools of one process whose time is a test's."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any
from weakref import WeakMethod

from gevent import get_hub

from geventpool import ConnectionPool
from geventpool.fleet.member import Member
from geventpool.fleet.permits import LINGERS
from geventpool.fleet.rows import Row
from geventpool.testing import FakeClock


class Table:
    """What all members see.

    Attributes:
        told: how often there was each: takes, refusals, gifts, wakes, writes.
    """

    def __init__(self) -> None:
        self.taken = 0
        self.all: dict[int, InMemory] = {}
        self.told: Counter[str] = Counter()

    def pool(
        self, connect: Callable[[], Any], clock: FakeClock, size: int, **settings: Any
    ) -> ConnectionPool:
        pool = ConnectionPool(
            connect, clock=clock, fleet_size=size, **{"max_size": 1000, **settings}
        )
        pool.core.limit_by(Member(pool.core, partial(InMemory, self)))
        return pool


class InMemory:
    """One member."""

    def __init__(self, table: Table, wake: WeakMethod[Callable[[], object]]) -> None:
        self._table = table
        self._wake = wake
        self.slot = len(table.all)
        self.row: Row | None = None
        self._settling: list[float] = []
        table.all[self.slot] = self

    def take(self, size: int, now: float) -> bool:
        is_free = self._table.taken < size
        self._table.taken += is_free
        self._table.told["takes" if is_free else "refusals"] += 1
        return is_free

    def give_back(self, now: float) -> None:
        self._settling.append(now + LINGERS)
        self._table.told["gifts"] += 1

    def settles_at(self) -> float:
        return min(self._settling, default=math.inf)

    def settle(self, now: float) -> bool:
        due = [at for at in self._settling if at <= now]
        self._settling = [at for at in self._settling if at > now]
        self._table.taken -= len(due)
        return bool(due)

    def rows(self) -> list[Row]:
        return [one.row for one in self._table.all.values() if one.row is not None]

    def write(self, row: Row) -> None:
        self.row = row
        self._table.told["writes"] += 1

    def wake(self, rows: list[Row]) -> None:
        for row in rows:
            self._table.told["wakes"] += 1
            get_hub().loop.run_callback(self._table.all[row.slot].call)

    def call(self) -> None:
        look = self._wake()
        if look is not None:
            look()

    def leave(self) -> None:
        del self._table.all[self.slot]

    forget = leave
