"""One budget for the workers of a host, as a real server counts their connections."""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gevent
import pymysql
import pytest
from gevent.lock import RLock
from gevent.subprocess import PIPE, Popen

from tools.servers import MariaDB

from .test_gunicorn import wait_for

ROOT = Path(__file__).resolve().parents[2]
SIZE, WORKERS = 20, 6


class Workers:
    """Those of `fleet_program`."""

    def __init__(self, url: str, directory: Path) -> None:
        self.process = Popen(
            [sys.executable, "-m", "tests.integration.fleet_program", url, directory, str(SIZE)],
            cwd=ROOT,
            stdin=PIPE,
            stdout=PIPE,
            bufsize=0,
        )
        self.directory = directory
        self.pids: list[int] = []
        self._rest = b""
        assert self.answer() == ["ready"]

    def tell(self, *what: Any) -> None:
        self.process.stdin.write((" ".join(map(str, what)) + "\n").encode())

    def answer(self) -> list[str]:
        while b"\n" not in self._rest:
            more = self.process.stdout.read(4096)
            assert more, "the program has ended"
            self._rest += more
        line, _, self._rest = self._rest.partition(b"\n")
        return line.decode().split(maxsplit=1)

    def ask(self, *what: Any) -> str:
        self.tell(*what)
        return self.answer()[1]

    def fork(self) -> int:
        self.pids.append(int(self.ask("fork")))
        return self.pids[-1]

    def kill(self, pid: int) -> None:
        self.pids.remove(pid)
        assert self.ask("kill", pid) == str(pid)

    def stats(self, pid: int) -> dict[str, Any]:
        told: dict[str, Any] = json.loads(self.ask(pid, "stats"))
        return told

    def borrow(self, pid: int, number: int) -> int:
        return int(self.ask(pid, "borrow", number).split()[1])

    def end(self) -> None:
        for pid in list(self.pids):
            self.kill(pid)
        self.process.stdin.close()
        self.process.wait(10)
        self.process.stdout.close()


class Count:
    """How many connections the server has, but for the one that asks: always, and the most so far."""

    def __init__(self, server: MariaDB) -> None:
        self._connection = pymysql.connect(
            host=server.host, port=server.port, user=server.user, password=server.password
        )
        self._one_by_one = RLock()
        self.most = 0
        self.samples = 0
        self.goes_on = True
        self._sampler = gevent.spawn(self._sample)

    def now(self) -> int:
        with self._one_by_one, self._connection.cursor() as cursor:
            cursor.execute("show status like 'Threads_connected'")
            found = int(cursor.fetchone()[1]) - 1
        self.most = max(self.most, found)
        return found

    def _sample(self) -> None:
        while self.goes_on:
            self.now()
            self.samples += 1
            gevent.sleep(0.02)

    def end(self) -> None:
        self.goes_on = False
        self._sampler.join(5)
        self._connection.close()


@pytest.fixture(scope="module")
def server(mariadb: Any) -> Iterator[MariaDB]:
    """One that allows five more than the fleet; `mariadb` sees to it that there can be one."""
    with MariaDB(max_connections=SIZE + 5) as server:
        yield server


@pytest.fixture
def workers(server: MariaDB, tmp_path: Path) -> Iterator[Workers]:
    workers = Workers(server.url("pymysql"), tmp_path / "fleets")
    yield workers
    workers.end()


@pytest.fixture
def count(server: MariaDB) -> Iterator[Count]:
    count = Count(server)
    yield count
    count.end()


def test_killed_workers_and_failed_connects_cost_no_permit_and_the_server_sees_none_too_many(
    server: MariaDB, workers: Workers, count: Count
) -> None:
    for _ in range(WORKERS):
        workers.tell(workers.fork(), "load", 6, 0.05)
    for _ in range(15):
        gevent.sleep(0.3)
        workers.kill(random.choice(workers.pids))
        workers.tell(workers.fork(), "load", 6, 0.05)
    # Who has asked for nothing yet is no member.
    wait_for(lambda: all(workers.stats(pid)["served"] for pid in workers.pids))
    told = [workers.stats(pid) for pid in workers.pids]
    for pid in workers.pids:
        workers.tell(pid, "load", 0, 0)
    assert [one["errors"] for one in told] == [[]] * WORKERS
    for pid in workers.pids[:2]:
        assert workers.borrow(pid, SIZE) == SIZE, "nothing is lost"
        assert count.now() == SIZE
        workers.tell(pid, "return")
    assert count.most == SIZE
    assert count.samples > 50
    (fleet,) = workers.directory.iterdir()
    assert len(list(fleet.iterdir())) == WORKERS + 1, "the sockets of dead members are removed"
    assert "Too many connections" not in server.log.read_text()


def test_all_that_a_killed_worker_had_is_free_although_its_child_lives(
    workers: Workers, count: Count
) -> None:
    first, second = workers.fork(), workers.fork()
    assert workers.borrow(first, SIZE) == SIZE
    workers.tell(first, "fork")
    assert workers.answer()[0] == "forked"
    workers.kill(first)
    assert workers.borrow(second, SIZE) == SIZE
    assert count.now() == SIZE  # which the sampler may not have seen yet
    assert count.most == SIZE


def test_an_idle_worker_gives_one_connection_to_a_worker_that_needs_one(
    workers: Workers, count: Count
) -> None:
    first, second = workers.fork(), workers.fork()
    assert workers.borrow(first, SIZE) == SIZE
    assert count.now() == SIZE
    workers.tell(first, "return")
    wait_for(lambda: workers.stats(first)["in_use"] == 0)
    assert workers.borrow(second, 1) == 1
    assert workers.stats(first)["closed"] == 1
    assert workers.stats(second)["opened"] == 1
    assert count.most == SIZE
