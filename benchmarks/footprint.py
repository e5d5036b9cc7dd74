"""Memory of a pool and of a connection in it, time and modules of an import, and the cost of `stats()`.

python -m benchmarks.footprint
"""

from __future__ import annotations

import gc
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from typing import Any

from sqlalchemy.pool import QueuePool

from geventpool import ConnectionPool
from geventpool.sqlalchemy import GeventPool

from .fakes import Silent, allow_files, from_stock, open_all
from .measure import Scale, interleave, ratio, spread, statement
from .result import Figure, Section, Table
from .run import Serve, main

CONNECTIONS, POOLS = 500, 50
OF_IDLE = 1.6


def measure(scale: Scale, _serve: Serve) -> list[Section]:
    """All three."""
    return [_memory(), _imports(scale), _stats(scale)]


def _memory() -> Section:
    allow_files(4 * CONNECTIONS)
    makers: dict[str, Callable[[Callable[[], Any]], Any]] = {
        "GeventPool": lambda creator: GeventPool(creator, max_size=CONNECTIONS),
        "ConnectionPool": lambda creator: ConnectionPool(creator, max_size=CONNECTIONS),
        "QueuePool": lambda creator: QueuePool(creator, pool_size=CONNECTIONS),
    }
    rows = {name: (_bytes_of_pool(make), _bytes_of_idle(make)) for name, make in makers.items()}
    theirs = rows["QueuePool"]
    figures = [
        Figure(f"{what}, {name} / QueuePool", rows[name][index] / theirs[index], target=limit)
        for name in ("GeventPool", "ConnectionPool")
        for index, (what, limit) in enumerate(
            (("a new pool", None), ("an idle connection", OF_IDLE))
        )
    ]
    table = Table(
        ["bytes", "a new pool", "an idle connection"],
        [[name, f"{pool:,.0f}", f"{idle:,.0f}"] for name, (pool, idle) in rows.items()],
    )
    return Section(
        "Memory",
        f"By tracemalloc: the mean of {POOLS} pools without a connection, and of {CONNECTIONS} idle "
        "connections in one pool, without the driver's connection itself. For QueuePool a connection in "
        "its queue; ours has a socket watcher and the sizing's figures of one level beside it.",
        figures,
        [table],
    )


def _bytes_of_pool(make: Callable[[Callable[[], Any]], Any]) -> float:
    make(Silent)
    kept = [None] * POOLS
    before = _traced()
    for index in range(POOLS):
        kept[index] = make(Silent)
    after = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return (after - before) / POOLS


def _bytes_of_idle(make: Callable[[Callable[[], Any]], Any]) -> float:
    pool = make(from_stock([Silent() for _ in range(CONNECTIONS)]))
    lend = getattr(pool, "connect", None) or pool.connection
    held = [lend()]
    held.pop().close()
    before = _traced()
    held = [lend() for _ in range(CONNECTIONS)]
    for lent in held:
        lent.close()
    del held, lent
    gc.collect()
    after = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    pool.dispose() if isinstance(pool, QueuePool) else pool.close()
    return (after - before) / (CONNECTIONS - 1)


def _traced() -> int:
    gc.collect()
    tracemalloc.start()
    return tracemalloc.get_traced_memory()[0]


_BASE = "from gevent import monkey; monkey.patch_all()"
_MARK = "-- what comes on top --"


def _imports(scale: Scale) -> Section:
    cases = {
        "import geventpool": (_BASE, "import geventpool"),
        "import geventpool.sqlalchemy": (
            f"{_BASE}; import sqlalchemy",
            "import geventpool.sqlalchemy",
        ),
    }
    ratios: dict[str, list[float]] = {name: [] for name in cases}
    rows = {}
    for _ in range(scale.rounds):
        seen = {name: _import(*case) for name, case in cases.items()}
        base = sum(seen["import geventpool.sqlalchemy"][0].values())
        for name, (_, after) in seen.items():
            ratios[name].append(sum(after.values()) / base)
            rows[name] = _row(name, after)
    return Section(
        "Time and modules of an import",
        "`python -X importtime`, a new process for each: what the import adds when gevent is there "
        "(for the second one SQLAlchemy, too), in units of the import of gevent and SQLAlchemy. The table "
        "says which modules are new then; a door must not pull in frameworks or drivers.",
        [
            spread(f"{name} / import gevent and sqlalchemy", values)
            for name, values in ratios.items()
        ],
        [Table(["", "own modules", "standard library", "gevent", "others"], list(rows.values()))],
    )


def _import(before: str, after: str) -> tuple[dict[str, float], dict[str, float]]:
    """Microseconds of each module imported by the one, and then by the other."""
    code = f"import sys; {before}; print({_MARK!r}, file=sys.stderr, flush=True); {after}"
    command = [sys.executable, "-X", "importtime", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    both = []
    for part in done.stderr.split(_MARK):
        lines = [line.split("|") for line in part.splitlines() if line.startswith("import time:")]
        both.append(
            {name.strip(): float(own[12:]) for own, _, name in lines if own[12:].strip().isdigit()}
        )
    # The interpreter's own modules come before the program's first line.
    names = list(both[0])
    first = names.index("gevent") if "gevent" in names else 0
    return {name: both[0][name] for name in names[first:]}, both[1]


def _row(name: str, modules: dict[str, float]) -> list[str]:
    roots = [module.partition(".")[0] for module in modules]
    standard = sum(root in sys.stdlib_module_names for root in roots)
    known = {"geventpool", "gevent", *sys.stdlib_module_names}
    others = sorted({root for root in roots if root not in known})
    return [
        name,
        str(roots.count("geventpool")),
        str(standard),
        str(roots.count("gevent")),
        ", ".join(others) or "none",
    ]


def _stats(scale: Scale) -> Section:
    pool = GeventPool(Silent)
    open_all(pool, 5)
    samples = {
        "stats()": statement("stats()", stats=pool.stats),
        "connect().close()": statement("connect().close()", connect=pool.connect),
    }
    times = interleave(samples, scale.rounds, scale.seconds)
    pool.close()
    return Section(
        "A snapshot of all figures",
        "It is for whoever looks: a checkout only counts.",
        [ratio(times, "stats()", "connect().close()")],
    )


if __name__ == "__main__":
    main(measure)
