"""The figures of all pools for Prometheus, also from several worker processes.

    from prometheus_client import REGISTRY
    from geventpool.observe.prometheus import Collector

    REGISTRY.register(Collector())

In one process nothing else is needed. With several workers each publishes its snapshots
(`geventpool.observe.publish()`), and whichever is asked adds up all of them.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from ..core.stats import WAIT_EDGES
from .figures import EDGES
from .files import publisher, read_total
from .snapshot import Total, add_up, snapshot

__all__ = ["CONTENT_TYPE_LATEST", "Collector", "exposition"]

_STATES = ("idle", "in_use", "opening", "closing")
_GAUGES = {
    "waiting": "Callers in line for a connection",
    "level": "Connections that the sizing wants to keep for the demand it sees",
}
_COUNTERS = {
    "checkouts": "Connections lent",
    "opened": "Connections opened",
    "open_errors": "Attempts to connect that failed",
    "cancelled": "Abandoned queries that the server was seen to have ended",
    "cancel_failures": "Abandoned queries that the server was not seen to have ended in time",
    "owners_ended": "Greenlets that ended while they held a connection",
    "pings": "Round trips spent on asking whether a connection lives",
    "resets": "Round trips spent on resetting a returned connection",
}
_BY_NAME = {
    "closed": ("closed", "cause", "Connections closed"),
    "wait_reasons": ("waits", "why", "Callers that had to wait in line"),
    "timeout_reasons": ("timeouts", "why", "Callers that got no connection"),
}
_HISTOGRAMS = {
    "acquire_seconds": "From asking for a connection to having it",
    "hold_seconds": "For how long returned connections had been lent",
    "open_seconds": "What opening a connection took",
    "query_seconds": "What queries took",
}


class Collector:
    """Gives a `prometheus_client` registry the figures of all pools, by their names.

    Args:
        directory: where the workers publish; `None`: if this process publishes, that directory, else
            the figures are this process's alone.
    """

    def __init__(self, directory: str | os.PathLike[str] | None = None) -> None:
        self._directory = directory

    def describe(self) -> Iterable[Metric]:
        """Nothing in advance, so that registering asks for no figures."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """All metrics. May switch greenlets."""
        total = self._total()
        pools = list(total.pools.values())
        yield from _gauges(pools)
        yield from _counters(pools)
        yield from _histograms(pools)
        processes = "Processes that run and publish"
        yield GaugeMetricFamily("geventpool_processes", processes, value=total.processes)
        if total.hub is not None:
            yield from _hub(total.hub)

    def _total(self) -> Total:
        own = publisher()
        if own is not None:
            own.write()
        directory = self._directory or (own.directory if own is not None else None)
        return add_up([snapshot()]) if directory is None else read_total(directory)


def exposition(directory: str | os.PathLike[str] | None = None) -> bytes:
    """The text that Prometheus scrapes, of all pools. May switch greenlets.

    Args:
        directory: as for `Collector`.
    """
    registry = CollectorRegistry()
    registry.register(Collector(directory))
    return generate_latest(registry)


def _gauges(pools: Sequence[Mapping[str, Any]]) -> Iterator[Metric]:
    help_text = "Connections by what they are doing"
    connections = GaugeMetricFamily("geventpool_connections", help_text, labels=["pool", "state"])
    for pool in pools:
        for state in _STATES:
            connections.add_metric([pool["name"], state], pool[state])
    yield connections
    for name, text in _GAUGES.items():
        yield _gauge(name, text, {pool["name"]: pool[name] for pool in pools})
    caps = {
        pool["name"]: math.inf if pool["max_size"] is None else pool["max_size"] for pool in pools
    }
    yield _gauge("connections_max", "Hard cap of connections", caps)
    means = {pool["name"]: pool["mean_in_use"] for pool in pools}
    yield _gauge("demand_mean", "Decayed mean of connections in use", means)
    rates = {pool["name"]: pool["checkouts_per_second"] for pool in pools}
    yield _gauge("demand_rate", "Decayed mean of checkouts per second", rates)
    observed = [pool for pool in pools if pool["histograms"]]
    idle = {pool["name"]: pool["idle_in_transaction"] for pool in observed}
    yield _gauge("idle_in_transaction", "Lent connections that do nothing in a transaction", idle)


def _counters(pools: Sequence[Mapping[str, Any]]) -> Iterator[Metric]:
    for name, text in _COUNTERS.items():
        yield _counter(name, text, {pool["name"]: pool[name] for pool in pools})
    for key, (name, label, text) in _BY_NAME.items():
        counter = CounterMetricFamily(f"geventpool_{name}", text, labels=["pool", label])
        for pool in pools:
            for value, count in sorted(pool[key].items()):
                counter.add_metric([pool["name"], value.replace(" ", "_")], count)
        yield counter
    errors = {
        pool["name"]: pool["histograms"]["query_errors"] for pool in pools if pool["histograms"]
    }
    yield _counter("query_errors", "Queries that failed or were abandoned", errors)
    warnings = CounterMetricFamily(
        "geventpool_warnings", "Connections and queries warned of", labels=["pool", "what"]
    )
    for pool in pools:
        for what, count in sorted(pool["warnings"].items()):
            warnings.add_metric([pool["name"], what.replace(" ", "_")], count)
    yield warnings


def _histograms(pools: Sequence[Mapping[str, Any]]) -> Iterator[Metric]:
    waits = HistogramMetricFamily(
        "geventpool_wait_seconds", "Time that callers spent in line", labels=["pool"]
    )
    for pool in pools:
        buckets = _buckets(WAIT_EDGES, pool["wait_counts"])
        waits.add_metric([pool["name"]], buckets, pool["wait_seconds"])
    yield waits
    for name, text in _HISTOGRAMS.items():
        histogram = HistogramMetricFamily(f"geventpool_{name}", text, labels=["pool"])
        for pool in pools:
            if name in pool["histograms"]:
                said = pool["histograms"][name]
                histogram.add_metric([pool["name"]], _buckets(EDGES, said["counts"]), said["total"])
        yield histogram


def _hub(hub: Mapping[str, Any]) -> Iterator[Metric]:
    yield CounterMetricFamily(
        "geventpool_hub_blocks", "Turns of the hub above the threshold", value=hub["blocks"]
    )
    yield CounterMetricFamily(
        "geventpool_hub_blocked_seconds", "What these took in sum", value=hub["blocked_seconds"]
    )
    longest = hub["longest"]
    yield GaugeMetricFamily(
        "geventpool_hub_longest_block_seconds",
        "The longest stretch for which a hub did not run",
        value=0.0 if longest is None else longest["seconds"],
    )


def _gauge(name: str, text: str, values: Mapping[str, float]) -> Metric:
    gauge = GaugeMetricFamily(f"geventpool_{name}", text, labels=["pool"])
    for pool, value in values.items():
        gauge.add_metric([pool], value)
    return gauge


def _counter(name: str, text: str, values: Mapping[str, float]) -> Metric:
    counter = CounterMetricFamily(f"geventpool_{name}", text, labels=["pool"])
    for pool, value in values.items():
        counter.add_metric([pool], value)
    return counter


def _buckets(edges: Sequence[float], counts: Sequence[int]) -> list[tuple[str, float]]:
    """As Prometheus has them: each with all that are smaller."""
    buckets: list[tuple[str, float]] = []
    seen = 0
    for edge, count in zip((*edges, math.inf), counts, strict=True):
        seen += count
        buckets.append(("+Inf" if edge == math.inf else str(edge), seen))
    return buckets
