"""How large must the hard cap be? Throughput of one worker by cap, as a share of its best.

    python -m benchmarks.default_cap

One process, 200 greenlets without a pause between their transactions, GeventPool with each cap in turn
and interleaved, for a transaction of which the server's part is 0, 5 and 20 ms (a lock, a disk, another
host). Beyond some cap the worker's own CPU is the limit and more connections only cost the server.
"""

from __future__ import annotations

from gevent import monkey

monkey.patch_all()

import random  # noqa: E402
import statistics  # noqa: E402
import time  # noqa: E402

import gevent  # noqa: E402
from sqlalchemy import create_engine, text  # noqa: E402

from geventpool.sqlalchemy import GeventPool  # noqa: E402
from tools.servers import MariaDB, PostgreSQL  # noqa: E402

CAPS = (2, 5, 10, 15, 20, 30, 50, 80)
SERVER_SECONDS = (0.0, 0.005, 0.020)
GREENLETS, SECONDS, ROUNDS = 200, 1.0, 3


def transactions_per_second(url: str, cap: int, server_seconds: float) -> float:
    """Of one worker with this cap."""
    engine = create_engine(url, poolclass=GeventPool, max_size=cap, pool_timeout=None)
    nap = "sleep" if engine.dialect.name == "mysql" else "pg_sleep"
    work = text(f"select {nap}({server_seconds})" if server_seconds else "select 1")
    done = 0

    def client() -> None:
        nonlocal done
        while True:
            with engine.begin() as connection:
                connection.execute(work)
            done += 1

    clients = [gevent.spawn(client) for _ in range(GREENLETS)]
    gevent.sleep(0.5)
    done, began = 0, time.perf_counter()
    gevent.sleep(SECONDS)
    rate = done / (time.perf_counter() - began)
    gevent.killall(clients)
    engine.dispose()
    return rate


def main() -> None:
    """Measures and prints a Markdown table."""
    print("| server | server's part | " + " | ".join(f"cap {cap}" for cap in CAPS) + " |")
    print("|---|---|" + "---|" * len(CAPS))
    for kind, driver in ((MariaDB, "pymysql"), (PostgreSQL, "psycopg")):
        with kind() as server:
            url = server.url(driver)
            for seconds in SERVER_SECONDS:
                rates: dict[int, list[float]] = {cap: [] for cap in CAPS}
                for _ in range(ROUNDS):
                    for cap in random.sample(CAPS, len(CAPS)):
                        rates[cap].append(transactions_per_second(url, cap, seconds))
                medians = {cap: statistics.median(rates[cap]) for cap in CAPS}
                best = max(medians.values())
                shares = " | ".join(f"{medians[cap] / best:.0%}" for cap in CAPS)
                print(f"| {driver} | {seconds * 1000:g} ms | {shares} |", flush=True)


if __name__ == "__main__":
    main()
