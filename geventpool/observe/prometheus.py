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
from dataclasses import replace
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from ..core.stats import BY_LABEL, COUNTER, GAUGE, HISTOGRAM, METRICS, WAIT_EDGES
from ..core.stats import Metric as Figure
from .figures import EDGES
from .files import publisher, read_total
from .metrics import HUB, OBSERVED, PROCESSES, families
from .snapshot import Total, add_up, snapshot

__all__ = ["CONTENT_TYPE_LATEST", "Collector", "exposition"]

_KINDS: Mapping[str, Any] = {
    GAUGE: GaugeMetricFamily,
    COUNTER: CounterMetricFamily,
    BY_LABEL: CounterMetricFamily,
    HISTOGRAM: HistogramMetricFamily,
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
        for family in families(METRICS):
            yield _family(family, pools)
        # What was told of one that is observed, is told by the names under which it is exported.
        observed = [{**pool, **pool["histograms"]} for pool in pools if pool["histograms"]]
        for family in families(OBSERVED):
            yield _family([replace(one, name=one.exposed) for one in family], observed)
        yield _plain(PROCESSES, total.processes)
        if total.hub is not None:
            for one in HUB:
                value = total.hub[one.name]
                yield _plain(one, value["seconds"] if isinstance(value, Mapping) else value or 0.0)

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


def _plain(metric: Figure, value: float) -> Metric:
    """What has no label."""
    made: Metric = _KINDS[metric.kind](f"geventpool_{metric.exposed}", metric.help, value=value)
    return made


def _family(metrics: Sequence[Figure], pools: Iterable[Mapping[str, Any]]) -> Metric:
    """What has one name, of all pools; `metrics` differ in the value of their label."""
    first = metrics[0]
    labels = ["pool", first.label] if first.label else ["pool"]
    name, text = f"geventpool_{first.exposed}", first.family or first.help
    family: Any = _KINDS[first.kind](name, text, labels=labels)
    for pool in pools:
        for one in metrics:
            said = pool[one.name]
            if one.kind == HISTOGRAM:
                family.add_metric([pool["name"]], *_histogram(one, said, pool))
            elif one.kind == BY_LABEL:
                for value, count in sorted(said.items()):
                    family.add_metric([pool["name"], value.replace(" ", "_")], count)
            else:
                of_label = [one.name] if one.label else []
                family.add_metric([pool["name"], *of_label], math.inf if said is None else said)
    return family  # type: ignore[no-any-return]


def _histogram(
    metric: Figure, said: Any, pool: Mapping[str, Any]
) -> tuple[list[tuple[str, float]], float]:
    if metric.total:
        return _buckets(WAIT_EDGES, said), pool[metric.total]
    return _buckets(EDGES, said["counts"]), said["total"]


def _buckets(edges: Sequence[float], counts: Sequence[int]) -> list[tuple[str, float]]:
    """As Prometheus has them: each with all that are smaller."""
    buckets: list[tuple[str, float]] = []
    seen = 0
    for edge, count in zip((*edges, math.inf), counts, strict=True):
        seen += count
        buckets.append(("+Inf" if edge == math.inf else str(edge), seen))
    return buckets
