"""200 greenlets that share 10 connections: what it costs to hand one over.

python -m benchmarks.contended
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import gevent
import psycopg
from gevent.lock import BoundedSemaphore
from psycopg_pool import ConnectionPool as PsycopgPool
from sqlalchemy.pool import QueuePool

from geventpool import ConnectionPool
from geventpool.sqlalchemy import GeventPool

from .fakes import CLOSE, Silent
from .measure import Sample, Scale, Times, interleave, ratio
from .raw import psycopg_arguments
from .result import Figure, Section, Table
from .run import Serve, main

GREENLETS, CONNECTIONS = 200, 10
OURS, THEIRS = "GeventPool", "QueuePool"
OURS_RAW, PSYCOPG_POOL = "ConnectionPool, psycopg", "psycopg_pool"
FLOOR = "a semaphore of gevent's"

Lend = Callable[[], Any]
GiveBack = Callable[[Any], object]


def measure(scale: Scale, serve: Serve) -> list[Section]:
    """With a switch after each return, as between two requests, and without."""
    arguments = psycopg_arguments(serve("postgresql"))
    ours = GeventPool(Silent, max_size=CONNECTIONS)
    theirs = QueuePool(Silent, pool_size=CONNECTIONS, max_overflow=0)
    raw = ConnectionPool(lambda: psycopg.connect(**arguments), max_size=CONNECTIONS)
    semaphore = BoundedSemaphore(CONNECTIONS)
    with PsycopgPool(
        kwargs=arguments, min_size=CONNECTIONS, max_size=CONNECTIONS, open=True
    ) as theirs_raw:
        theirs_raw.wait()
        pools: dict[str, tuple[Lend, GiveBack]] = {
            OURS: (ours.connect, CLOSE),
            THEIRS: (theirs.connect, CLOSE),
            OURS_RAW: (partial(raw.core.acquire, 30.0), raw.core.release),
            PSYCOPG_POOL: (theirs_raw.getconn, theirs_raw.putconn),
            FLOOR: (semaphore.acquire, lambda _: semaphore.release()),
        }
        sections = [_section(scale, pools, is_polite) for is_polite in (True, False)]
    for pool in (ours, theirs):
        pool.dispose()
    raw.close()
    return sections


def _section(scale: Scale, pools: dict[str, tuple[Lend, GiveBack]], is_polite: bool) -> Section:
    samples = {name: _sample(*pool, is_polite) for name, pool in pools.items()}
    times = interleave(samples, scale.rounds, 3 * scale.seconds)
    if is_polite:
        title, how = "200 greenlets on 10 connections", "switches once after each return"
    else:
        title = "200 greenlets on 10 connections, no switch after a return"
        how = (
            "asks again at once, so that a pool that lets the releaser barge has no hand-over to do"
        )
    return Section(
        title,
        f"CPU time of one checkout; each greenlet switches once while it holds the connection, and {how}. "
        f"The switches count on both sides, as they do for {FLOOR} in the place of a pool. The second "
        "table says how many of the others were served between two turns of one greenlet: 199 is fair.",
        _figures(times, is_polite),
        [_turns(pools, is_polite)],
    )


def _figures(times: Times, is_judged: bool) -> list[Figure]:
    limits = (0.60, 0.40) if is_judged else ()
    return [
        ratio(times, OURS, THEIRS, *limits),
        ratio(times, OURS_RAW, PSYCOPG_POOL),
        ratio(times, OURS, FLOOR),
        ratio(times, THEIRS, FLOOR),
    ]


def _sample(lend: Lend, give_back: GiveBack, is_polite: bool) -> Sample:
    def sample(count: int) -> float:
        turns = max(1, count // GREENLETS)
        clients = [
            gevent.spawn(_client, lend, give_back, turns, is_polite) for _ in range(GREENLETS)
        ]
        began = time.process_time()
        gevent.joinall(clients, raise_error=True)
        took = time.process_time() - began
        return took * count / (turns * GREENLETS)

    return sample


def _client(lend: Lend, give_back: GiveBack, turns: int, is_polite: bool) -> None:
    for _ in range(turns):
        lent = lend()
        gevent.sleep(0)
        give_back(lent)
        if is_polite:
            gevent.sleep(0)


def _turns(pools: dict[str, tuple[Lend, GiveBack]], is_polite: bool) -> Table:
    """Who was served in which order, seen once."""
    rows = []
    for name, (lend, give_back) in pools.items():
        served: list[int] = []

        def noted(number: int, lend: Lend = lend, served: list[int] = served) -> Any:
            lent = lend()
            served.append(number)
            return lent

        clients = [
            gevent.spawn(_client, lambda n=number: noted(n), give_back, 5, is_polite)
            for number in range(GREENLETS)
        ]
        gevent.joinall(clients, raise_error=True)
        last: dict[int, int] = {}
        gaps = []
        for at, number in enumerate(served):
            if number in last:
                gaps.append(at - last[number] - 1)
            last[number] = at
        gaps.sort()
        rows.append([name, str(gaps[len(gaps) // 2]), str(gaps[0]), str(gaps[-1])])
    return Table(["others served between two turns", "median", "fewest", "most"], rows)


if __name__ == "__main__":
    main(measure)
