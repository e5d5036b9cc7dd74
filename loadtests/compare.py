"""The same load for each pool, in turn, and again in the opposite order."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from tools import system_packages
from tools.servers import MariaDB, PostgreSQL

from .faults import FAULTS, Place
from .paths import DESK_PATHS
from .pools import Variant
from .server_view import ServerView
from .turn import HERE, Happen, LoadTestError, Plan, Turn, take
from .work import MEAN_HOLD, drop_table

SERVERS = {"mysql": (MariaDB, "pymysql"), "postgresql": (PostgreSQL, "psycopg")}
MAX_CONNECTIONS = 400
SETTLE_SECONDS = 10.0
OVERLOADED = 20
"""Connections whose capacity the shape `overload` goes beyond: the cap of a geventpool."""

POOL = "LOADTEST_POOL"


@dataclass(frozen=True)
class Database:
    """Where the load goes.

    Attributes:
        url: SQLAlchemy's.
        server: to be restarted; `None` if it is not ours.
    """

    url: str
    server: Any = None


def capacity(rate: float) -> int:
    """How many users, at so many requests a second each, twenty connections can serve."""
    return round(OVERLOADED / MEAN_HOLD / rate)


@contextmanager
def database(kind: str, url: str | None, has_tls: bool = True) -> Iterator[Database]:
    """The user's database, or a private server of our own until the end of the block.

    Args:
        kind: of the server.
        url: of the user's.
        has_tls: let PyMySQL prepare for TLS, which is its default and costs it 20 ms a connect.

    Raises:
        LoadTestError: a server cannot be had.
    """
    if url is not None:
        yield Database(url)
        return
    server_class, driver = SERVERS[kind]
    problem = system_packages.install([server_class.name])
    if problem:
        raise LoadTestError(f"{problem}\nOr name a database with --url.")
    with server_class(max_connections=MAX_CONNECTIONS) as server:
        ours = make_url(server.url(driver))
        if not has_tls and kind == "mysql":
            ours = ours.update_query_dict({"ssl_disabled": "true"})
        yield Database(ours.render_as_string(hide_password=False), server)


def check(variants: Sequence[Variant], url: str) -> None:
    """See that the pools can be had, before the first of them is loaded.

    Raises:
        LoadTestError: two have one name, or `create_engine` does not take what is said of one.
    """
    for variant in variants:
        if [one.title for one in variants].count(variant.title) > 1:
            raise LoadTestError(
                f"there are two pools {variant.title!r}: give them names of their own"
            )
        try:
            variant.create_engine(url).dispose()
        except (TypeError, ValueError, ArgumentError) as error:
            raise LoadTestError(f"{variant.title!r}: {error}") from error


def run(
    place: Database,
    variants: Sequence[Variant],
    plan: Plan,
    rounds: int,
    web_workers: int | None,
    tell: Callable[[str], None],
) -> list[Turn]:
    """All turns.

    Args:
        place: the database.
        variants: the pools.
        plan: the load.
        rounds: turns of each pool.
        web_workers: drive the order desk under gunicorn with so many; `None`: an engine in locust.
        tell: is told how it goes, line by line.

    Raises:
        LoadTestError: something that is needed cannot be had, or has ended.
    """
    turns: list[Turn] = []
    with _link(place, plan) as (url, happen):
        for number, variant in order(variants, rounds):
            tell(f"round {number} of {rounds}: {variant.title} …")
            with _subject(url, web_workers, variant) as arguments:
                turns.append(take(variant.title, number, plan, arguments, place.url, happen))
            _settle(place.url)
    drop_table(place.url)
    # As they were named, whatever the order of the rounds.
    titles = [variant.title for variant in variants]
    return sorted(turns, key=lambda turn: (turn.round, titles.index(turn.title)))


def order(variants: Sequence[Variant], rounds: int) -> list[tuple[int, Variant]]:
    """Whose turn it is, and in which round: every other round goes backwards."""
    found = []
    for number in range(1, rounds + 1):
        present = [variant for variant in variants if number == 1 or not variant.is_aside]
        found += [(number, variant) for variant in (present if number % 2 else present[::-1])]
    return found


@contextmanager
def _subject(url: str, web_workers: int | None, variant: Variant) -> Iterator[list[str]]:
    """What locust is told of where the load goes."""
    if web_workers is None:
        yield ["--url", url, "--pool", variant.to_text()]
        return
    with TemporaryDirectory(prefix="geventpool-load-") as folder:
        with desk(url, web_workers, variant, Path(folder)) as server:
            yield desk_arguments(server.url)


@contextmanager
def _link(place: Database, plan: Plan) -> Iterator[tuple[str, Happen | None]]:
    """The URL for the pools, and the fault."""
    if plan.fault is None:
        yield place.url, None
        return
    fault = FAULTS[plan.fault]
    if fault.needs_server and place.server is None:
        raise LoadTestError(f"--fault {fault.name} wants a server of its own: leave out --url")
    with ExitStack() as stack:
        url, link = place.url, None
        if fault.needs_link:
            # Only here: it needs gevent's sockets in this process.
            from tests.integration.proxy import Proxy

            there = make_url(place.url)
            default = 3306 if there.get_backend_name() != "postgresql" else 5432
            link = stack.enter_context(Proxy(there.host or "127.0.0.1", there.port or default))
            url = link.url(place.url)
        where = Place(place.url, place.server, link, plan.fault_seconds)
        yield url, lambda: fault.happen(where)


@contextmanager
def desk(url: str, workers: int, variant: Variant, folder: Path) -> Iterator[Any]:
    """The order desk under gunicorn, until the end of the block: its `url` and its `process`.

    Args:
        url: of the database.
        workers: gunicorn's.
        variant: the pool.
        folder: for gunicorn's log, and for what each worker's pools do, if they are of ours.

    Raises:
        LoadTestError: it does not start, or does not end well.
    """
    # Only here: who tests an engine needs no Flask.
    from examples.demo_support.server import DemoError, gunicorn

    os.environ[POOL] = variant.to_text()
    try:
        with gunicorn(url, workers, folder, folder / "log", HERE / "gunicorn.conf.py") as server:
            yield server
    except DemoError as error:
        said = (folder / "log").read_text()[-3000:]
        raise LoadTestError(f"{error}\n{said}") from error


def desk_arguments(address: str) -> list[str]:
    """What locust has to be told of it."""
    return ["--host", address, *(part for path in DESK_PATHS for part in ("--path", path))]


def _settle(url: str) -> None:
    """Wait until the last pool's connections are gone, so that the next turn begins with none."""
    deadline = time.monotonic() + SETTLE_SECONDS
    with ServerView(url) as view:
        while view.connections() and time.monotonic() < deadline:
            time.sleep(0.05)
