"""The order desk in Django: its own tests, its commands, and gunicorn with kills and a restart."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import NullPool, create_engine, make_url, text
from sqlalchemy.exc import OperationalError

from .test_gunicorn import EXAMPLES, count_connections, get, gunicorn, wait_for

APP = EXAMPLES / "django_app"
SERVERS = {"psycopg": "postgresql", "psycopg2": "postgresql", "pymysql": "mariadb"}
NAME = "geventpool_desk"
CLIENTS = 6


@pytest.fixture(params=SERVERS)
def server_and_url(request: pytest.FixtureRequest) -> Iterator[tuple[Any, str]]:
    """A server, and a new database there."""
    server = request.getfixturevalue(SERVERS[request.param])
    administer(server.url(request.param), f"drop database if exists {NAME}")
    administer(server.url(request.param), f"create database {NAME}")
    yield server, server.url(request.param, NAME)
    force = "" if SERVERS[request.param] == "mariadb" else " with (force)"
    administer(server.url(request.param), f"drop database {NAME}{force}")


def administer(url: str, sql: str) -> list[Any]:
    engine = create_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        result = connection.execute(text(sql))
        return list(result.scalars()) if result.returns_rows else []


def databases(url: str) -> set[str]:
    mysql = make_url(url).get_backend_name() == "mysql"
    listing = "show databases" if mysql else "select datname from pg_database"
    return {name for name in administer(url, listing) if NAME in name}


def manage(url: str, *arguments: str, **variables: str) -> str:
    """What a command of `manage.py` prints."""
    done = run_manage(url, *arguments, **variables)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def run_manage(url: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=APP,
        env={**os.environ, "DATABASE_URL": url, "PYTHONWARNINGS": "ignore", **variables},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_the_test_databases_are_made_cloned_kept_and_dropped(
    server_and_url: tuple[Any, str],
) -> None:
    _, url = server_and_url
    test = ("test", "--noinput")
    assert "OK" in manage(url, *test)
    assert databases(url) == {NAME}
    assert "OK" in manage(url, *test, "--parallel=2", "--keepdb")
    assert databases(url) == {NAME, f"test_{NAME}", f"test_{NAME}_1", f"test_{NAME}_2"}
    assert "OK" in manage(url, *test, "--parallel=2", "--keepdb")
    assert "OK" in manage(url, *test, "--parallel=2")
    assert databases(url) == {NAME}


def test_the_test_databases_of_a_patched_program_are_dropped(
    server_and_url: tuple[Any, str],
) -> None:
    _, url = server_and_url
    program = (
        "from gevent import monkey; monkey.patch_all()\n"
        "from psycogreen.gevent import patch_psycopg; patch_psycopg()\n"
        "import sys, runpy; sys.argv = ['manage.py', 'test', '--noinput']\n"
        "runpy.run_path('manage.py', run_name='__main__')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=APP,
        env={**os.environ, "DATABASE_URL": url, "PYTHONPATH": str(APP)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "OK" in done.stderr
    assert databases(url) == {NAME}


def test_the_commands_show_the_settings_and_the_server(server_and_url: tuple[Any, str]) -> None:
    _, url = server_and_url
    engine = create_engine(url, poolclass=NullPool)
    with engine.connect():
        lines = manage(url, "geventpool", "status").splitlines()
        assert lines[0].split()[:2] == ["alias", "max"]
        alias, most, sizing, *_ = lines[1].split()
        assert (alias, most, sizing) == ("default", "10", "adaptive")
        assert lines[1].split()[6] == "1"  # open: that of the engine
        looks = manage(url, "geventpool", "top", "--count=2", "--interval=0.1")
        assert looks.count("adaptive") == 2
    told = manage(url, "geventpool", "doctor")
    assert "nothing is wrong" in told
    assert "server.max_connections" in told
    nowhere = make_url(url).set(port=1).render_as_string(hide_password=False)
    done = run_manage(nowhere, "geventpool", "doctor")
    assert done.returncode == 2
    assert done.stdout.startswith("wrong     server.reached  default: cannot be reached")
    assert "no alias" in run_manage(url, "geventpool", "status", "--database=x").stderr


def test_the_check_adds_up_the_maxima_of_all_workers(server_and_url: tuple[Any, str]) -> None:
    _, url = server_and_url
    assert "no issues" in manage(url, "check", "--database=default")
    told = manage(url, "check", "--database=default", WEB_CONCURRENCY="50")
    assert "W005" in told
    assert "up to 500" in told


@dataclass(frozen=True)
class Answer:
    """Of one request."""

    began: float
    ended: float
    status: int


class Load:
    """Clients that ask all the time."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._goes_on = True
        self.answers: list[Answer] = []
        self._threads = [threading.Thread(target=self._ask) for _ in range(CLIENTS)]
        for thread in self._threads:
            thread.start()

    def _ask(self) -> None:
        paths = ["/orders", "/orders/1", "/health", "/orders/2/pay"]
        while self._goes_on:
            for path in paths:
                began = time.monotonic()
                try:
                    with urllib.request.urlopen(self._address + path, timeout=20) as answer:
                        answer.read()
                        status = answer.status
                except urllib.error.HTTPError as error:
                    status = error.code
                except OSError:
                    status = 0  # gunicorn's own: that is never right
                self.answers.append(Answer(began, time.monotonic(), status))

    def stop(self) -> list[Answer]:
        self._goes_on = False
        for thread in self._threads:
            thread.join(30)
        assert not any(thread.is_alive() for thread in self._threads), "a request hangs"
        return self.answers


