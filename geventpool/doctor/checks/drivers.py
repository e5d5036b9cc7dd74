"""Drivers: do they let other greenlets run, while they connect and while they wait?"""

from __future__ import annotations

import importlib.metadata
import re

from ...drivers import is_known, why_blocking
from ..case import Case, Target
from ..finding import Judgement, look, ok, unseen, wrong
from ..registry import check, each_server, each_target
from ..server import Server

_STALL = 0.008
"""Seconds of computing in a connect above which other greenlets notice: PyMySQL's TLS takes 17 ms."""

_FAULTS = {
    "pymysql": (
        "PyMySQL",
        (1, 1, 1),
        "a dict given as a parameter is not escaped (CVE-2024-36039): its keys reach the SQL",
    ),
}
"""By module: the distribution, the first version without the fault, and the fault."""


@check("driver.cooperative", "slow", of=each_target)
def cooperative(case: Case, target: Target) -> Judgement | None:
    """What is known of the driver, without a connection."""
    cure = why_blocking(target.driver)
    if cure is None:
        return None  # driver.blocks measures it
    reason, _, cure = cure.partition(": ")
    return wrong(reason, "nothing else runs in the process meanwhile", cure)


@check("driver.blocks", "slow", of=each_server)
def blocks(case: Case, server: Server) -> Judgement | None:
    """Measured: does another greenlet run while a query takes its time?"""
    if not server.database or server.blocking is not None:
        return None
    if server.ran_meanwhile is None:
        return unseen(
            "whether queries block the hub: this process is not monkey-patched",
            "give the URL, or the application with its gunicorn configuration",
        )
    if server.ran_meanwhile:
        return ok(f"another greenlet ran {server.ran_meanwhile} times during a query of 0.1 s")
    return wrong(
        "no other greenlet ran during a query of 0.1 s",
        "each query stops all greenlets of the process",
        "use a driver that waits by gevent: PyMySQL, psycopg, pg8000",
    )


@check("driver.connect_stall", "slow", of=each_server)
def connect_stall(case: Case, server: Server) -> Judgement:
    """Measured: for how long does a connect compute?"""
    measured = f"a connect computes for {server.connect_cpu * 1e3:.1f} ms"
    if server.connect_cpu < _STALL:
        return ok(measured)
    return look(
        measured,
        "all other greenlets stand still meanwhile, most likely because a TLS context is made for each",
        "pass one ssl.SSLContext for all connects, or use a geventpool, which makes it once",
    )


@check("driver.version", "lost changes", of=each_target)
def version(case: Case, target: Target) -> Judgement | None:
    """Versions with known faults."""
    name, first, fault = _FAULTS.get(case.driver(target), ("", (), ""))
    if not name:
        return None
    try:
        found = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
    if tuple(map(int, re.findall(r"\d+", found)[:3])) >= first:
        return ok(f"{name} {found} has no fault that is known here")
    wanted = ".".join(map(str, first))
    return wrong(f"{name} {found}", fault, f"pip install '{name}>={wanted}'")


@check("driver.known", "lost changes", of=each_target)
def known(case: Case, target: Target) -> Judgement | None:
    """A driver that geventpool knows nothing of is pooled without trust."""
    driver = case.driver(target)
    if not driver:
        return None  # server.reached tells why
    if is_known(driver):
        return ok(f"{driver}: its transactions and its socket are known")
    return look(
        f"geventpool does not know {driver}",
        "each return costs a rollback, idle connections are not watched, killed queries run on",
        "use PyMySQL, psycopg, psycopg2 or pg8000, or tell of yours by geventpool.drivers.register",
    )


@check("driver.sqlite", "slow", of=each_target)
def sqlite(case: Case, target: Target) -> Judgement | None:
    """A database in a file is for development."""
    if case.driver(target) != "sqlite3":
        return None
    return look(
        "a SQLite database",
        "sqlite3 blocks the hub, and one writer at a time locks the whole database",
        "fine for development; use PostgreSQL or MySQL where there is a load",
    )
