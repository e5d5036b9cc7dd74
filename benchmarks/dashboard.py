"""What the page costs: `python -m benchmarks.dashboard`. 200 simulated processes of 5 pools, one browser.

The processes are files that are written anew each second under the numbers of sleeping children, because
the page shows only processes that run; they say what a real pool with an observer says.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

import geventpool.observe
from geventpool import ConnectionPool
from geventpool.observe.snapshot import began, snapshot
from geventpool.testing import FakeDriver

PROCESSES, POOLS = 200, 5
SECONDS = 20


def main() -> None:
    """Prints what one look and one page cost."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as place:
        sleepers = [
            subprocess.Popen(["sleep", str(SECONDS * 6)], stdout=subprocess.DEVNULL)
            for _ in range(PROCESSES)
        ]
        try:
            measure(Path(place), [one.pid for one in sleepers])
        finally:
            for one in sleepers:
                one.kill()


def measure(place: Path, pids: list[int]) -> None:
    """Serves the page in a process of its own, and reads its processor time."""
    said = template()
    snapshots = place / "snapshots"
    snapshots.mkdir(mode=0o700)
    publish(snapshots, said, pids, 0)
    command = [sys.executable, "-m", "geventpool.cli", "dashboard", "--listen", "127.0.0.1:0"]
    command += ["--snapshots", str(snapshots), "--memory", str(place / "memory")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as page:
        try:
            assert page.stdout is not None
            address = page.stdout.readline().strip()
            time.sleep(8)
            print(f"a file is {len(json.dumps(said)) / 1e3:.1f} kB")
            began_at = time.perf_counter()
            urllib.request.urlopen(address).read()
            print(f"first page {time.perf_counter() - began_at:.3f} s")
            watch(address, page.pid, snapshots, said, pids)
        finally:
            page.kill()


def watch(address: str, pid: int, snapshots: Path, said: Any, pids: list[int]) -> None:
    """With the stream of one browser, processor time of the page for each second."""
    with urllib.request.urlopen(f"{address}stream?view=fleet"):
        for round_number in range(2):
            begin, at = cpu(pid), time.monotonic()
            while time.monotonic() - at < SECONDS / 2:
                publish(snapshots, said, pids, int(time.monotonic()))
                time.sleep(max(1 - time.monotonic() % 1, 0.1))
            spent = (cpu(pid) - begin) / (time.monotonic() - at)
            print(f"round {round_number}: {spent * 1e3:.0f} ms of a processor for each second")
    print(f"the page's process takes {memory(pid):.0f} MB")


def template() -> dict[str, Any]:
    """A snapshot of pools that are observed."""
    pools = [
        ConnectionPool(FakeDriver().connect, name=f"pool {n}", max_size=9) for n in range(POOLS)
    ]
    for pool in pools:
        geventpool.observe.attach(pool)
        for number in range(20):
            with pool.connection() as connection:
                connection.cursor().execute(f"select a{number} from t where b = 5")
    return json.loads(json.dumps(snapshot()))  # type: ignore[no-any-return]


def publish(directory: Path, said: dict[str, Any], pids: list[int], second: int) -> None:
    """All files anew, as so many processes would write them."""
    for pid in pids:
        said |= {"pid": pid, "began": began(pid), "time": time.time()}
        for pool in said["pools"]:
            pool["checkouts"] += 7
            pool["in_use"] = (pid + second) % 9
        part = directory / f"geventpool-{pid}.part"
        part.write_text(json.dumps(said))
        part.replace(directory / f"geventpool-{pid}.json")


def cpu(pid: int) -> float:
    """Seconds of a processor that a process has had."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory(pid: int) -> float:
    """Resident megabytes."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


if __name__ == "__main__":
    main()
