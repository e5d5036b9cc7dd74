"""The order desk under gunicorn: its faults are found, and a real Prometheus adds up its workers."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tools import system_packages

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
OPERATIONS = EXAMPLES / "flask_app" / "operations.py"
sys.path.insert(0, str(EXAMPLES))

from demo_support.server import Server, gunicorn  # noqa: E402


def get(address: str) -> bytes:
    with urllib.request.urlopen(address, timeout=30) as response:
        body: bytes = response.read()
        return body


def wait_for(condition: Callable[[], Any], seconds: float = 20.0) -> Any:
    """The condition's first true value."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.1)
    return value


def line_of(path: Path, code: str) -> str:
    """Where a line of code is, as reports say it."""
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if code in line:
            return f"{path}:{number}"
    raise AssertionError(f"{code} is not in {path}")


@pytest.fixture
def snapshots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the workers publish."""
    monkeypatch.setenv("GEVENTPOOL_SNAPSHOTS", str(tmp_path / "snapshots"))
    return tmp_path / "snapshots"


def top(snapshots: Path, *options: str) -> str:
    """What `geventpool top --once` prints."""
    command = [sys.executable, "-m", "geventpool.cli", "top", "--once", *options]
    done = subprocess.run(
        [*command, "--directory", str(snapshots)], capture_output=True, text=True, check=True
    )
    return done.stdout


@pytest.mark.parametrize("server", ["mariadb", "postgresql"])
def test_each_planted_fault_is_found_with_its_line(
    server: str, request: pytest.FixtureRequest, tmp_path: Path, snapshots: Path
) -> None:
    driver = {"mariadb": "pymysql", "postgresql": "psycopg"}[server]
    url = request.getfixturevalue(server).url(driver)
    log = tmp_path / "gunicorn.log"
    with gunicorn(url, 1, tmp_path, log) as desk:
        for path in ("/orders", "/good/hold", "/bad/hold", "/bad/leak", "/bad/query", "/bad/block"):
            get(desk.url + path)
        report = wait_for(lambda: "leak: " in (said := top(snapshots)) and said)
        [process] = json.loads(top(snapshots, "--json"))
    logged = log.read_text()

    leak = line_of(OPERATIONS, "connection = db.engine.connect()")
    slow = line_of(OPERATIONS, 'return {"pairs": db.session.scalar(pairs)')
    idle = line_of(OPERATIONS, "return db.session.scalar(select(func.count())")
    bad = line_of(OPERATIONS, "orders = _count_orders()")
    for culprit, what in ((leak, "leak"), (slow, "slow query"), (idle, "idle in transaction")):
        assert re.search(rf"{what}: {re.escape(culprit)}\b", report), (what, report)
        assert re.search(rf"{what}[^\x1b]*{re.escape(culprit)}\b", logged), (what, logged)
    assert f"{idle} in _count_orders, called by {bad} in bad_hold" in report
    # A busy machine may have kept the hub for longer while the worker started.
    blocked = re.search(r"(?:longest|last): \S+ \S+ at (\S+) in bad_block", report)
    assert blocked is not None, report
    assert blocked[1].startswith(f"{OPERATIONS}:")
    assert re.search(r"the hub did not run for .* in bad_block", logged)

    # Busy against held: the route that waits for somebody else with its connection in hand is the worst.
    sites = process["pools"][0]["observed"]["sites"]
    worst = next(site for site in sites if "in bad_leak" not in site["site"])
    assert "in bad_hold" in worst["site"]
    assert worst["busy_share"] < 0.2
    good = next(site for site in sites if "in good_hold" in site["site"])
    assert good["held"] < worst["held"] / 2


@contextmanager
def prometheus(target: str, directory: Path) -> Iterator[str]:
    """A Prometheus that scrapes one address twice a second; gives its own."""
    problem = system_packages.install(["prometheus"])
    if problem is not None:
        pytest.skip(problem)
    directory.mkdir()
    config = directory / "prometheus.yml"
    config.write_text(
        "global: {scrape_interval: 500ms, scrape_timeout: 500ms}\n"
        f"scrape_configs: [{{job_name: desk, static_configs: [{{targets: ['{target}']}}]}}]\n"
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    process = subprocess.Popen(
        [
            str(system_packages.find("prometheus")),
            f"--config.file={config}",
            f"--storage.tsdb.path={directory / 'data'}",
            f"--web.listen-address={address}",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield f"http://{address}"
    finally:
        process.terminate()
        process.wait(20)


def ask(address: str, expression: str) -> float | None:
    """The value of an expression, if there is one yet."""
    query = urllib.parse.urlencode({"query": expression})
    try:
        said = json.loads(get(f"{address}/api/v1/query?{query}"))
    except OSError:
        return None
    result = said["data"]["result"]
    return float(result[0]["value"][1]) if result else None


def sums(snapshots: Path) -> dict[str, float]:
    """What the pools of the workers say of themselves."""
    pools = [pool for said in json.loads(top(snapshots, "--json")) for pool in said["pools"]]
    names = ("checkouts", "opened", "size", "hold_seconds")
    return {name: sum(pool[name] for pool in pools) for name in names}


def workers(snapshots: Path) -> list[int]:
    """The processes that have used their pools."""
    processes = json.loads(top(snapshots, "--json"))
    return [said["pid"] for said in processes if any(pool["checkouts"] for pool in said["pools"])]


def send(desk: Server, requests: int) -> None:
    """Sends some requests."""
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(get, [f"{desk.url}/orders"] * requests))


def test_prometheus_sees_the_sums_of_two_workers(
    mariadb: Any, tmp_path: Path, snapshots: Path
) -> None:
    with gunicorn(mariadb.url("pymysql"), 2, tmp_path, tmp_path / "gunicorn.log") as desk:
        wait_for(lambda: send(desk, 20) or len(workers(snapshots)) == 2)
        text = get(f"{desk.url}/metrics")
        checked = subprocess.run(
            [str(system_packages.find("promtool") or "promtool"), "check", "metrics"],
            input=text,
            capture_output=True,
            check=False,
        )
        assert (checked.returncode, checked.stderr) == (0, b""), checked.stderr
        with prometheus(desk.url.removeprefix("http://"), tmp_path / "prometheus") as address:
            _agree(address, snapshots)
            assert ask(address, "geventpool_processes") == 2

            # A worker that ends takes nothing away from what was counted.
            before = sums(snapshots)
            os.kill(workers(snapshots)[0], signal.SIGTERM)
            wait_for(lambda: len(json.loads(top(snapshots, "--json"))) == 2)
            send(desk, 20)
            wait_for(
                lambda: (
                    (ask(address, "sum(geventpool_checkouts_total)") or 0)
                    >= before["checkouts"] + 20
                )
            )
            assert ask(address, "sum(resets(geventpool_checkouts_total[1m]))") == 0


def _agree(address: str, snapshots: Path) -> None:
    """Until the pools' own sums and those of Prometheus are equal: nobody uses the pools meanwhile."""
    expressions = {
        "checkouts": "sum(geventpool_checkouts_total)",
        "opened": "sum(geventpool_opened_total)",
        "size": "sum(geventpool_connections)",
        "hold_seconds": "sum(geventpool_hold_seconds_sum)",
    }

    def agree() -> bool:
        said = {name: ask(address, expression) for name, expression in expressions.items()}
        own = sums(snapshots)
        return said == {name: pytest.approx(value) for name, value in own.items()}

    wait_for(agree)
    assert sums(snapshots)["checkouts"] >= 20
