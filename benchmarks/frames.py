"""Python frames and C calls of one checkout: what does not depend on the machine.

python -m benchmarks.frames
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import psycopg

from geventpool import ConnectionPool

from .fakes import CLOSE, OURS, Plain, Silent, bare_core, open_all, sqlalchemy_pools
from .measure import Calls, Scale, count_calls
from .raw import dbutils_pool, django_pool, psycopg_arguments, psycopg_pool
from .result import Figure, Section, Table
from .run import Serve, main

Lend = Callable[[], Any]
GiveBack = Callable[[Any], object]


def measure(_scale: Scale, serve: Serve) -> list[Section]:
    """Of all pools."""
    arguments = psycopg_arguments(serve("postgresql"))
    with ExitStack() as stack:
        pools = _sqlalchemy(stack) | _ours(arguments, stack)
        for peer in (psycopg_pool, dbutils_pool, django_pool):
            pools |= stack.enter_context(_peer(peer, arguments))
        counts = {name: _count(*pool) for name, pool in pools.items()}
    figures = [
        Figure(f"own frames, {what}, {name}", counts[name][index].own, None, None, 5, 3)
        for name in (CORE_ALONE, RAW_SILENT, RAW_PSYCOPG, ONE_OPEN, FIVE_OPEN)
        for index, what in enumerate(("acquire", "release"))
    ]
    rows = [[name, *_cells(taken), *_cells(given)] for name, (taken, given) in counts.items()]
    header = ["pool", "own, out", "all, out", "C calls, out", "own, back", "all, back", "C, back"]
    return [
        Section(
            "Python frames and C calls of one checkout",
            "Counted by `sys.setprofile` in a checkout after a warm-up; `own`: frames of geventpool's "
            "code, its file for the driver included; `all`: the driver's and the others', too. The call "
            "of a type that is written in C is not counted.",
            figures,
            [Table(header, rows)],
        )
    ]


RAW_SILENT = "ConnectionPool.core, PyMySQL's class"
RAW_PSYCOPG = "ConnectionPool.core, psycopg"
CORE_ALONE = "ConnectionPool.core, no driver"
ONE_OPEN = f"{OURS}, PyMySQL's class, 1 open"
FIVE_OPEN = f"{OURS}, PyMySQL's class, 5 open"


def _sqlalchemy(stack: ExitStack) -> dict[str, tuple[Lend, GiveBack]]:
    pools = {}
    for count, name in ((1, ONE_OPEN), (5, FIVE_OPEN)):
        pools[name] = sqlalchemy_pools(Silent)[OURS]
        open_all(pools[name], count)
    pools[f"{OURS}, unknown DBAPI, 1 open"] = sqlalchemy_pools(Plain)[OURS]
    pools |= {name: pool for name, pool in sqlalchemy_pools(Silent).items() if name != OURS}
    for pool in pools.values():
        stack.callback(pool.dispose)
    return {name: (pool.connect, CLOSE) for name, pool in pools.items()}


def _ours(arguments: dict[str, Any], stack: ExitStack) -> dict[str, tuple[Lend, GiveBack]]:
    silent = ConnectionPool(Silent)
    real = ConnectionPool(lambda: psycopg.connect(**arguments))
    bare = bare_core()
    for pool in (silent, real, bare):
        stack.callback(pool.close)
    return {
        RAW_SILENT: (partial(silent.core.acquire, 30.0), silent.core.release),
        RAW_PSYCOPG: (partial(real.core.acquire, 30.0), real.core.release),
        CORE_ALONE: (partial(bare.acquire, 30.0), bare.release),
        "ConnectionPool.connection(), PyMySQL's class": (silent.connection, CLOSE),
    }


@contextmanager
def _peer(make: Callable[..., Any], arguments: dict[str, Any]) -> Any:
    with make(arguments) as peer:
        yield {peer.name: (peer.lend, peer.give_back)}


def _count(lend: Lend, give_back: GiveBack) -> tuple[Calls, Calls]:
    for _ in range(3):
        give_back(lend())
    taken, lent = count_calls(lend)
    box = [lent]
    del lent  # so that it ends, too, in what is counted
    given, _ = count_calls(lambda: give_back(box.pop()))
    return taken, Calls(given.own, given.frames - 1, given.c_calls - 1)


def _cells(calls: Calls) -> list[str]:
    return [str(calls.own), str(calls.frames), str(calls.c_calls)]


if __name__ == "__main__":
    main(measure)
