"""Each example does what it says, on each server."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from .dbapi import eventually, open_connection
from .dbapi import run as run_sql

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
IS_WHOLE = bool(os.environ.get("GEVENTPOOL_STRESS"))
PROGRAMS = ("celery_gevent.py", "locust_database.py", "socketio_gevent.py")
BLOCKING = "BlockingDriverWarning: sqlite3 blocks the gevent hub"

SAYS = {
    "raw_dbapi.py": r"^100 greenlets, sum 9900: <pool \(max 5, .*timeouts$",
    "sqlalchemy_core.py": r"^100 visits: .* in use 0, .* 0 timeouts$",
    "orm_session.py": r"^100 customers: .* in use 0, .* 0 timeouts$",
    "flask_extension.py": r"^50 requests, sum 1225\ndefault: .*\nreports: .* 0 timeouts$",
    "several_engines.py": r"^100 orders, 100 entries\n(<audit \(max 3, .*\n?|<\w+ \(max 20, .*\n?){2}$",
    "pandas_frames.py": r"^1000 rows, sum 499500\n.* in use 0, .* 0 timeouts$",
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
    assert found == {*SAYS, *PROGRAMS, "demo.py"}


@pytest.mark.parametrize("pool", ["gevent", "prefork"])
def test_celery_runs_its_tasks_on_one_pool_for_each_process(
    mariadb: Any, tmp_path: Path, pool: str
) -> None:
    concurrency = {"gevent": "50", "prefork": "2"}[pool]
    environ = {**os.environ, "DATABASE_URL": mariadb.url("pymysql"), "CELERY_FOLDER": str(tmp_path)}
    environ.pop("CELERY_BROKER_URL", None)
    command = [sys.executable, "-m", "celery", "-A", "celery_gevent", "worker"]
    command += ["--pool", pool, "--concurrency", concurrency, "--loglevel", "WARNING"]
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
    of_all = "100" if pool == "gevent" else r"\d+"
    said = rf"<mysql \(max 20, .* in use 0, .* {of_all} checkouts, .* 0 timeouts"
    assert re.search(said, done.stdout), done.stdout
    assert "Traceback" not in log.read_text()


def test_locust_puts_a_load_on_a_database_through_one_pool(mariadb: Any, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "locust", "-f", str(EXAMPLES / "locust_database.py")]
    command += ["--headless", "--users", "50", "--spawn-rate", "50", "--only-summary"]
    with contextlib.closing(open_connection("pymysql", mariadb.url("pymysql"))) as observer:

        def selects() -> int:
            ((_, count),) = run_sql(observer, "show global status like 'Com_select'")
            return int(count)

        before = selects()
        locust = subprocess.Popen(
            command,
            cwd=tmp_path,
            env={**os.environ, "DATABASE_URL": mariadb.url("pymysql")},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        has_worked = eventually(lambda: selects() - before > 200)
        locust.terminate()
        said, _ = locust.communicate(timeout=60)
    assert has_worked, said
    assert locust.returncode == 0, said  # 1: a request has failed
    (checkouts,) = re.findall(r"<mysql \(max 10, .* (\d+) checkouts, .* 0 timeouts", said)
    assert int(checkouts) > 100


def test_socketios_clients_share_one_pool_under_gunicorn(mariadb: Any, tmp_path: Path) -> None:
    environ = {**os.environ, "DATABASE_URL": mariadb.url("pymysql")}
    command = [sys.executable, "-m", "gunicorn"]
    log = tmp_path / "log"
    with log.open("w") as output:
        server = subprocess.Popen(
            [*command, "-k", "gevent", "-b", "127.0.0.1:0", "socketio_gevent:app"],
            cwd=EXAMPLES,
            env=environ,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        listens = re.compile(r"Listening at: (http://\S+)")
        assert eventually(lambda: listens.search(log.read_text())), log.read_text()
        url = listens.findall(log.read_text())[0]
        done = subprocess.run(
            [sys.executable, str(EXAMPLES / "socketio_gevent.py"), url],
            env=environ,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        with urllib.request.urlopen(f"{url}/pool", timeout=20) as answer:
            status = answer.read().decode()
    finally:
        server.terminate()
        server.wait(60)
    assert done.returncode == 0, done.stdout + done.stderr + log.read_text()
    assert done.stdout == "100 messages, sum 400\n"
    assert re.search(r"<mysql \(max 5, .* in use 0, .* 100 checkouts, .* 0 timeouts", status)
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
