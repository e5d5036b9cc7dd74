"""A real uWSGI with its gevent loop: it forks in C, after the master has loaded the application."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

from .test_gunicorn import count_connections, wait_for

UWSGI = Path(sys.executable).with_name("uwsgi")
ROOT = Path(__file__).resolve().parents[2]
WORKERS = 2

pytestmark = pytest.mark.skipif(
    not UWSGI.exists(), reason="NOT RUN: uWSGI is not installed, it needs gcc and Python's headers"
)

RUNNING = {
    "mysql": "select count(*) from information_schema.processlist where state = 'User sleep'",
    "postgresql": "select count(*) from pg_stat_activity where wait_event = 'PgSleep'",
}

APP = """
from gevent import monkey; monkey.patch_all()
import json, os
import gevent
from sqlalchemy import create_engine, text
from sqlalchemy.pool import QueuePool
from geventpool import ConnectionPool
from geventpool.sqlalchemy import GeventPool
from geventpool.uwsgi import drain_at_exit
from tests.integration.dbapi import open_connection, run

url, door = os.environ["DATABASE_URL"], os.environ["DOOR"]
driver = url.partition("+")[2].partition(":")[0]
who = "connection_id()" if driver == "pymysql" else "pg_backend_pid()"
sleep = "sleep" if driver == "pymysql" else "pg_sleep"

if door == "raw":
    pool = ConnectionPool(lambda: open_connection(driver, url), max_size=3)
else:
    kind = GeventPool if door == "engine" else QueuePool
    engine = create_engine(url, poolclass=kind, pool_size=3, max_overflow=0)

def ask(question):
    if door == "raw":
        with pool.connection() as connection:
            return list(run(connection, question)[0])
    with engine.connect() as connection:
        return list(connection.execute(text(question)).one())

masters = ask(f"select {who}")[0]
drain_at_exit(20)

def application(environ, start_response):
    token, seconds = environ["QUERY_STRING"].split("&")
    own, answer, _ = ask(f"select {who}, {token}, {sleep}({seconds})")
    told = {"worker": os.getpid(), "connection": own, "answer": answer, "masters": masters}
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(told).encode()]
"""


class Served:
    """A running uWSGI."""

    def __init__(self, ports: list[int], process: subprocess.Popen[bytes], log: Path) -> None:
        self.ports = ports
        self.process = process
        self.log = log

    def ask(self, worker: int, token: int, seconds: float = 0.0) -> dict[str, Any]:
        """What a worker answers to a request that the database sleeps for."""
        address = f"http://127.0.0.1:{self.ports[worker]}/?{token}&{seconds}"
        with urllib.request.urlopen(address, timeout=60) as response:
            told: dict[str, Any] = json.load(response)
        return told


@contextmanager
def uwsgi(url: str, folder: Path, door: str, *options: str) -> Iterator[Served]:
    """uWSGI with the application above. Each worker listens to a socket of its own."""
    folder.joinpath("app_under_uwsgi.py").write_text(APP)
    log = folder / "uwsgi.log"
    with ExitStack() as stack:
        ports = []
        command = [str(UWSGI), "--gevent", "20", "--master", "--processes", str(WORKERS)]
        for number in range(WORKERS):
            listening = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            listening.set_inheritable(True)
            ports.append(listening.getsockname()[1])
            command += ["--http-socket", f"fd://{listening.fileno()}"]
            command += ["--map-socket", f"{number}:{number + 1}"]
        command += ["--enable-threads", "--need-app", "--die-on-term", "--disable-logging"]
        command += ["--virtualenv", sys.prefix, "--pythonpath", str(folder)]
        command += ["--module", "app_under_uwsgi", *options]
        process = subprocess.Popen(
            command,
            env={**os.environ, "PYTHONPATH": str(ROOT), "DATABASE_URL": url, "DOOR": door},
            stdin=subprocess.DEVNULL,
            stdout=stack.enter_context(log.open("wb")),
            stderr=subprocess.STDOUT,
            close_fds=False,
        )
        try:
            wait_for(lambda: log.read_text().count("spawned uWSGI worker ") == WORKERS, 60)
            yield Served(ports, process, log)
        except BaseException:
            print(log.read_text())
            raise
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
            try:
                process.wait(60)
            finally:
                process.kill()


@pytest.fixture(params=["pymysql", "psycopg"])
def url(request: pytest.FixtureRequest) -> str:
    """A database, by each driver."""
    server = "mariadb" if request.param == "pymysql" else "postgresql"
    address: str = request.getfixturevalue(server).url(request.param)
    return address


def count_running(url: str) -> int:
    """How many queries of the application sleep on the server."""
    engine = create_engine(url, poolclass=NullPool)
    with engine.connect() as connection:
        return int(connection.scalar(text(RUNNING[engine.dialect.name])) or 0)


@pytest.mark.parametrize(
    ("door", "options"),
    [
        ("engine", []),
        ("raw", []),
        ("raw", ["--py-call-osafterfork"]),
        ("engine", ["--py-call-uwsgi-fork-hooks"]),
        ("raw", ["--lazy-apps"]),
        ("engine", ["--lazy-apps", "--py-call-osafterfork"]),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value) or "plain",
)
def test_each_client_of_each_worker_gets_its_own_answer_on_the_workers_own_connection(
    url: str, tmp_path: Path, door: str, options: list[str]
) -> None:
    with uwsgi(url, tmp_path, door, *options) as served, ThreadPoolExecutor(12) as threads:
        asked = range(1000, 1120)
        told = list(threads.map(lambda token: served.ask(token % WORKERS, token, 0.01), asked))
    assert [one["answer"] for one in told] == list(asked)
    used = {(one["worker"], one["connection"]) for one in told}
    connections = [connection for _, connection in used]
    assert len({worker for worker, _ in used}) == WORKERS
    assert len(set(connections)) == len(connections), "no two workers use the same"
    if "--lazy-apps" not in options:
        assert told[0]["masters"] not in connections
    # With some options gevent itself says there that it was not told before the fork.
    assert str(ROOT / "geventpool") not in served.log.read_text()


def test_workers_with_a_queue_pool_use_their_masters_connection_all_of_them(
    url: str, tmp_path: Path
) -> None:
    with uwsgi(url, tmp_path, "QueuePool") as served:
        told = [served.ask(worker, 1000 + worker) for worker in range(WORKERS)]
    assert len({one["worker"] for one in told}) == WORKERS
    assert {one["connection"] for one in told} == {told[0]["masters"]}


def test_a_worker_that_is_stopped_ends_its_queries_and_then_closes_its_connections(
    url: str, tmp_path: Path
) -> None:
    before = count_connections(url)
    with uwsgi(url, tmp_path, "engine") as served, ThreadPoolExecutor(WORKERS) as threads:
        idle = [served.ask(worker, worker) for worker in range(WORKERS)]
        running = [threads.submit(served.ask, worker, 7, 1.0) for worker in range(WORKERS)]
        wait_for(lambda: count_running(url) == WORKERS)
        served.process.send_signal(signal.SIGINT)
        answers = [future.result()["answer"] for future in running]
        assert served.process.wait(60) == 0
    assert answers == [7] * WORKERS
    assert len({one["worker"] for one in idle}) == WORKERS
    assert wait_for(lambda: count_connections(url) <= before)
    log = served.log.read_text()
    assert "Traceback" not in log
    assert "closing with connections in use" not in log