def kill_all(url: str) -> None:
    """Ends all connections to the desk's database, but its own, and sees that they are gone."""
    if make_url(url).get_backend_name() == "mysql":
        theirs = (
            "select id from information_schema.processlist"
            f" where db = '{NAME}' and id <> connection_id()"
        )
        kill = "kill {}"
    else:
        theirs = (
            f"select pid from pg_stat_activity where datname = '{NAME}' and pid <> pg_backend_pid()"
        )
        kill = "select pg_terminate_backend({})"
    victims = set(administer(url, theirs))
    for number in victims:
        with contextlib.suppress(OperationalError):  # it has gone by itself
            administer(url, kill.format(number))
    # A server that has much to do is told to end a connection well before it does.
    assert wait_for(lambda: not victims & set(administer(url, theirs)))


def test_kills_and_a_restart_cost_no_more_than_what_is_under_way(
    server_and_url: tuple[Any, str], tmp_path: Path
) -> None:
    server, url = server_and_url
    with gunicorn(url, 2, tmp_path, tmp_path / "gunicorn.log", APP / "gunicorn.conf.py") as desk:
        with urllib.request.urlopen(f"{desk.url}/export", timeout=20) as answer:
            assert len(answer.read().splitlines()) == 250  # streamed
        load = Load(desk.url)
        bad: list[tuple[float, float]] = []
        try:
            for action in [lambda: kill_all(url)] * 3 + [server.restart]:
                time.sleep(0.7)
                bad.append(during(action))
            # A pool that was refused tries again after a second at the latest.
            bad[-1] = (bad[-1][0], time.monotonic() + 1.5)
            time.sleep(3.0)
        finally:
            answers = load.stop()
        figures = get(f"{desk.url}/pool.json")
        assert figures["in_use"] == 0
        assert figures["size"] <= 10
    failed = [answer for answer in answers if answer.status != 200]
    assert not [answer for answer in answers if answer.status not in (200, 500)]
    out_of_place = [
        answer
        for answer in failed
        if not any(answer.began < end and answer.ended > begin for begin, end in bad)
    ]
    assert not out_of_place
    assert len(answers) - len(failed) > 200
    assert wait_for(lambda: count_connections(url) == 0)


def during(action: Callable[[], object]) -> tuple[float, float]:
    began = time.monotonic()
    action()
    return began, time.monotonic()
