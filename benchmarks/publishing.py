"""What publishing costs a process: `python -m benchmarks.publishing [DIRECTORY]`.

A pool with 1,000 fingerprints and 200 holders publishes once a second. Told are how long the hub stands
still for one snapshot, and how many checkouts with a query a busy process does with and without.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path

import gevent

import geventpool.observe
from geventpool import ConnectionPool
from geventpool.observe.files import Publisher
from geventpool.testing import FakeDriver

FINGERPRINTS, HOLDERS, DEPTH = 1000, 200, 15
SNAPSHOTS = 50
ROUNDS, SECONDS = 8, 3.0


def main() -> None:
    """Prints both."""
    place = sys.argv[1] if len(sys.argv) > 1 else None
    pool = ConnectionPool(FakeDriver().connect, name="desk", max_size=HOLDERS + 10)
    observer = geventpool.observe.attach(pool, held_after=None, idle_in_transaction_after=None)
    for number in range(FINGERPRINTS):
        query(pool, f"select a{number}, b from t{number} join u on x = y where b = 5 and c = 'x'")
    assert observer.queries is not None
    while observer.queries.read_some():
        pass
    for _ in range(HOLDERS):
        gevent.spawn(hold, pool, DEPTH)
    gevent.sleep(0.5)
    held, known = pool.stats().in_use, len(observer.queries)
    print(f"{held} holders, {known} fingerprints")
    with tempfile.TemporaryDirectory(dir=place) as directory:
        print(stands_still(Path(directory)))
        print(compare(pool, Path(directory)))


def query(pool: ConnectionPool, text: str) -> None:
    """One checkout with one query."""
    with pool.connection() as connection:
        connection.cursor().execute(text)


def hold(pool: ConnectionPool, depth: int) -> None:
    """Keeps a connection, deep in a stack."""
    if depth:
        hold(pool, depth - 1)
    else:
        with pool.connection() as connection:
            connection.cursor().execute("select held")
            gevent.sleep(1e6)


def stands_still(directory: Path) -> str:
    """For how long the hub makes a snapshot, and for how long a thread writes it.

    Processor time, too: on a busy machine the clock also counts what others take away.
    """
    publisher = Publisher(directory, 60)
    making, computing, writing = [], [], []
    for _ in range(SNAPSHOTS):
        publisher._in_file = ""
        began, computed = time.perf_counter(), time.thread_time()
        taken = publisher._take()
        computing.append(time.thread_time() - computed)
        making.append(time.perf_counter() - began)
        began = time.perf_counter()
        publisher._put(publisher.path, *taken)
        writing.append(time.perf_counter() - began)
    publisher.stop()
    found = {"in the hub": making, "of it processor": computing, "in a thread": writing}
    return "; ".join(
        f"{name}: median {statistics.median(one) * 1e3:.2f} ms, longest {max(one) * 1e3:.2f} ms"
        for name, one in found.items()
    )


def compare(pool: ConnectionPool, directory: Path) -> str:
    """Checkouts in the same time with and without, in turns."""
    ratios, counts = [], [0, 0]
    for _ in range(ROUNDS):
        without = checkouts(pool)
        publisher = Publisher(directory, 1.0)
        publishing = checkouts(pool)
        publisher.stop()
        counts = [counts[0] + without, counts[1] + publishing]
        ratios.append(publishing / without)
    told = f"{counts[1]} / {counts[0]} = {counts[1] / counts[0]:.3f}"
    spread = f"rounds from {min(ratios):.3f} to {max(ratios):.3f}"
    return f"checkouts with publishing / without: {told} ({spread})"


def checkouts(pool: ConnectionPool) -> int:
    """How many a greenlet that does nothing else has in a stretch of time."""
    many, end = 0, time.monotonic() + SECONDS
    while time.monotonic() < end:
        query(pool, "select 1")
        many += 1
        if not many % 50:
            gevent.sleep(0)
    return many


if __name__ == "__main__":
    main()
