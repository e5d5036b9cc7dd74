"""The figures of pools under OpenTelemetry's names, `db.client.connection.*`.

    geventpool.observe.opentelemetry.instrument(geventpool.observe.attach(engine))

The names are those of OpenTelemetry's semantic conventions for database client metrics. Only its API is
used: which SDK and which exporter there are is the program's business.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation, get_meter

from .figures import Histogram
from .observer import Observer

_NAME = "db.client.connection.pool.name"
_STATE = "db.client.connection.state"
_PREFIX = "db.client.connection."
_HISTOGRAMS = (
    ("open", "create_time", "What opening a connection took"),
    ("acquire", "wait_time", "From asking for a connection to having it"),
    ("hold", "use_time", "For how long a connection was lent"),
)


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
    up_down(
        f"{_PREFIX}idle.min", figure("min_idle"), "{connection}", "Idle ones that are never closed"
    )
    up_down(f"{_PREFIX}max", figure("max_size"), "{connection}", "Hard cap of connections")
    up_down(f"{_PREFIX}pending_requests", figure("waiting"), "{request}", "Callers in line")
    meter.create_observable_counter(
        f"{_PREFIX}timeouts", figure("timeouts"), "{timeout}", "Callers that got no connection"
    )
    for field, name, text in _HISTOGRAMS:
        instrument_of = meter.create_histogram(f"{_PREFIX}{name}", "s", text)
        for observer in kept:
            before = getattr(observer.figures, field)
            recording = _Recording(before, instrument_of, {_NAME: observer.name})
            setattr(observer.figures, field, recording)


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
