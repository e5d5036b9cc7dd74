"""A connection inside another object is treated as what it is, with the tools that people really use."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .dbapi import MYSQL, module_of, server_of

ROOT = Path(__file__).parents[2]
# No agent is there to be told of anything, and none is to be looked for.
QUIET = {
    "DD_TRACE_ENABLED": "false",
    "DD_INSTRUMENTATION_TELEMETRY_ENABLED": "false",
    "DD_REMOTE_CONFIGURATION_ENABLED": "false",
}
SQLALCHEMY = ["GeventPool", "wrap", "QueuePool"]
DOORS = {
    "pymysql": ["raw", *SQLALCHEMY, "django"],
    "MySQLdb": ["raw", *SQLALCHEMY],
    "psycopg": ["raw", *SQLALCHEMY, "django"],
    "psycopg2": ["raw", *SQLALCHEMY, "django"],
    "pg8000": ["raw", *SQLALCHEMY],
}
CASES = [
    *(("pymysql", tool) for tool in ("wrapt", "opentelemetry", "ddtrace", "all three")),
    *(("psycopg", tool) for tool in ("wrapt", "opentelemetry", "ddtrace")),
    # psycopg2's own functions refuse a bare `wrapt.ObjectProxy`; the tracers replace them.
    *(("psycopg2", tool) for tool in ("opentelemetry", "ddtrace")),
    ("pg8000", "wrapt"),
    ("MySQLdb", "opentelemetry"),
    ("MySQLdb", "ddtrace"),
]
# These give a cursor class of their own to the driver's connection.
NOT_AROUND = [("psycopg", "opentelemetry"), ("psycopg2", "opentelemetry")]

Look = Callable[[str, str], dict[str, dict[str, Any]]]
_seen: dict[tuple[str, str], dict[str, dict[str, Any]]] = {}


@pytest.fixture
def look(request: pytest.FixtureRequest) -> Look:
    """What a program with this driver and this tool has seen at each door."""

    def look(driver: str, tool: str) -> dict[str, dict[str, Any]]:
        if (driver, tool) not in _seen:
            url = server_of(request, driver).url(driver)
            command = [sys.executable, "-m", "tests.integration.wrapped_program"]
            done = subprocess.run(
                [*command, tool, driver, url, *DOORS[driver]],
                cwd=ROOT,
                env={**os.environ, **QUIET},
                capture_output=True,
                text=True,
                timeout=300,
                check=False,
            )
            assert done.returncode == 0, done.stderr[-3000:]
            _seen[driver, tool] = json.loads(done.stdout.splitlines()[-1])
        return _seen[driver, tool]

    return look


@pytest.mark.parametrize(("driver", "tool"), CASES)
def test_a_wrapped_connection_gets_all_that_the_drivers_own_gets(
    driver: str, tool: str, look: Look
) -> None:
    module_of(driver)
    wrapped, bare = look(driver, tool), look(driver, "nothing")
    for door in DOORS[driver]:
        seen = wrapped[door]
        assert seen.pop("is_wrapped") is ((driver, tool) not in NOT_AROUND), door
        if door == "QueuePool":
            assert seen["failed"] > 0  # which is what the others are better than
        else:
            assert seen == {name: bare[door][name] for name in seen}, door
            assert seen["failed"] == 0, door
            if driver != "MySQLdb":
                assert seen["cancelled"] == 1, door
                assert seen["is_left_at_work"] is False, door
        if driver != "MySQLdb":
            assert seen["answers"] == [101, 102, 103], door
            if driver in MYSQL and door != "django":
                assert seen["round_trips"] == (3 if door == "QueuePool" else 2)
