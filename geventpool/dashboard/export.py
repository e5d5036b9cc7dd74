"""A stretch of time as a file: figures as CSV or JSON, and a load for `geventpool simulate`."""

from __future__ import annotations

import csv
import io
import json
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from .collector import Collector
from .memory import step_for
from .records import COUNTS, GAUGES, Record, count, wait_at
from .views import Query

_MOST_REQUESTS: Final = 1_000_000
_MOST_ROWS: Final = 5000

Kind = Callable[[Collector, Query], Iterator[bytes]]


def _rows(collector: Collector, query: Query) -> Iterator[tuple[int, str, Record]]:
    """All pools that are asked for, the oldest first."""
    now = collector.now.at or time.time()
    begin, end = query.stretch(now)
    step = step_for(begin, end, now, _MOST_ROWS)
    column = "processes" if query.process else "pools"
    wanted = f"{query.process}/{query.pool}" if query.process and query.pool else query.pool
    for at, tick in collector.memory.read(begin, end, step, column):
        for name, one in tick.items():
            if not wanted or name == wanted:
                yield at, name, one


def as_csv(collector: Collector, query: Query) -> Iterator[bytes]:
    """A row for each pool and moment. A cell that a spreadsheet would take for a formula is quoted."""
    names = ("at", "seconds", "pool", *GAUGES, "peak", *COUNTS, "wait_p50", "wait_p99")
    yield _line(names)
    for at, name, one in _rows(collector, query):
        safe = f"'{name}" if name[:1] in "=+-@\t\r" else name
        quantiles = (wait_at(one, 0.5), wait_at(one, 0.99))
        yield _line((at, one["n"], safe, *one["g"], one["p"], *one["c"], *quantiles))


def _line(cells: Any) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue().encode()


def as_json(collector: Collector, query: Query) -> Iterator[bytes]:
    """The same as one JSON document, with errors by why."""
    yield b'{"rows":['
    comma = b""
    for at, name, one in _rows(collector, query):
        row = {
            "at": at,
            "seconds": one["n"],
            "pool": name,
            **dict(zip(GAUGES, one["g"], strict=True)),
            "peak": one["p"],
            **dict(zip(COUNTS, one["c"], strict=True)),
            "wait_p50": wait_at(one, 0.5),
            "wait_p99": wait_at(one, 0.99),
            "timeout_reasons": one["e"],
            "wait_reasons": one["r"],
        }
        yield comma + json.dumps(row).encode()
        comma = b","
    yield b"]}"


def as_trace(collector: Collector, query: Query) -> Iterator[bytes]:
    """The load, as far as counts tell: each step's checkouts evenly spread, all held for the same time."""
    yield b"t,hold\n"
    left = _MOST_REQUESTS
    for at, _, one in _rows(collector, query):
        many = min(round(count(one, "checkouts")), left)
        if not many:
            continue
        hold = count(one, "hold_seconds") / many
        left -= many
        step = (one["n"] or 1) / many
        yield "".join(f"{at + n * step:.6f},{hold:.6f}\n" for n in range(many)).encode()


KINDS: Final[Mapping[str, Kind]] = {
    "export.csv": as_csv,
    "export.json": as_json,
    "trace.csv": as_trace,
}
"""By the name of the file."""
