"""All metrics that are exported: those of each pool, of such as are observed, and of the process."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from typing import Final

from ..core.stats import BY_LABEL, COUNTER, GAUGE, METRICS, Metric
from .figures import FIGURES

IDLE_IN_TRANSACTION: Final = Metric(
    GAUGE,
    "Lent connections that do nothing in a transaction",
    "idle_in_transaction",
    name="idle_in_transaction",
)
WARNINGS: Final = Metric(
    BY_LABEL, "Connections and queries warned of", "warnings", label="what", name="warnings"
)

OBSERVED: Final = (IDLE_IN_TRANSACTION, *FIGURES, WARNINGS)
"""Of each pool that is observed."""

HUB: Final = (
    Metric(COUNTER, "Turns of the hub above the threshold", "hub_blocks", name="blocks"),
    Metric(
        COUNTER,
        "What these took in sum",
        "hub_blocked_seconds",
        unit="seconds",
        name="blocked_seconds",
    ),
    Metric(
        GAUGE,
        "The longest stretch for which a hub did not run",
        "hub_longest_block_seconds",
        unit="seconds",
        name="longest",
    ),
)
"""Of the hub that is watched."""

PROCESSES: Final = Metric(GAUGE, "Processes that run and publish", "processes", name="processes")

ALL: Final = (*METRICS, *OBSERVED, *HUB, PROCESSES)


def families(metrics: Iterable[Metric]) -> list[list[Metric]]:
    """Those that are exported, together with whatever has the same name."""
    exported = [one for one in metrics if one.exposed]
    return [list(family) for _, family in groupby(exported, key=lambda one: one.exposed)]
