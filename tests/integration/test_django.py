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
FOLDER = Path(__file__).with_name("django_cases")
# Those under fire take a while, and have a process each.
FIRE = ("case_garbage", "case_kill_sweep", "case_torture")
USE = tuple(sorted({path.stem for path in FOLDER.glob("case_*.py")} - set(FIRE)))
GROUPS = [
    (driver, cases)
    for driver in SERVERS
    for cases in ((USE,) if driver == "mysqlclient" else (USE, *((case,) for case in FIRE)))
    if os.environ.get("GEVENTPOOL_STRESS")
    or cases == USE
    or driver == "psycopg"
    or (driver, cases) == ("pymysql", ("case_kill_sweep",))
]
BLOCKED = "case_session"  # needs the hub while a query runs


@pytest.mark.parametrize(
    ("driver", "cases"),
    GROUPS,
    ids=[f"{driver}-{'use' if cases == USE else cases[0]}" for driver, cases in GROUPS],
)
def test_the_cases_of_django_hold(
    driver: str, cases: tuple[str, ...], request: pytest.FixtureRequest
) -> None:
    if driver == "mysqlclient":
        pytest.importorskip("MySQLdb")
        cases = tuple(case for case in cases if case != BLOCKED)
    server: Any = request.getfixturevalue(SERVERS[driver])
    environment = {
        **os.environ,
        "GEVENTPOOL_DJANGO_DRIVER": driver,
        "GEVENTPOOL_DJANGO_URL": server.url(driver),
        VARIABLES[SERVERS[driver]]: server.url(driver),  # for what brings tables of its own
    }
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    command += ["-W", "ignore::geventpool.errors.BlockingDriverWarning"]
    command += ["-o", "python_files=case_*.py", *(str(FOLDER / f"{case}.py") for case in cases)]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, f"{done.stdout[-8000:]}\n{done.stderr[-2000:]}"
    assert " passed" in done.stdout
