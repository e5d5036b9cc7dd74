"""Each example does what it says, on each server."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
IS_WHOLE = bool(os.environ.get("GEVENTPOOL_STRESS"))
BLOCKING = "BlockingDriverWarning: sqlite3 blocks the gevent hub"

SAYS = {
    "raw_dbapi.py": r"^100 greenlets, sum 9900: <pool \(max 5, .*timeouts$",
    "sqlalchemy_core.py": r"^100 visits: .* in use 0, .* 0 timeouts$",
    "orm_session.py": r"^100 customers: .* in use 0, .* 0 timeouts$",
    "flask_extension.py": r"^50 requests, sum 1225\ndefault: .*\nreports: .* 0 timeouts$",
    "several_engines.py": r"^100 orders, 100 entries\n(<audit \(max 3, .*\n?|<\w+ \(max 20, .*\n?){2}$",
    "plain_script.py": r"^2470 Pool size: 20  Connections in pool: 1 .*\n328350 .* 0 timeouts$",
}


def run(script: str, folder: Path, url: str | None) -> subprocess.CompletedProcess[str]:
    """The example, as a user starts it, in a folder of its own."""
    environ = {name: value for name, value in os.environ.items() if name != "DATABASE_URL"}
    if url is not None:
        environ["DATABASE_URL"] = url
    return subprocess.run(
        [sys.executable, "-X", "dev", str(EXAMPLES / script)],
        cwd=folder,
        env=environ,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


EVERY = [
    (script, server, driver)
    for script in SAYS
    for server, driver in (("mariadb", "pymysql"), ("postgresql", "psycopg"), (None, "sqlite3"))
]
# Each once, and on the others those in which they make a difference.
SHORT = [case for case in EVERY if case[1] == "mariadb"] + [
    ("raw_dbapi.py", "postgresql", "psycopg"),
    ("several_engines.py", "postgresql", "psycopg"),
    ("raw_dbapi.py", None, "sqlite3"),
    ("several_engines.py", None, "sqlite3"),
    ("plain_script.py", None, "sqlite3"),
]


@pytest.mark.parametrize(("script", "server", "driver"), EVERY if IS_WHOLE else SHORT)
def test_an_example_runs_and_says_what_its_pool_did(
    script: str, server: str | None, driver: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url = None if server is None else request.getfixturevalue(server).url(driver)
    done = run(script, tmp_path, url)
    if script == "several_engines.py" and server is None:
        assert done.returncode == 1
        assert "This one wants a server" in done.stderr
        return
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(SAYS[script], done.stdout.strip()), done.stdout
    if server is not None:
        assert done.stderr == ""
    elif script != "plain_script.py":
        assert BLOCKING in done.stderr


def test_every_example_of_one_file_is_run_here() -> None:
    found = {path.name for path in EXAMPLES.glob("*.py")}
    assert found == {*SAYS, "celery_gevent.py", "demo.py"}


def test_celery_with_the_gevent_pool_runs_its_tasks_on_one_pool(
    mariadb: Any, tmp_path: Path
) -> None:
    environ = {**os.environ, "DATABASE_URL": mariadb.url("pymysql"), "CELERY_FOLDER": str(tmp_path)}
    environ.pop("CELERY_BROKER_URL", None)
    command = [sys.executable, "-m", "celery", "-A", "celery_gevent", "worker"]
    command += ["--pool", "gevent", "--concurrency", "50", "--loglevel", "WARNING"]
    log = tmp_path / "log"
    with log.open("w") as output:
        worker = subprocess.Popen(
            command, cwd=EXAMPLES, env=environ, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        done = subprocess.run(
            [sys.executable, "celery_gevent.py"],
            cwd=EXAMPLES,
            env=environ,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
    finally:
        worker.terminate()
        worker.wait(30)
    assert done.returncode == 0, done.stdout + done.stderr + log.read_text()
    assert "100 tasks, sum 9900" in done.stdout
    assert re.search(r"<mysql \(max 20, .* in use 0, .* 100 checkouts, .* 0 timeouts", done.stdout)
    assert "Traceback" not in log.read_text()


def test_the_compose_file_is_valid() -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"),
            str(EXAMPLES / "docker-compose.yml"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
