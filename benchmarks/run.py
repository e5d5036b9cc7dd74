"""What every benchmark has in common when it is started: its arguments, its servers, its greenlet."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import gevent
from sqlalchemy.engine import make_url

from tools import system_packages
from tools.servers import SERVERS

from .measure import FULL, QUICK, Scale
from .result import Section

VARIABLES = {
    "mariadb": "GEVENTPOOL_TEST_MYSQL_URL",
    "postgresql": "GEVENTPOOL_TEST_POSTGRESQL_URL",
}

Serve = Callable[[str], Any]
"""Gives a server by its name, `mariadb` or `postgresql`: its `url(driver)`, `host`, `port` …"""

Measure = Callable[[Scale, Serve], list[Section]]


class ExistingServer:
    """A server that runs already, named by a variable."""

    def __init__(self, url: str) -> None:
        self._url = make_url(url)
        self.host, self.port = self._url.host, self._url.port
        self.user, self.password = self._url.username, self._url.password
        self.database = self._url.database

    def url(self, driver: str) -> str:
        """The SQLAlchemy URL for a driver."""
        dialect = self._url.drivername.partition("+")[0]
        url = self._url.set(drivername=f"{dialect}+{driver}")
        return url.render_as_string(hide_password=False)


class Servers:
    """Starts servers when they are first asked for; a `with` block stops them."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._running: dict[str, Any] = {}

    def __enter__(self) -> Servers:
        return self

    def __exit__(self, *_error: object) -> None:
        self._stack.close()

    def __call__(self, name: str) -> Any:
        """The server of that name."""
        if name not in self._running:
            url = os.environ.get(VARIABLES[name])
            if url:
                self._running[name] = ExistingServer(url)
            else:
                problem = system_packages.install([name])
                if problem:
                    raise SystemExit(problem)
                server = SERVERS[name](max_connections=400)
                self._running[name] = self._stack.enter_context(server)
        return self._running[name]


def in_greenlet(measure: Measure, scale: Scale, serve: Serve) -> list[Section]:
    """Measures in a `Greenlet`, as a server's requests are: only such a holder is followed."""
    sections: list[Section] = gevent.spawn(measure, scale, serve).get()
    return sections


def arguments(parser: argparse.ArgumentParser) -> None:
    """What all take."""
    parser.add_argument("--quick", action="store_true", help="shorter, for a first look")


def main(measure: Measure) -> None:
    """A benchmark by itself: prints what it found, or writes it as JSON."""
    parser = argparse.ArgumentParser()
    arguments(parser)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to a file")
    options = parser.parse_args()
    with Servers() as servers:
        sections = in_greenlet(measure, QUICK if options.quick else FULL, servers)
    if options.json is None:
        print("\n\n".join(section.markdown() for section in sections))
    else:
        options.json.write_text(json.dumps([dataclasses.asdict(section) for section in sections]))
