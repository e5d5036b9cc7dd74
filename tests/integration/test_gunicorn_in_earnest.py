"""Four workers under load, while gunicorn recycles, reloads and ends them: the pool fails no request."""

from __future__ import annotations

import http.client
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import gevent
import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

from examples.demo_support.server import Server, gunicorn, read_stats

from .test_gunicorn import COUNT, wait_for

ROOT = Path(__file__).resolve().parents[2]
IS_WHOLE = bool(os.environ.get("GEVENTPOOL_STRESS"))
SECONDS = 20.0 if IS_WHOLE else 3.0
RELOADS = 2 if IS_WHOLE else 1
WORKERS, CLIENTS = 4, 24
PATHS = ("/orders?page=2", "/orders/7", "/customers/5", "/api/orders?status=paid", "/bad/hold")

EVERY = [
    (preload, server, driver)
    for preload in (False, True)
    for server, driver in (
        ("mariadb", "pymysql"),
        ("postgresql", "psycopg"),
        ("postgresql", "psycopg2"),
    )
]


def on(preload: bool, server: str, driver: str) -> pytest.MarkDecorator:
    """Parametrizes with all cases, or with just this one."""
    cases = EVERY if IS_WHOLE else [(preload, server, driver)]
    return pytest.mark.parametrize(
        "case",
        cases,
        indirect=True,
        ids=[f"{one[2]}-{'preloaded' if one[0] else 'loaded by each worker'}" for one in cases],
    )


CONF = """
from gevent import monkey

{patch}

import runpy

globals().update(runpy.run_path({example!r}))
preload_app = {preload}
max_requests = {max_requests}
max_requests_jitter = {max_requests} // 4
"""


@dataclass
class Clients:
    """Send requests all the time, each on a connection of its own.

    Attributes:
        address: of the server.
        statuses: how often there was each.
        broken: requests without an answer, with the time at which they failed.
        refused: connects that nobody took.
    """

    address: str
    statuses: Counter[int] = field(default_factory=Counter)
    broken: list[tuple[float, str]] = field(default_factory=list)
    refused: int = 0
    goes_on: bool = True

    def _run(self, number: int) -> None:
        rng = random.Random(number)
        where = urlsplit(self.address)
        while self.goes_on:
            client = http.client.HTTPConnection(where.hostname or "", where.port, timeout=20)
            try:
                client.request("GET", rng.choice(PATHS), headers={"Connection": "close"})
                answer = client.getresponse()
                answer.read()
                self.statuses[answer.status] += 1
            except ConnectionRefusedError:
                self.refused += 1
                gevent.sleep(0.1)
            except (OSError, http.client.HTTPException) as error:
                self.broken.append((time.monotonic(), repr(error)))
            finally:
                client.close()
            gevent.sleep(rng.expovariate(1 / 0.1))

    @contextmanager
    def running(self) -> Iterator[Clients]:
        """Until the end of the block, and the last answer."""
        greenlets = [gevent.spawn(self._run, number) for number in range(CLIENTS)]
        try:
            yield self
        finally:
            self.goes_on = False
            assert len(gevent.joinall(greenlets, timeout=30)) == CLIENTS


@pytest.fixture
def case(request: pytest.FixtureRequest) -> tuple[bool, str]:
    """Is the application preloaded, and its database."""
    preload, server, driver = request.param
    return preload, request.getfixturevalue(server).url(driver)


@contextmanager
def order_desk(case: tuple[bool, str], folder: Path, max_requests: int = 0) -> Iterator[Server]:
    """The example under gunicorn; at the end of the block it ends in good order, and says nothing."""
    preload, url = case
    conf = folder / "gunicorn.conf.py"
    conf.write_text(
        CONF.format(
            example=str(ROOT / "examples" / "flask_app" / "gunicorn.conf.py"),
            # A preloaded application must not be loaded before the patches.
            patch="monkey.patch_all()" if preload else "",
            preload=preload,
            max_requests=max_requests,
        )
    )
    before = connections(url)
    with gunicorn(url, WORKERS, folder, folder / "log", conf) as server:
        wait_for(lambda: len(workers_of(server)) == WORKERS)
        yield server
    assert wait_for(lambda: connections(url) <= before)
    assert "geventpool" not in (folder / "log").read_text()


def workers_of(server: Server) -> set[int]:
    """The numbers of the worker processes."""
    pid = server.process.pid
    return set(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


def connections(url: str) -> int:
    """How many the server has for this database, but for the one that asks."""
    engine = create_engine(url, poolclass=NullPool)
    with engine.connect() as connection:
        return int(connection.scalar(text(COUNT[engine.dialect.name])) or 0)


def all_served(clients: Clients) -> None:
    """Asserts that each request was answered, and well."""
    assert set(clients.statuses) == {200}, clients.statuses
    assert clients.statuses[200] > 10 * SECONDS
    assert (clients.broken, clients.refused) == ([], 0)


@on(True, "postgresql", "psycopg")
def test_recycled_workers_fail_no_request_and_leave_no_connection(
    case: Any, tmp_path: Path
) -> None:
    with order_desk(case, tmp_path, max_requests=30) as server:
        with Clients(server.url).running() as clients:
            gevent.sleep(SECONDS)
            # Each worker writes down its figures once it serves, and most are gone by now.
            wait_for(lambda: len(read_stats(tmp_path)) >= 2 * WORKERS, 60.0)
        most = WORKERS * 20  # what so many pools may hold; those that have ended hold nothing
        assert connections(case[1]) <= most
    all_served(clients)


@on(False, "mariadb", "pymysql")
def test_a_reload_under_load_fails_no_request_and_leaves_no_connection(
    case: Any, tmp_path: Path
) -> None:
    with order_desk(case, tmp_path) as server:
        with Clients(server.url).running() as clients:
            for _ in range(RELOADS):
                before = workers_of(server)
                gevent.sleep(SECONDS / 3)
                server.process.send_signal(signal.SIGHUP)
                wait_for(lambda before=before: not before & workers_of(server), 30.0)  # type: ignore[misc]
            gevent.sleep(SECONDS / 3)
    all_served(clients)


@on(True, "mariadb", "pymysql")
def test_an_end_under_load_answers_what_has_begun_and_leaves_no_connection(
    case: Any, tmp_path: Path
) -> None:
    with order_desk(case, tmp_path) as server:
        with Clients(server.url).running() as clients:
            gevent.sleep(SECONDS)
            server.process.send_signal(signal.SIGTERM)
            assert server.process.wait(20) == 0
    assert set(clients.statuses) == {200}, clients.statuses
    assert clients.refused  # nobody listens any more
    # A connection that gunicorn accepts and then closes unread is no request that anybody began.
    assert len(clients.broken) <= CLIENTS
