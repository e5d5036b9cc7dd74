"""What the members of a fleet tell of themselves: one row each. Pure: never switches, no I/O.

Rows are hints. They say who may have how many and whom to wake; how many there can be is for the permits
alone. So a row that is stale, torn or wrong costs time or fairness, and never a connection too many.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final, NamedTuple

from .share import Need, shares

_PACKED: Final = struct.Struct("<9Id20x")
LENGTH: Final = _PACKED.size
"""Bytes of a row, with room for more: a line of the cache."""

_MOST: Final = 1_000_000_000
_STALE_AFTER: Final = 1.0
"""Seconds. Who is in want looks four times as often; who does not look is stopped, or blocks its hub."""


class Row(NamedTuple):
    """One member.

    Attributes:
        slot: its number.
        pid: its process.
        size: the fleet's, as its settings say.
        granted: permits that it has: connections opening, idle, in use and closing.
        in_use: connections that are lent.
        waiting: callers in line.
        needs: see `share.Need`.
        keeps: likewise.
        is_short: somebody waits there, and it could get no permit.
        is_aware: it knows that somebody is short, and keeps its row up to date.
        seen_at: when it was written, in seconds of the clock that all processes share.
    """

    slot: int
    pid: int
    size: int
    granted: int
    in_use: int
    waiting: int
    needs: int
    keeps: int
    is_short: bool
    is_aware: bool
    seen_at: float

    def pack(self) -> bytes:
        """As it is written."""
        return _PACKED.pack(*(int(min(max(0, one), _MOST)) for one in self[1:-1]), self.seen_at)

    def is_in_want(self, now: float) -> bool:
        """Does it wait for a permit, as far as can be known?"""
        return self.is_short and 0.0 <= now - self.seen_at <= _STALE_AFTER


def unpack(written: bytes) -> list[Row]:
    """All rows of a table, but those that are empty, or make no sense."""
    found = []
    whole = len(written) - len(written) % LENGTH
    for slot, row in enumerate(_PACKED.iter_unpack(written[:whole])):
        *numbers, is_short, is_aware, seen_at = row
        if numbers[0] and max(numbers) <= _MOST and seen_at == seen_at:
            found.append(Row._make((slot, *numbers, bool(is_short), bool(is_aware), seen_at)))
    return found


def smallest_size(rows: Sequence[Row]) -> int:
    """The fleet's size, where its members were told different ones, as while it is being reconfigured.

    The smallest: so none of them sees more than it was told that there may be.
    """
    return min((row.size for row in rows if row.size), default=0)


def rightful(rows: Sequence[Row], now: float, asks: int) -> dict[int, int]:
    """How many permits each member may have, by slot.

    Who is not in want lacks nothing, whatever its row says of a while ago: it needs no more than it has.

    Args:
        rows: of all members.
        now: the time.
        asks: who wants to know; what its own row says is of now.
    """
    needs = [
        Need(row.needs, max(row.keeps, row.granted))
        if row.slot == asks or row.is_in_want(now)
        else Need(min(row.needs, row.granted), row.granted)
        for row in rows
    ]
    given = shares(smallest_size(rows), needs, now)
    return {row.slot: share for row, share in zip(rows, given, strict=True)}
