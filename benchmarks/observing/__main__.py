"""`connect; select 1; close` on MariaDB, observed more and more, beside the same pool unobserved.

python -m benchmarks.observing
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from sqlalchemy import create_engine, text
from sqlalchemy.engine import Engine

import geventpool.observe
from geventpool.sqlalchemy import GeventPool

from ..measure import Sample, Scale, interleave, ratio
from ..result import Section
from ..run import Serve, main

UNOBSERVED = "unobserved"
# What the callers of a web framework put on the stack, which is walked.
DEPTH = 40
OBSERVED: dict[str, tuple[dict[str, Any], float]] = {
    "figures": ({"figures_only": True}, 1.02),
    "figures and queries": ({"stacks": 0}, 1.10),
    "figures, queries and the stacks of one checkout in ten": ({"stacks": 0.1}, 1.25),
    "figures, queries and all stacks": ({"stacks": 1}, 1.25),
}


def measure(scale: Scale, serve: Serve) -> list[Section]:
    """With PyMySQL: short turns, because what is to be seen is a few per cent."""
    url = serve("mariadb").url("pymysql")
    engines = {name: create_engine(url, poolclass=GeventPool) for name in (UNOBSERVED, *OBSERVED)}
    for name, (settings, _) in OBSERVED.items():
        geventpool.observe.attach(engines[name], **settings)
    sections = []
    for title, note, timer, is_judged in (
        (
            "What observing costs: connect, select 1, close, on MariaDB",
            "Elapsed time",
            time.perf_counter,
            True,
        ),
        (
            "The same in this process's processor time",
            "Without what the server takes, so that the ratios are higher; other programs count less",
            time.process_time,
            False,
        ),
    ):
        samples = {name: _sample(engine, timer) for name, engine in engines.items()}
        times = interleave(samples, scale.rounds * 10, scale.seconds / 5)
        figures = [
            ratio(times, name, UNOBSERVED, limit if is_judged else None)
            for name, (_, limit) in OBSERVED.items()
        ]
        note = f"{note}, {DEPTH} frames deep, the unobserved pool being 1."
        sections.append(Section(title, note, figures))
    for engine in engines.values():
        engine.dispose()
    return sections


def _sample(engine: Engine, timer: Callable[[], float]) -> Sample:
    query = text("select 1")

    def run(times: int) -> float:
        began = timer()
        for _ in range(times):
            with engine.connect() as connection:
                connection.execute(query)
        return timer() - began

    return lambda times: _deeper(DEPTH, run, times)


def _deeper(depth: int, run: Callable[[int], float], times: int) -> float:
    return run(times) if not depth else _deeper(depth - 1, run, times)


if __name__ == "__main__":
    main(measure)
