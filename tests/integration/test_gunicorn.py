"""The hooks under a real gunicorn with gevent workers, on real databases."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.engine import Engine
from sqlalchemy.pool import NullPool

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
sys.path.insert(0, str(EXAMPLES))

from demo_support.server import Server, add_up, gunicorn, read_stats  # noqa: E402

# Counts the connections of the database that the application uses, but for the one that asks.
COUNT = {
    "mysql": "SELECT count(*) FROM information_schema.processlist"
    " WHERE db = database() AND id <> connection_id()",
    "postgresql": "SELECT count(*) FROM pg_stat_activity"
    " WHERE datname = current_database() AND pid <> pg_backend_pid()",
}


@pytest.fixture(
    params=[("mariadb", "pymysql"), ("postgresql", "psycopg"), ("postgresql", "psycopg2")],
    ids=lambda param: param[1],
)
def url(request: pytest.FixtureRequest) -> str:
    """A database on each server, by each driver."""
    server, driver = request.param
    address: str = request.getfixturevalue(server).url(driver)
    return address


def count_connections(url: str) -> int:
    """How many other connections the server has for this database."""
    engine = create_engine(url, poolclass=NullPool)
    with engine.connect() as connection:
        return int(connection.scalar(text(COUNT[engine.dialect.name])) or 0)


def wait_for(condition: Callable[[], Any], seconds: float = 60.0) -> Any:
    """The condition's first true value."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.05)
    return value


def get(address: str) -> Any:
    """The JSON answer of a GET request."""
    with urllib.request.urlopen(address, timeout=20) as response:
        return json.loads(response.read())


def statuses(address: str, paths: list[str], concurrency: int) -> Counter[int]:
    """The status codes of requests to all the paths."""

    def status(path: str) -> int:
        with urllib.request.urlopen(address + path, timeout=20) as response:
            return int(response.status)

    with ThreadPoolExecutor(concurrency) as threads:
        return Counter(threads.map(status, paths))


def test_a_worker_that_ends_fails_no_request_and_leaves_no_connection(
    url: str, tmp_path: Path
) -> None:
    before = count_connections(url)
    log = tmp_path / "gunicorn.log"
    with ThreadPoolExecutor(16) as threads:
        # Leaving it sends SIGTERM, and fails on a traceback or an exit code.
        with gunicorn(url, 2, tmp_path, log) as server:
            address = server.url
            paths = ["/orders", "/api/orders/1", "/bad/hold", "/reports/bought-together"] * 20
            assert statuses(address, paths, 16) == {200: 80}
            assert count_connections(url) > before
            running = [threads.submit(get, f"{address}/bad/hold") for _ in range(10)]
            wait_for(lambda: add_up(read_stats(tmp_path))["in_use"] > 0)
        answers = [future.result()["payment"] for future in running]
    assert answers == ["confirmed"] * 10
    assert "geventpool" not in log.read_text()
    assert wait_for(lambda: count_connections(url) <= before)


def test_many_writers_of_two_workers_share_a_sqlite_file(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'desk.sqlite3'}"

    def move(address: str, number: int) -> str:
        request = urllib.request.Request(
            f"{address}/api/orders/{number}",
            json.dumps({"status": "paid"}).encode(),
            {"Content-Type": "application/json"},
            method="PATCH",
        )
        with urllib.request.urlopen(request, timeout=20) as response:
            return str(json.loads(response.read())["status"])

    with gunicorn(url, 2, tmp_path, tmp_path / "gunicorn.log") as server:
        address = server.url
        orders = [row["id"] for page in (1, 2, 3) for row in _paid(address, page)]
        assert orders
        with ThreadPoolExecutor(16) as threads:
            numbers = orders * 6
            answers = list(threads.map(lambda number: move(address, number), numbers))
    assert Counter(answers) == {"paid": len(numbers)}


def _paid(address: str, page: int) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = get(f"{address}/api/orders?status=paid&page={page}")["orders"]
    return rows


TINY_APP = """
import json
import os

import gevent
from sqlalchemy import create_engine, text

from geventpool.sqlalchemy import GeventPool

engine = create_engine(os.environ["DATABASE_URL"], poolclass=GeventPool)
WHO = {
    "mysql": "SELECT connection_id()",
    "postgresql": "SELECT pg_backend_pid()",
    "sqlite": "SELECT 0",
}[engine.dialect.name]


def who():
    with engine.connect() as connection:
        return connection.scalar(text(WHO))


def hold(seconds):
    with engine.connect() as connection:
        connection.scalar(text(WHO))
        print("held", flush=True)
        gevent.sleep(seconds)
        print("the hold is over", flush=True)


opened_at_import = who()


def application(environ, start_response):
    if environ["PATH_INFO"].startswith("/hold/"):
        gevent.spawn(hold, float(environ["PATH_INFO"].removeprefix("/hold/")))
    start_response("200 OK", [("Content-Type", "application/json")])
    answer = {
        "pid": os.getpid(),
        "opened_at_import": opened_at_import,
        "connection": who(),
    }
    return [json.dumps(answer).encode()]
"""

