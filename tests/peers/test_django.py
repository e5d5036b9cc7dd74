"""Django's own tests, from its source distribution, on our backends and on its own.

In `make test` a part of them, in `make peers` all that have to do with a database's connections.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from ctypes.util import find_library
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from .excluded import DJANGO
from .runner import IS_WHOLE, ROOT, Outcome, source_of

FAST = ["backends", "transactions", "transaction_hooks", "select_for_update"]
WHOLE = [
    *FAST,
    "aggregation",
    "annotations",
    "basic",
    "bulk_create",
    "cache",
    "constraints",
    "delete",
    "fixtures",
    "fixtures_regress",
    "get_or_create",
    "handlers",
    "introspection",
    "lookup",
    "migrate_signals",
    "migrations",
    "multiple_database",
    "prefetch_related",
    "queries",
    "raw_query",
    "requests_tests",
    "schema",
    "servers",
    "signals",
    "test_client",
    "test_runner",
    "test_utils",
    "timezones",
    "update",
]
SERVERS = {"psycopg": "postgresql", "psycopg2": "postgresql", "pymysql": "mariadb"}
SERVERS["mysqlclient"] = "mariadb"
DRIVERS = list(SERVERS) if IS_WHOLE else ["psycopg", "pymysql"]
GIS = ["gis_tests.geoapp", "gis_tests.rasterapp", "gis_tests.inspectapp", "gis_tests.layermap"]
GIS += ["gis_tests.distapp"]
GIS_ENGINES = {"psycopg": ("postgis", "postgis"), "pymysql": ("mysql_gis", "mysql")}
LONGEST = 1800


def run_tests(folder: Path, driver: str, engine: str, url: str, labels: list[str]) -> Outcome:
    """What becomes of Django's tests with a backend."""
    name = f"{engine.partition('.')[0]}_{driver}"
    report = folder / f"report-{name}.json"
    report.unlink(missing_ok=True)
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "GEVENTPOOL_PEER_URL": url,
        "GEVENTPOOL_PEER_ENGINE": engine,
        "GEVENTPOOL_PEER_DATABASE": f"peer_{name}",
        "GEVENTPOOL_PEER_REPORT": str(report),
    }
    command = [sys.executable, "-m", "tests.peers.django_start", driver, str(folder / "tests")]
    command += ["--noinput", "--parallel=1", "-v0", *labels]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=LONGEST,
        check=False,
    )
    outcome = Outcome(output=done.stdout + done.stderr)
    assert report.exists(), outcome.output[-3000:]
    for test, (became, text) in json.loads(report.read_text()).items():
        if became == "failed":
            outcome.failed[test] = text[-1500:]
        else:
            (outcome.passed if became == "passed" else outcome.skipped).append(test)
    report.unlink()
    return outcome


@pytest.mark.parametrize("driver", DRIVERS)
def test_what_passes_with_djangos_own_backend_passes_with_ours(
    driver: str, request: pytest.FixtureRequest
) -> None:
    if driver == "mysqlclient":
        pytest.importorskip("MySQLdb")
    server: Any = request.getfixturevalue(SERVERS[driver])
    source = source_of(f"django=={version('django')}")
    kind = "postgresql" if SERVERS[driver] == "postgresql" else "mysql"
    labels = list(WHOLE if IS_WHOLE else FAST)
    if IS_WHOLE and kind == "postgresql":
        labels.append("postgres_tests")
    engines = f"geventpool.django.{kind}", f"django.db.backends.{kind}"
    compare(source, driver, engines, server.url(driver), labels)


@pytest.mark.skipif(not IS_WHOLE, reason="in `make peers`")
@pytest.mark.skipif(find_library("gdal") is None, reason="GDAL is not installed")
@pytest.mark.parametrize("driver", GIS_ENGINES)
def test_what_passes_with_geodjangos_backend_passes_with_ours(
    driver: str, request: pytest.FixtureRequest
) -> None:
    server: Any = request.getfixturevalue(SERVERS[driver])
    source = source_of(f"django=={version('django')}")
    ours, theirs = GIS_ENGINES[driver]
    engines = f"geventpool.django.{ours}", f"django.contrib.gis.db.backends.{theirs}"
    compare(source, driver, engines, server.url(driver), GIS)


def compare(
    source: Path, driver: str, engines: tuple[str, str], url: str, labels: list[str]
) -> None:
    """Fails unless all that passes with Django's own backend passes with ours."""
    ours, theirs = (run_tests(source, driver, engine, url, labels) for engine in engines)
    here = {test: why for test, why in DJANGO.items() if test in theirs.passed}
    ours.check(theirs, here)
    print(f"{driver}: {len(ours.passed)} of {len(theirs.passed)} that pass with Django's own")
