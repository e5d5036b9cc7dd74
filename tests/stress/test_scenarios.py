"""The scenarios in their short form, for GeventPool alone; `make stress` runs them whole, for all.

Times and shares of throughput are not judged here, because other tests may use the machine meanwhile.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from tests.stress.scenarios import report
from tests.stress.scenarios.base import OURS, Context, Row, Scenario
from tests.stress.scenarios.catalogue import SCENARIOS
from tests.stress.scenarios.run import run_one, url_for

from .server_side import IS_WHOLE

# What the others are about has tests of its own beside this file.
SHORT = ("abandoned_queries", "overload", "deadlock", "owner_death", "refusing_server", "spike")
ROWS = [
    (scenario, row)
    for scenario in SCENARIOS
    for row in scenario.rows
    if IS_WHOLE or scenario.name in SHORT
]


@pytest.mark.parametrize(
    ("scenario", "row"), ROWS, ids=[scenario.row_id(row) for scenario, row in ROWS]
)
def test_geventpool_stands(scenario: Scenario, row: Row, mariadb: Any, postgresql: Any) -> None:
    url = url_for(row, {"mysql": mariadb, "postgresql": postgresql})
    result = run_one(scenario, row, OURS, url, "short")
    assert result["passed"], f"{result['reason']}\n{result['output']}"


def test_a_pool_that_hangs_fails_its_row_and_does_not_hang_the_run(postgresql: Any) -> None:
    scenario = next(scenario for scenario in SCENARIOS if scenario.name == "deadlock")
    row = scenario.rows[0]
    impatient = dataclasses.replace(scenario, quick_limit=0.1)
    result = run_one(impatient, row, OURS, postgresql.url(row.driver), "short")
    assert not result["passed"]
    assert result["reason"].startswith("hung")


def test_what_is_a_matter_of_time_is_not_judged_in_the_short_form() -> None:
    for scale, failures in (("short", ["wrong"]), ("quick", ["slow", "wrong"])):
        context = Context(OURS, ROWS[0][1], "", scale)
        context.expect(False, "slow", is_timing=True)
        context.expect(False, "wrong")
        assert context.failures == failures


def test_the_report_says_who_passed_and_why_not() -> None:
    scenario, row = ROWS[0]
    verdict = {"passed": True, "reason": "", "figures": {"kills": 3}, "notes": []}
    hung = {"passed": False, "reason": "hung: no end", "figures": {}, "notes": ["timeout=3"]}
    told = report.write(
        [(scenario, row)],
        {
            (scenario.name, row.label, OURS): verdict,
            (scenario.name, row.label, "QueuePool"): hung,
        },
        (OURS, "QueuePool", "psycopg_pool"),
        "a server 1.0",
        "quick",
    )
    assert f"| {scenario.title}: {row.label} | pass | **fail: hung** | n/a |" in told
    assert "| **passed** | **1 of 1** | **0 of 1** | **0 of 0** |" in told
    assert "- QueuePool: hung: no end" in told
    assert "- QueuePool has timeout=3." in told
    assert "| kills | 3 |  |" in told
