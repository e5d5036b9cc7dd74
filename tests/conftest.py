"""Real servers for the tests that need them, started once, and a loud list of what could not run."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy.engine import make_url

from tools import support_table, system_packages
from tools.servers import MariaDB, PostgreSQL, Server, ServerError

_NOT_RUN = pytest.StashKey[dict[str, str]]()
_SEEN = pytest.StashKey[str | None]()
_VARIABLES = {
    "mariadb": "GEVENTPOOL_TEST_MYSQL_URL",
    "postgresql": "GEVENTPOOL_TEST_POSTGRESQL_URL",
}


class ExistingServer:
    """A server that the user runs, named by a variable."""

    def __init__(self, url: str) -> None:
        self._url = make_url(url)
        self.host = self._url.host or "127.0.0.1"
        self.port = self._url.port
        self.user, self.password = self._url.username, self._url.password
        self.database = self._url.database

    def url(self, driver: str, database: str | None = None) -> str:
        """The SQLAlchemy URL for a driver."""
        dialect, driver = self._url.drivername.partition("+")[0], driver.replace(".", "")
        url = self._url.set(drivername=f"{dialect}+{driver}", database=database or self.database)
        return url.render_as_string(hide_password=False)

    def restart(self) -> None:
        """Not ours to restart."""
        pytest.skip("this test restarts its server, and so wants one of its own")

    kill = restart

    def stop(self) -> None:
        """Not ours to stop."""


def _serve(request: pytest.FixtureRequest, kind: type[Server]) -> Iterator[Any]:
    existing = os.environ.get(_VARIABLES[kind.name])
    problem = None if existing else system_packages.install([kind.name])
    server: Any = None
    if problem is None:
        try:
            server = ExistingServer(existing) if existing else kind()
        except ServerError as error:
            problem = str(error)
    if problem is not None:
        _give_up(request, kind.name, problem)
    yield server
    server.stop()


def _give_up(request: pytest.FixtureRequest, name: str, problem: str) -> None:
    request.config.stash[_NOT_RUN][name] = problem
    if os.environ.get("CI"):
        pytest.fail(problem, pytrace=False)
    pytest.skip(problem)


def _install(request: pytest.FixtureRequest, name: str) -> None:
    problem = system_packages.install([name])
    if problem is not None:
        _give_up(request, name, problem)


@pytest.fixture(scope="session")
def pgbouncer_program(request: pytest.FixtureRequest) -> None:
    """`tools.proxies.PgBouncer` can be started."""
    _install(request, "pgbouncer")


@pytest.fixture(scope="session")
def haproxy_program(request: pytest.FixtureRequest) -> None:
    """`tools.proxies.HAProxy` can be started."""
    _install(request, "haproxy")


@pytest.fixture(scope="session")
def stunnel_program(request: pytest.FixtureRequest) -> None:
    """`tools.proxies.Stunnel` can be started."""
    _install(request, "stunnel")


@pytest.fixture(scope="session")
def mariadb(request: pytest.FixtureRequest) -> Iterator[Any]:
    """A MariaDB (or MySQL) server."""
    yield from _serve(request, MariaDB)


@pytest.fixture(scope="session")
def postgresql(request: pytest.FixtureRequest) -> Iterator[Any]:
    """A PostgreSQL server."""
    yield from _serve(request, PostgreSQL)


def pytest_configure(config: pytest.Config) -> None:
    """Prepares the list."""
    config.stash[_NOT_RUN] = {}
    # Not for test runs that are tests of this one.
    config.stash[_SEEN] = os.environ.pop(support_table.VARIABLE, None)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Says loudly which tests could not run, and for the table of versions which could."""
    for name, problem in config.stash[_NOT_RUN].items():
        skipped = len(terminalreporter.stats.get("skipped", []))
        terminalreporter.section(f"NOT RUN: the tests that need {name}", red=True, bold=True)
        variable = f"; set {_VARIABLES[name]}" if name in _VARIABLES else ""
        terminalreporter.line(f"{problem}\n({skipped} tests skipped{variable})")
    seen = config.stash[_SEEN]
    if seen is not None:
        counted = ("passed", "failed", "error", "skipped")
        of_all = {name: len(terminalreporter.stats.get(name, [])) for name in counted}
        support_table.record(seen, config.args, config.option.keyword, of_all)