PATCH = """
from gevent import monkey

monkey.patch_all()

from psycogreen.gevent import patch_psycopg

patch_psycopg()
"""

# Who waits for its end is killed before, by the end of the block, which fails then.
GRACE = 100

CONF = f"""
from geventpool.gunicorn import post_fork, worker_exit, worker_int

worker_class = "gevent"
wsgi_app = "tiny_app:application"
graceful_timeout = {GRACE}
control_socket_disable = True
"""


@contextmanager
def tiny_app(
    url: str, directory: Path, *, preload: bool = False, patch: bool = True
) -> Iterator[tuple[Server, Path]]:
    """An application that uses its pool when it is imported; gives its server and its log."""
    (directory / "tiny_app.py").write_text(TINY_APP)
    conf = directory / "gunicorn.conf.py"
    first = PATCH if patch else ""
    last = f"preload_app = {preload}\nchdir = {str(directory)!r}\n"
    conf.write_text(f"{first}{CONF}{last}")
    log = directory / "gunicorn.log"
    with gunicorn(url, 2, directory, log, conf=conf) as server:
        # gunicorn loses a signal to a worker that it has only just forked.
        answers_of_both(server.url)
        yield server, log


def answers_of_both(address: str) -> dict[int, dict[str, Any]]:
    """An answer of each worker, by process id."""
    found: dict[int, dict[str, Any]] = {}

    def ask() -> bool:
        answer = get(address)
        found[answer["pid"]] = answer
        return len(found) == 2

    wait_for(ask)
    return found


def is_connected(url: str, number: int) -> bool:
    """Whether the server still has this connection."""
    query = {
        "mysql": "SELECT count(*) FROM information_schema.processlist WHERE id = :number",
        "postgresql": "SELECT count(*) FROM pg_stat_activity WHERE pid = :number",
    }
    engine: Engine = create_engine(url, poolclass=NullPool)
    with engine.connect() as connection:
        return bool(connection.scalar(text(query[engine.dialect.name]), {"number": number}))


def is_running(pid: int) -> bool:
    """Whether the process is still there."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_workers_of_a_preloaded_application_leave_the_masters_connection_alone(
    url: str, tmp_path: Path
) -> None:
    with tiny_app(url, tmp_path, preload=True) as (server, log):
        address = server.url
        answers = answers_of_both(address)
        parents = {answer["opened_at_import"] for answer in answers.values()}
        assert len(parents) == 1
        parent = parents.pop()
        used = [answer["connection"] for answer in answers.values()]
        assert len({parent, *used}) == 3
        server.process.send_signal(signal.SIGTTOU)  # one worker ends and closes its pools
        wait_for(lambda: sum(map(is_running, answers)) == 1)
        wait_for(lambda: sum(is_connected(url, number) for number in used) == 1)
        assert is_connected(url, parent)
        assert get(address)["connection"] in used
    assert "geventpool" not in log.read_text()


def test_a_connection_held_by_a_background_greenlet_is_waited_for(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'held.sqlite3'}"
    with tiny_app(url, tmp_path) as (server, log):
        address = server.url
        get(f"{address}/hold/2.5")
        wait_for(lambda: "held" in log.read_text())
    assert "the hold is over" in log.read_text()
    assert "closing with connections in use" not in log.read_text()


def test_the_wait_for_a_connection_has_an_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GEVENTPOOL_DRAIN_TIMEOUT", "0.5")
    url = f"sqlite:///{tmp_path / 'held.sqlite3'}"
    with tiny_app(url, tmp_path) as (server, log):
        address = server.url
        get(f"{address}/hold/600")
        wait_for(lambda: "held" in log.read_text())
    assert "the hold is over" not in log.read_text()
    assert log.read_text().count("closing with connections in use") == 1


def test_a_quick_shutdown_does_not_use_up_the_grace_time(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'held.sqlite3'}"
    with tiny_app(url, tmp_path) as (server, log):
        get(f"{server.url}/hold/600")
        wait_for(lambda: "held" in log.read_text())
        server.process.send_signal(signal.SIGQUIT)
        server.process.wait(GRACE / 2)
    assert "the hold is over" not in log.read_text()
    assert log.read_text().count("closing with connections in use") == 1


def test_a_preloaded_application_without_patches_is_warned_about(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'desk.sqlite3'}"
    with tiny_app(url, tmp_path, preload=True, patch=False) as (_, log):
        pass
    assert log.read_text().count("geventpool: preload_app loads the application before") == 1
