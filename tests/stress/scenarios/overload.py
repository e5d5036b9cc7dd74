"""Twice as many requests as can be served, by clients that give up."""

from __future__ import annotations

import random
from typing import Any

import gevent

from . import books
from .base import ALL_POOLS, OURS, Context, Row, Scenario

MAX_SIZE = 10
PATIENCE = 0.5
QUERY = "select pg_sleep(0.02)"
SEED = 20240607

# The second row: what each pool offers against overload, set to about a tenth of a second of waiting.
SHEDDING: dict[str, dict[str, Any]] = {
    OURS: {"shed_after": 0.1},
    "QueuePool": {"timeout": 0.1},
    "QueuePool LIFO": {"timeout": 0.1},
    "psycopg_pool": {"max_waiting": 50},
}


class Clients:
    """Arrive by chance, at a mean rate, and go away when it takes too long."""

    def __init__(self, pool: Any, rate: float, seconds: float) -> None:
        self.pool = pool
        self.rate = rate
        self.seconds = seconds
        self.arrived = self.served = self.gave_up = self.refused = 0
        self.others: dict[str, int] = {}

    def run(self) -> float:
        """Returns: successful requests a second, from first to last."""
        chance = random.Random(SEED)
        began = due = books.now()
        running: set[gevent.Greenlet] = set()
        while due < began + self.seconds:
            due += chance.expovariate(self.rate)
            gevent.sleep(max(0, due - books.now()))
            client = gevent.spawn(self._request, began + self.seconds)
            running.add(client)
            client.rawlink(running.discard)
            self.arrived += 1
        served = self.served
        gevent.joinall(list(running), timeout=10)
        return served / self.seconds

    def _request(self, until: float) -> None:
        try:
            with gevent.Timeout(PATIENCE):
                with self.pool.connection() as connection:
                    connection.query(QUERY)
            if books.now() < until:
                self.served += 1
        except gevent.Timeout:
            self.gave_up += 1
        except Exception as error:
            name = type(error).__name__
            if any(word in name for word in ("Timeout", "Overloaded", "TooMany")):
                self.refused += 1
            else:
                self.others[name] = self.others.get(name, 0) + 1


def run(context: Context) -> None:
    is_shedding = context.row.options["sheds"]
    observer = context.observer()
    capacity = _capacity(context)
    settings = SHEDDING.get(context.pool, {}) if is_shedding else {}
    if settings:
        context.notes.append(", ".join(f"{name}={value}" for name, value in settings.items()))
    pool = context.make_pool(MAX_SIZE, **settings)
    books.warm_up(pool, MAX_SIZE)
    opened = pool.connects.opened
    sockets = [0]

    def watch() -> None:
        while True:
            sockets.append(observer.connections())
            gevent.sleep(0.05)

    watcher = gevent.spawn(watch)
    clients = Clients(pool, 2 * capacity, context.pick(15, 5, 2))
    goodput = clients.run()
    watcher.kill()
    books.end(pool)
    # Others may use the machine: measured on both sides of the run.
    capacity_after = _capacity(context)
    share = goodput / ((capacity + capacity_after) / 2)
    context.figures.update(
        {
            "capacity/s, before and after": f"{capacity:.0f}, {capacity_after:.0f}",
            "goodput / capacity": round(share, 3),
            "arrived": clients.arrived,
            "gave up": clients.gave_up,
            "refused early": clients.refused,
            "other errors": clients.others or 0,
            "connections opened during it": pool.connects.opened - opened,
            "most sockets": max(sockets),
        }
    )
    target = 0.85 if is_shedding else 0.70
    context.expect(
        share >= target, f"goodput is {share:.0%} of capacity, below {target:.0%}", is_timing=True
    )
    context.expect(
        max(sockets) <= MAX_SIZE, f"{max(sockets)} sockets at once on a pool of {MAX_SIZE}"
    )
    context.expect(not clients.others, f"errors: {clients.others}")


def _capacity(context: Context) -> float:
    """What as many bare connections as the pool may have can do: queries a second."""
    import psycopg

    url = context.make_pool(1).url
    seconds = context.pick(4, 2, 1)
    done = 0
    until = books.now() + 60

    def work(connection: Any) -> None:
        nonlocal done
        while books.now() < until:
            with connection.cursor() as cursor:
                cursor.execute(QUERY)
                cursor.fetchone()
            done += 1

    connections = [
        psycopg.connect(
            host=url.host,
            port=url.port,
            user=url.username,
            password=url.password,
            dbname=url.database,
            autocommit=True,
        )
        for _ in range(MAX_SIZE)
    ]
    began = books.now()
    until = began + seconds
    gevent.joinall([gevent.spawn(work, connection) for connection in connections])
    rate = done / (books.now() - began)
    for connection in connections:
        connection.close()
    gevent.sleep(0.2)
    return rate


SCENARIO = Scenario(
    name="overload",
    title="Overload",
    about=(
        f"Requests (`{QUERY}` on a pool of {MAX_SIZE}) arrive at random at twice the rate that "
        f"{MAX_SIZE} bare connections can serve, from clients that go away after {PATIENCE} s "
        "(`gevent.Timeout` around borrowing and query), for 15 s. Goodput: requests served in time as a "
        "share of that capacity; at least 70 % with nothing configured, 85 % with what each pool has "
        "against overload (its setting is named). Never more sockets on the server than the maximum."
    ),
    run=run,
    rows=(
        Row("nothing configured", "psycopg", {"sheds": False}),
        Row(
            "shedding on",
            "psycopg",
            {"sheds": True, "pools": [pool for pool in ALL_POOLS if pool in SHEDDING]},
        ),
    ),
    limit=60,
)
