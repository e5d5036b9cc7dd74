"""The figures of pools under OpenTelemetry's names, `db.client.connection.*`.

    geventpool.observe.opentelemetry.instrument(geventpool.observe.attach(engine))

The names are those of OpenTelemetry's semantic conventions for database client metrics. Only its API is
used: which SDK and which exporter there are is the program's business.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation, get_meter

from ..core.stats import GAUGE, HISTOGRAM, METRICS
from .figures import FIGURES, Histogram
from .observer import Observer

_NAME = "db.client.connection.pool.name"
_STATE = "db.client.connection.state"
_PREFIX = "db.client.connection."
_NAMES = {
    "min_idle": "idle.min",
    "max_size": "max",
    "waiting": "pending_requests",
    "timeouts": "timeouts",
    "open": "create_time",
    "acquire": "wait_time",
    "hold": "use_time",
}
_UNITS = {"waiting": "{request}", "timeouts": "{timeout}"}


def instrument(*observers: Observer, meter_provider: MeterProvider | None = None) -> None:
    """Has pools that are observed tell OpenTelemetry of themselves. Never switches greenlets.

    Args:
        *observers: of the pools; once for each.
        meter_provider: `None`: the program's.
    """
    meter, kept = get_meter("geventpool", meter_provider=meter_provider), list(observers)

    def count(_options: CallbackOptions) -> Iterable[Observation]:
        for observer in kept:
            stats = observer.watcher.core.stats()
            for state, value in (("idle", stats.idle), ("used", stats.in_use)):
                yield Observation(value, {_NAME: observer.name, _STATE: state})

    def figure(name: str) -> Any:
        def observe(_options: CallbackOptions) -> Iterable[Observation]:
            for observer in kept:
                value = getattr(observer.watcher.core.stats(), name)
                if value != float("inf"):  # no cap is no figure
                    yield Observation(value, {_NAME: observer.name})

        return [observe]

    up_down = meter.create_observable_up_down_counter
    up_down(f"{_PREFIX}count", [count], "{connection}", "Connections by state")
    for one in (*METRICS, *FIGURES):
        if one.name not in _NAMES:
            continue
        name = f"{_PREFIX}{_NAMES[one.name]}"
        if one.kind != HISTOGRAM:
            make = up_down if one.kind == GAUGE else meter.create_observable_counter
            make(name, figure(one.name), _UNITS.get(one.name, "{connection}"), one.help)
            continue
        instrument_of = meter.create_histogram(name, "s", one.help)
        for observer in kept:
            before = getattr(observer.figures, one.name)
            recording = _Recording(before, instrument_of, {_NAME: observer.name})
            setattr(observer.figures, one.name, recording)


class _Recording(Histogram):
    """A histogram of ours that feeds one of OpenTelemetry's."""

    __slots__ = ("_attributes", "_instrument")

    def __init__(self, before: Histogram, instrument_of: Any, attributes: dict[str, str]) -> None:
        self.counts, self.total = before.counts, before.total
        self._instrument = instrument_of
        self._attributes = attributes

    def add(self, seconds: float) -> None:
        """One more, for both."""
        super().add(seconds)
        self._instrument.record(seconds, self._attributes)
