"""The scenarios, in the order of the table."""

from __future__ import annotations

from . import (
    abandoned_queries,
    deadlock,
    failing_server,
    fairness,
    fork,
    garbage,
    kill_sweep,
    overload,
    owner_death,
    random_kills,
    refusing_server,
    spike,
    threads,
)
from .base import Row, Scenario

SCENARIOS: tuple[Scenario, ...] = tuple(
    module.SCENARIO
    for module in (
        kill_sweep,
        abandoned_queries,
        garbage,
        fork,
        threads,
        fairness,
        overload,
        random_kills,
        deadlock,
        failing_server,
        refusing_server,
        owner_death,
        spike,
    )
)


def find(name: str, label: str) -> tuple[Scenario, Row]:
    """A scenario and its row."""
    scenario = next(scenario for scenario in SCENARIOS if scenario.name == name)
    return scenario, next(row for row in scenario.rows if row.label == label)
