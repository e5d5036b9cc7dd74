"""Runs every scenario for every pool, one after the other, and writes what came of it.

Ends with code 1 if GeventPool fails any row.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tools import system_packages
from tools.servers import MariaDB, PostgreSQL, Server

from . import report
from .base import ALL_POOLS, MARK, OURS, Row, Scenario
from .catalogue import SCENARIOS

ROOT = Path(__file__).parents[3]
RESULTS = Path(__file__).parents[1] / "RESULTS.md"
_PR_SET_PDEATHSIG = 1


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    options = _parser().parse_args(arguments)
    scenarios = [
        (scenario, row)
        for scenario in SCENARIOS
        for row in scenario.rows
        if not options.only or {scenario.name, scenario.row_id(row)} & set(options.only)
    ]
    pools = tuple(pool for pool in ALL_POOLS if not options.pool or pool in options.pool)
    if not scenarios:
        sys.exit("no such scenario; there are: " + " ".join(one.name for one in SCENARIOS))
    problem = system_packages.install(["mariadb", "postgresql"])
    if problem:
        sys.exit(problem)
    scale = "quick" if options.quick else "full"
    with servers() as urls:
        results = _run_all(scenarios, pools, urls, scale)
        told = _servers_told(urls)
    document = report.write(scenarios, results, pools, told, scale)
    output = options.output
    if output is None and not (options.only or options.pool or options.quick):
        output = RESULTS
    if output is not None:
        output.write_text(document)
        print(f"written: {output}")
    failed = [key for key, result in results.items() if key[2] == OURS and not result["passed"]]
    for name, label, _ in failed:
        print(f"{OURS} fails {name}, {label}: {results[name, label, OURS]['reason']}")
    sys.exit(1 if failed else 0)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.stress.scenarios",
        description="What happens to a pool in a gevent server: GeventPool and its peers.",
        epilog="Scenarios: " + ", ".join(scenario.name for scenario in SCENARIOS),
    )
    parser.add_argument(
        "--only", action="append", metavar="NAME", help="this scenario only (may be repeated)"
    )
    parser.add_argument(
        "--pool", action="append", choices=ALL_POOLS, help="this pool only (may be repeated)"
    )
    parser.add_argument("--quick", action="store_true", help="shorter, for a first look")
    parser.add_argument(
        "--output",
        type=Path,
        help="where to write the results; by default tests/stress/RESULTS.md after a whole run, and "
        "nowhere otherwise",
    )
    return parser


@contextlib.contextmanager
def servers() -> Iterator[dict[str, Server]]:
    """The two servers that the scenarios share."""
    with MariaDB() as mariadb, PostgreSQL() as postgresql:
        yield {"mysql": mariadb, "postgresql": postgresql}


def url_for(row: Row, urls: dict[str, Any]) -> str:
    """Of the shared server, for the row's driver."""
    server = urls["mysql" if row.driver == "pymysql" else "postgresql"]
    return str(server.url(row.driver))


def run_one(scenario: Scenario, row: Row, pool: str, url: str, scale: str) -> dict[str, Any]:
    """One scenario with one pool in a fresh process, which ends in time whatever happens."""
    command = [sys.executable, "-m", "tests.stress.scenarios.child"]
    limit = scenario.limit if scale == "full" else scenario.quick_limit
    # Servers that the child starts are gone with it; their folders are in ours.
    with tempfile.TemporaryDirectory(prefix="geventpool-stress-") as folder:
        os.chmod(folder, 0o755)  # PostgreSQL's own user has to reach it
        process = subprocess.Popen(
            [*command, scenario.name, row.label, pool, url, scale, str(limit)],
            cwd=ROOT,
            env={**os.environ, "TMPDIR": folder, "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_end_with_parent,
        )
        try:
            out, _ = process.communicate(timeout=limit)
            problem = f"ended with code {process.returncode}"
        except subprocess.TimeoutExpired:
            problem = f"hung: no end after {limit:g} s"
            out = b""
        finally:
            # Its own children, too: they are in its process group.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            rest, _ = process.communicate()
        text = (out or rest).decode(errors="replace")
    for line in reversed(text.splitlines()):
        if line.startswith(MARK):
            verdict: dict[str, Any] = json.loads(line[len(MARK) :])
            return {**verdict, "output": text}
    return {"passed": False, "reason": problem, "figures": {}, "notes": [], "output": text}


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _run_all(
    scenarios: list[tuple[Scenario, Row]],
    pools: tuple[str, ...],
    urls: dict[str, Server],
    scale: str,
) -> dict[tuple[str, str, str], dict[str, Any]]:
    results = {}
    todo = [
        (scenario, row, pool)
        for scenario, row in scenarios
        for pool in pools
        if scenario.applies(row, pool)
    ]
    for number, (scenario, row, pool) in enumerate(todo, 1):
        began = time.monotonic()
        head = f"[{number}/{len(todo)}] {scenario.title}: {row.label}, {pool}"
        with _progress(head):
            result = run_one(scenario, row, pool, url_for(row, urls), scale)
        took = time.monotonic() - began
        verdict = "pass" if result["passed"] else f"FAIL ({result['reason']})"
        print(f"{head}: {verdict}, {took:.0f} s", flush=True)
        if result["figures"]:
            print(
                "    " + ", ".join(f"{name} {value}" for name, value in result["figures"].items())
            )
        if not result["passed"] and pool == OURS:
            print("    | " + "\n    | ".join(result["output"].splitlines()[-30:]))
        results[scenario.name, row.label, pool] = result
    for scenario, row in scenarios:
        if scenario.compared:
            _compare(scenario, row, pools, results)
    return results


def _compare(
    scenario: Scenario,
    row: Row,
    pools: tuple[str, ...],
    results: dict[tuple[str, str, str], dict[str, Any]],
) -> None:
    """Adds a figure as a multiple of QueuePool's."""
    name = scenario.compared
    of_all = {
        pool: results[scenario.name, row.label, pool]["figures"]
        for pool in pools
        if (scenario.name, row.label, pool) in results
    }
    theirs = of_all.get("QueuePool", {}).get(name)
    for figures in of_all.values():
        if theirs and figures.get(name) is not None:
            figures[f"{name}: multiple of QueuePool's"] = round(figures[name] / theirs, 2)


@contextlib.contextmanager
def _progress(text: str) -> Iterator[None]:
    """A line that shows that something is going on, where somebody looks."""
    try:
        from rich.console import Console
    except ImportError:
        yield
        return
    console = Console()
    if not console.is_terminal:
        yield
        return
    with console.status(text):
        yield


def _servers_told(urls: dict[str, Server]) -> str:
    import psycopg
    import pymysql

    mysql, postgresql = urls["mysql"], urls["postgresql"]
    with contextlib.closing(
        pymysql.connect(host=mysql.host, port=mysql.port, user=mysql.user, password=mysql.password)
    ) as connection:
        mariadb = connection.get_server_info()
    with contextlib.closing(
        psycopg.connect(
            host=postgresql.host,
            port=postgresql.port,
            user=postgresql.user,
            password=postgresql.password,
            dbname=postgresql.database,
        )
    ) as other:
        version = other.info.server_version
    return f"MariaDB {mariadb.partition('-')[0]}, PostgreSQL {version // 10000}.{version % 10000}"
