"""Figures under OpenTelemetry's names, as its SDK reads them."""

from __future__ import annotations

from typing import Any

import gevent
import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

import geventpool.observe
from geventpool import ConnectionPool, PoolTimeout
from geventpool.observe.opentelemetry import instrument
from geventpool.testing import FakeClock, FakeDriver


def told(reader: InMemoryMetricReader) -> dict[str, Any]:
    """The metrics by name: the value by state, or the count and the sum of a histogram."""
    data = reader.get_metrics_data()
    assert data is not None
    found: dict[str, Any] = {}
    for metric in data.resource_metrics[0].scope_metrics[0].metrics:
        for point in metric.data.data_points:
            attributes: Any = point.attributes
            assert attributes["db.client.connection.pool.name"] == "desk"
            state = attributes.get("db.client.connection.state", "")
            value = getattr(point, "value", None)
            found[f"{metric.name} {state}".strip()] = (
                (point.count, round(point.sum, 6)) if value is None else value  # type: ignore[union-attr]
            )
    return found


def test_the_figures_are_there_under_the_conventions_names() -> None:
    clock = FakeClock()
    pool = ConnectionPool(
        FakeDriver(clock, connect_time=0.25).connect, name="desk", clock=clock, max_size=1
    )
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader])
    instrument(geventpool.observe.attach(pool), meter_provider=provider)

    def use() -> None:
        with pool.connection():
            clock.sleep(0.5)

    gevent.spawn(use)
    clock.advance(2.0)
    with pool.connection():
        with pytest.raises(PoolTimeout):
            pool.connection(timeout=0)
        assert told(reader) == {
            "db.client.connection.count idle": 0,
            "db.client.connection.count used": 1,
            "db.client.connection.idle.min": 1,
            "db.client.connection.max": 1,
            "db.client.connection.pending_requests": 0,
            "db.client.connection.timeouts": 1,
            "db.client.connection.create_time": (1, 0.25),
            "db.client.connection.wait_time": (2, 0.25),
            "db.client.connection.use_time": (1, 0.5),
        }
    provider.shutdown()
