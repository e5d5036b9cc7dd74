"""Writes the figures of a worker's pools to a file, four times a second.

Each worker process has pools of its own, and a request reaches just one of them. So each keeps a
file `<pid>.json` in the directory that `ORDER_DESK_STATS` names, and whoever wants the sum reads
them all. A file is replaced as a whole: a reader never finds half of it.
"""

from __future__ import annotations

import json
import os
import time
from typing import Any, NoReturn

import gevent

import geventpool

VARIABLE = "ORDER_DESK_STATS"
INTERVAL = 0.25


def figures() -> dict[str, Any]:
    """The figures of this process's pools, as JSON takes them."""
    pools = [vars(pool.stats()) for pool in geventpool.pools()]
    return {
        "pid": os.getpid(),
        "pools": [{**stats, "closed": dict(stats["closed"])} for stats in pools],
    }


def start() -> None:
    """Record from now on, if the environment names a directory."""
    if os.environ.get(VARIABLE):
        gevent.spawn(_record)


def write() -> None:
    """Write the figures as they are now."""
    directory = os.environ.get(VARIABLE)
    if directory:
        # No Path: it interns its parts, four times a second, and the interpreter's table of interned
        # strings doubles once that has used it up.
        place = os.path.join(directory, str(os.getpid()))
        with open(f"{place}.part", "w") as file:
            json.dump({"time": time.time(), **figures()}, file)
        os.replace(f"{place}.part", f"{place}.json")


def _record() -> NoReturn:
    while True:
        write()
        gevent.sleep(INTERVAL)
