"""The figures of a pool, each declared once: its counters, and a frozen snapshot of everything.

To add a counter, declare it in `PoolStats` and count it where it happens. A gauge is read in `snapshot`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from ..config import PoolConfig
from ..sizing.demand import Demand
from .ledger import Ledger

# Seconds; the upper edges of the histogram of waits, the last bucket is everything beyond.
WAIT_EDGES = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

GAUGE: Final = "gauge"
COUNTER: Final = "counter"
BY_LABEL: Final = "counter by label"
HISTOGRAM: Final = "histogram"

_OWN_NAME: Final = "its own"


@dataclass(frozen=True)
class Metric:
    """What one figure is. All that keeps, adds up, exports or documents figures reads it here.

    Attributes:
        kind: `GAUGE`: as it is now; `COUNTER`: only rises; `BY_LABEL`: counters by name; `HISTOGRAM`.
        help: what it is, in a line.
        exposed: its name for Prometheus, without prefix and suffix; empty: it is not exported.
        unit: `"seconds"`, or empty.
        label: of counters by label: what their names say. Of a gauge: what its own name says, where
            several have the same `exposed`.
        family: of such a gauge: what all of them are.
        is_added_up: the sum over pools and processes means something.
        is_common: it is one and the same for all of them, so that the largest takes the place of a sum.
        sum_of: the counters by label whose sum it is; empty: it is counted itself.
        total: of a histogram: the counter that has the sum of what it has counted.
        name: the attribute's.
    """

    kind: str
    help: str
    exposed: str
    unit: str = ""
    label: str = ""
    family: str = ""
    is_added_up: bool = True
    is_common: bool = False
    sum_of: str = ""
    total: str = ""
    name: str = ""


def metric(kind: str, help_text: str, exposed: str = _OWN_NAME, **more: Any) -> dict[str, Metric]:
    """A metric, as the metadata of a dataclass's field; `exposed` is the field's name by default."""
    return {"metric": Metric(kind, help_text, exposed, **more)}


def declared_by(holder: Any) -> tuple[Metric, ...]:
    """The metrics that the fields of a dataclass are, in their order."""
    found = [(one.name, one.metadata["metric"]) for one in fields(holder) if one.metadata]
    return tuple(
        replace(one, name=name, exposed=name if one.exposed == _OWN_NAME else one.exposed)
        for name, one in found
    )


gauge = partial(metric, GAUGE)
counter = partial(metric, COUNTER)
by_label = partial(metric, BY_LABEL)
_state = partial(
    gauge, exposed="connections", label="state", family="Connections by what they are doing"
)


@dataclass(frozen=True)
class PoolStats:
    """A snapshot of one pool. Durations are seconds; counts are since the pool was made.

    Why callers wait: `saturated`, `fleet`, `connecting`, `database down`, `hub blocked`. Why they get no
    connection: as these, and `overloaded`, `deadlock`. `wait_counts` says how many waits ended within
    each of `WAIT_EDGES`, and beyond the last; no cap is `inf`.

    Attributes:
        name: The pool's name
    """

    name: str
    max_size: float = field(metadata=gauge("Hard cap of connections", "connections_max"))
    min_idle: int = field(metadata=gauge("Below this size no idle connection is closed", ""))
    size: int = field(metadata=gauge("Connections in any state", ""))
    idle: int = field(metadata=_state("Connections ready to be lent"))
    in_use: int = field(metadata=_state("Connections lent now, or given back and not reset yet"))
    opening: int = field(metadata=_state("Connections being opened"))
    closing: int = field(metadata=_state("Connections being closed"))
    resetting: int = field(
        metadata=gauge("Of those in use: given back, and the answer to their rollback is due")
    )
    waiting: int = field(metadata=gauge("Callers in line for a connection"))
    level: int = field(
        metadata=gauge("Connections that the sizing wants to keep for the demand it sees")
    )
    mean_in_use: float = field(metadata=gauge("Decayed mean of connections in use", "demand_mean"))
    checkouts_per_second: float = field(
        metadata=gauge("Decayed mean of checkouts per second", "demand_rate")
    )
    checkouts: int = field(metadata=counter("Connections lent"))
    hold_seconds: float = field(
        metadata=counter("Time that returned connections had been lent", "", unit="seconds")
    )
    waits: int = field(metadata=counter("Callers that had to wait in line", ""))
    wait_seconds: float = field(metadata=counter("Time spent in line", "", unit="seconds"))
    wait_counts: tuple[int, ...] = field(
        metadata=metric(
            HISTOGRAM, "Time that callers spent in line", "wait_seconds", total="wait_seconds"
        )
    )
    wait_reasons: Mapping[str, int] = field(
        metadata=by_label("Callers that had to wait in line", "waits", label="why")
    )
    timeouts: int = field(
        metadata=counter("Callers that got no connection", "", sum_of="timeout_reasons")
    )
    timeout_reasons: Mapping[str, int] = field(
        metadata=by_label("Callers that got no connection", "timeouts", label="why")
    )
    opened: int = field(metadata=counter("Connections opened"))
    open_errors: int = field(metadata=counter("Attempts to connect that failed"))
    closed: Mapping[str, int] = field(metadata=by_label("Connections closed", label="cause"))
    cancelled: int = field(
        metadata=counter("Abandoned queries that the server was seen to have ended")
    )
    cancel_failures: int = field(
        metadata=counter("Abandoned queries that the server was not seen to have ended in time")
    )
    owners_ended: int = field(metadata=counter("Greenlets that ended while they held a connection"))
    pings: int = field(metadata=counter("Round trips spent on asking whether a connection lives"))
    resets: int = field(metadata=counter("Round trips spent on resetting a returned connection"))
    connect_time: float = field(
        metadata=gauge(
            "Decayed mean of what opening one takes", "", unit="seconds", is_added_up=False
        )
    )
    fleet_size: int = field(
        metadata=gauge(
            "Connections that all processes of the fleet may have together; 0: no fleet",
            is_common=True,
        )
    )
    fleet_granted: int = field(metadata=gauge("Permits of the fleet, one for each connection"))
    fleet_demand: int = field(
        metadata=gauge("Permits that are needed: in use, and for callers in line")
    )
    fleet_overdrawn: int = field(
        metadata=counter("Permits given back that were beyond what the fleet may have by then")
    )

    def __str__(self) -> str:
        fleet = (
            f", {self.fleet_granted} of the fleet's {self.fleet_size}" if self.fleet_size else ""
        )
        return (
            f"level {self.level}, mean in use {self.mean_in_use:.2f}, "
            f"{self.checkouts_per_second:.2f} checkouts/s, {self.checkouts} checkouts, "
            f"{self.opened} opened, {sum(self.closed.values())} closed, {self.waits} waits, "
            f"{self.timeouts} timeouts{fleet}"
        )


METRICS: Final = declared_by(PoolStats)
"""Of each pool."""

COUNTED: Final = tuple(one for one in METRICS if one.kind != GAUGE)
"""Of these, what `Counters` has, which lives on when the pool has gone."""

PoolStats.__doc__ = "\n        ".join(
    [f"{PoolStats.__doc__}".rstrip(), *(f"{one.name}: {one.help}" for one in METRICS)]
)


_NOTHING: Final[Mapping[str, Callable[[], Any]]] = {
    COUNTER: int,
    BY_LABEL: Counter,
    HISTOGRAM: lambda: [0] * (len(WAIT_EDGES) + 1),
}
_COPY: Final[Mapping[str, Callable[[Any], Any]]] = {
    COUNTER: lambda number: number,
    BY_LABEL: dict,
    HISTOGRAM: tuple,
}


class Counters:
    """What has happened to a pool since it was made: an attribute for each of `COUNTED`.

    Those by label are `collections.Counter`s, histograms are lists.
    """

    __slots__ = tuple(one.name for one in COUNTED if not one.sum_of)

    if TYPE_CHECKING:  # at run time the slots refuse what is not declared

        def __getattr__(self, name: str) -> Any: ...
        def __setattr__(self, name: str, value: Any) -> None: ...

    def __init__(self) -> None:
        for one in COUNTED:
            if not one.sum_of:
                setattr(self, one.name, 0.0 if one.unit else _NOTHING[one.kind]())

    def waited(self, seconds: float, why: str) -> None:
        """A caller's wait has ended, in whatever way."""
        self.wait_reasons[why] += 1
        self.wait_seconds += seconds
        self.wait_counts[bisect_left(WAIT_EDGES, seconds)] += 1

    def read(self) -> dict[str, Any]:
        """All of `COUNTED` as they are now, by name. Never switches."""
        return {
            one.name: sum(getattr(self, one.sum_of).values())
            if one.sum_of
            else _COPY[one.kind](getattr(self, one.name))
            for one in COUNTED
        }


def snapshot(
    name: str,
    config: PoolConfig,
    ledger: Ledger,
    waiting: int,
    counters: Counters,
    demand: Demand,
    connect_time: float,
    resetting: int,
) -> PoolStats:
    """The figures of a pool as they are now. Never switches."""
    permits = ledger.permits
    return PoolStats(
        name=name,
        max_size=ledger.cap.limit,
        min_idle=config.min_idle,
        size=ledger.size,
        idle=len(ledger.idle),
        in_use=ledger.in_use,
        resetting=resetting,
        opening=ledger.opening,
        closing=ledger.closing,
        waiting=waiting,
        level=demand.level,
        mean_in_use=demand.mean_in_use,
        checkouts_per_second=demand.checkouts_per_second,
        connect_time=connect_time,
        fleet_size=0 if permits is None else permits.size,
        fleet_granted=0 if permits is None else permits.granted,
        fleet_demand=0 if permits is None else permits.demand,
        **counters.read(),
    )
