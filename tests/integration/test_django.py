"""The Django backends on real servers, with each driver.

Django has one set of settings and one driver for each process, so the cases, `django_cases/case_*.py`, run
in processes of their own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SERVERS = {"psycopg": "postgresql", "psycopg2": "postgresql", "pymysql": "mariadb"}
SERVERS["mysqlclient"] = "mariadb"
VARIABLES = {
    "mariadb": "GEVENTPOOL_TEST_MYSQL_URL",
    "postgresql": "GEVENTPOOL_TEST_POSTGRESQL_URL",
}
CASES = sorted(path.stem for path in Path(__file__).with_name("django_cases").glob("case_*.py"))


@pytest.mark.parametrize("cases", CASES)
@pytest.mark.parametrize("driver", SERVERS)
def test_the_cases_of_django_hold(driver: str, cases: str, request: pytest.FixtureRequest) -> None:
    if driver == "mysqlclient":
        pytest.importorskip("MySQLdb")
        if cases in ("case_session", "case_kill_sweep"):
            pytest.skip("it blocks the hub, in which the wire and the kills have to run")
    server: Any = request.getfixturevalue(SERVERS[driver])
    environment = {
        **os.environ,
        "GEVENTPOOL_DJANGO_DRIVER": driver,
        "GEVENTPOOL_DJANGO_URL": server.url(driver),
        VARIABLES[SERVERS[driver]]: server.url(driver),  # for what brings tables of its own
    }
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    command += ["-W", "ignore::geventpool.errors.BlockingDriverWarning"]
    command += ["-o", "python_files=case_*.py", f"tests/integration/django_cases/{cases}.py"]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, f"{done.stdout[-8000:]}\n{done.stderr[-2000:]}"
    assert " passed" in done.stdout
