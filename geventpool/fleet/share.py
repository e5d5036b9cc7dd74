"""Who may have how many of a fleet's connections: max-min fair by need. Pure: never switches, no I/O.

First what members need: in use, and for callers in line. It is dealt out level by level, so that nobody
gets more than another who still lacks something (Bertsekas and Gallager, Data Networks, 6.5.2). What is
then left, members keep: idle connections, level by level again, so that who has most to spare gives first.

Where a level does not come out even, the members that lack one take turns. Who has the turn follows from
the time alone, so that all members come to the same answer without a word.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, NamedTuple

TURN: Final = 0.25
"""Seconds. A turn costs a close and a connect, so that shorter ones would cost too much; in five seconds
each of twenty members that share one connection has its turn."""


class Need(NamedTuple):
    """What one member is to be given, if there is enough.

    Attributes:
        needs: connections in use, and those for callers in line.
        keeps: what it would have if nobody else needed any; what is below `needs` means nothing.
    """

    needs: int
    keeps: int


def shares(size: int, members: Sequence[Need], now: float) -> list[int]:
    """How many each member may have, in the members' order.

    Args:
        size: how many there are.
        members: what they need, in an order that all of them know.
        now: seconds of a clock that all of them share.
    """
    given = _level([one.needs for one in members], size, int(now // TURN))
    spare = [max(0, one.keeps - one.needs) for one in members]
    kept = _level(spare, size - sum(given), 0)  # no turns: idle ones would be closed for nothing
    return [one + more for one, more in zip(given, kept, strict=True)]


def next_turn(now: float) -> float:
    """When the next turn begins."""
    return (math.floor(now / TURN) + 1) * TURN


def _level(wanted: Sequence[int], size: int, turn: int) -> list[int]:
    """Deals out `size`, one each in turn, until it is spent or nobody wants more."""
    level, left = 0, size
    lacking = [place for place, want in enumerate(wanted) if want > 0]
    while lacking and left >= len(lacking):
        # As many rounds at once as all of them want more, and as there is for all.
        rounds = min(left // len(lacking), min(wanted[place] for place in lacking) - level)
        level += rounds
        left -= rounds * len(lacking)
        lacking = [place for place in lacking if wanted[place] > level]
    given = [min(want, level) for want in wanted]
    for number in range(left if lacking else 0):
        given[lacking[(turn * left + number) % len(lacking)]] += 1
    return given
