"""The figures of a pool: counters that only rise, and a frozen snapshot of everything."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from ..config import PoolConfig
from ..sizing.demand import Demand
from .ledger import Ledger

# Seconds; the upper edges of the histogram of waits, the last bucket is everything beyond.
WAIT_EDGES = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Counters:
    """What has happened to a pool since it was made."""

    __slots__ = (
        "cancel_failures",
        "cancelled",
        "checkouts",
        "closed",
        "hold_seconds",
        "open_errors",
        "opened",
        "owners_ended",
        "pings",
        "resets",
        "timeout_reasons",
        "wait_counts",
        "wait_reasons",
        "wait_seconds",
        "waits",
    )

    def __init__(self) -> None:
        self.checkouts = 0
        self.hold_seconds = 0.0
        self.waits = 0
        self.wait_seconds = 0.0
        self.wait_counts = [0] * (len(WAIT_EDGES) + 1)
        self.wait_reasons: Counter[str] = Counter()
        self.timeout_reasons: Counter[str] = Counter()
        self.opened = 0
        self.open_errors = 0
        self.closed: Counter[str] = Counter()
        self.cancelled = 0
        self.cancel_failures = 0
        self.owners_ended = 0
        self.pings = 0
        self.resets = 0

    def waited(self, seconds: float, why: str) -> None:
        """A caller's wait has ended, in whatever way."""
        self.wait_reasons[why] += 1
        self.wait_seconds += seconds
        self.wait_counts[bisect_left(WAIT_EDGES, seconds)] += 1


@dataclass(frozen=True)
class PoolStats:
    """A snapshot of one pool. Durations are seconds; counts are since the pool was made.

    Attributes:
        name: the pool's name.
        max_size: hard cap, `inf` for none.
        min_idle: the pool never closes idle connections below this size.
        size: connections in any state: idle + in use + opening + closing.
        idle: ready to be lent.
        in_use: lent.
        opening: being connected.
        closing: being closed.
        waiting: callers in line.
        level: how many connections the sizing wants to keep for the demand it sees.
        mean_in_use: decayed mean of connections in use.
        checkouts_per_second: decayed rate of requests.
        checkouts: connections lent.
        hold_seconds: time that returned connections had been lent, in sum.
        waits: callers that had to wait in line.
        wait_seconds: time spent in line, in sum.
        wait_counts: how many waits ended within each of `WAIT_EDGES`, and beyond the last.
        wait_reasons: the waits by what they were for: `saturated`, `connecting`, `database down`,
            `hub blocked`.
        timeouts: callers that got no connection in time, or were told at once that none can come.
        timeout_reasons: these by why: as the waits, and `overloaded`, `deadlock`.
        opened: connections opened.
        open_errors: attempts that failed.
        closed: connections closed, by cause.
        cancelled: queries abandoned in the middle that the server was seen to have ended.
        cancel_failures: such as it was not seen to have ended before `cancel_deadline`.
        owners_ended: greenlets that ended while they held a connection and did not lose it.
        pings: round trips spent on asking whether a connection lives.
        resets: round trips spent on resetting a returned connection, where the pool does it.
        connect_time: decayed mean of what opening one takes.
    """

    name: str
    max_size: float
    min_idle: int
    size: int
    idle: int
    in_use: int
    opening: int
    closing: int
    waiting: int
    level: int
    mean_in_use: float
    checkouts_per_second: float
    checkouts: int
    hold_seconds: float
    waits: int
    wait_seconds: float
    wait_counts: tuple[int, ...]
    wait_reasons: Mapping[str, int]
    timeouts: int
    timeout_reasons: Mapping[str, int]
    opened: int
    open_errors: int
    closed: Mapping[str, int]
    cancelled: int
    cancel_failures: int
    owners_ended: int
    pings: int
    resets: int
    connect_time: float

    def __str__(self) -> str:
        return (
            f"level {self.level}, mean in use {self.mean_in_use:.2f}, "
            f"{self.checkouts_per_second:.2f} checkouts/s, {self.checkouts} checkouts, "
            f"{self.opened} opened, {sum(self.closed.values())} closed, {self.waits} waits, "
            f"{self.timeouts} timeouts"
        )


def snapshot(
    name: str,
    config: PoolConfig,
    ledger: Ledger,
    waiting: int,
    counters: Counters,
    demand: Demand,
    connect_time: float,
) -> PoolStats:
    """The figures of a pool as they are now. Never switches."""
    special = ("closed", "wait_counts", "wait_reasons", "timeout_reasons")
    names = [name for name in Counters.__slots__ if name not in special]
    return PoolStats(
        name=name,
        max_size=ledger.cap.limit,
        min_idle=config.min_idle,
        size=ledger.size,
        idle=len(ledger.idle),
        in_use=ledger.in_use,
        opening=ledger.opening,
        closing=ledger.closing,
        waiting=waiting,
        level=demand.level,
        mean_in_use=demand.mean_in_use,
        checkouts_per_second=demand.checkouts_per_second,
        closed=dict(counters.closed),
        wait_reasons=dict(counters.wait_reasons),
        timeouts=sum(counters.timeout_reasons.values()),
        timeout_reasons=dict(counters.timeout_reasons),
        wait_counts=tuple(counters.wait_counts),
        connect_time=connect_time,
        **{name: getattr(counters, name) for name in names},
    )
