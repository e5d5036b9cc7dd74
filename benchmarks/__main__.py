"""Runs the benchmarks, each in a process of its own, and writes RESULTS.md, results.json and plots."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from . import report
from .result import Section
from .run import VARIABLES, Servers, arguments

HERE = Path(__file__).parent
DRIVERS = {"mariadb": "pymysql", "postgresql": "psycopg"}

BENCHMARKS = (
    "checkout",
    "pre_ping",
    "raw",
    "contended",
    "round_trips",
    "latency",
    "transactions",
    "frames",
    "idle_connections",
    "footprint",
    "sizing",
    "sizing_cost",
    "observing",
    "connect_stall",
    "kills",
    "default_cap",
    "fleet",
    "end_to_end",
)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="What is claimed of speed and size, measured beside the peers.",
        epilog=f"There are: {', '.join(BENCHMARKS)}.",
    )
    arguments(parser)
    parser.add_argument(
        "--only", action="append", metavar="NAME", choices=BENCHMARKS, help="may be repeated"
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FOLDER",
        help="where to write; by default benchmarks/, but with --quick nothing is written",
    )
    options = parser.parse_args()
    folder = options.output or (None if options.quick else HERE)
    results = report.load(folder) if folder is not None else {}
    missing = []
    with servers():
        for name in options.only or BENCHMARKS:
            sections = run(name, options.quick)
            if sections is None:
                missing.append(name)
            else:
                results[name] = sections
    results = {name: results[name] for name in BENCHMARKS if name in results}
    if folder is None:
        print(report.document(results, missing))
    else:
        report.save(folder, results, missing)
        print(f"written: {folder / 'RESULTS.md'}", file=sys.stderr)
    sys.exit(1 if missing else 0)


@contextlib.contextmanager
def servers() -> Iterator[None]:
    """Servers that all benchmarks share, as if the user had named them."""
    with Servers() as running:
        for name, variable in VARIABLES.items():
            if not os.environ.get(variable):
                os.environ[variable] = running(name).url(DRIVERS[name])
        yield


def run(name: str, is_quick: bool) -> list[Section] | None:
    """One benchmark; `None`: it failed, and has said why."""
    print(f"== {name}", file=sys.stderr, flush=True)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="geventpool-bench-") as folder:
        file = Path(folder, "sections.json")
        command = [sys.executable, "-m", f"benchmarks.{name}", "--json", str(file)]
        done = subprocess.run([*command, *(["--quick"] if is_quick else [])], check=False)
        if done.returncode != 0 or not file.exists():
            print(f"{name} FAILED with code {done.returncode}", file=sys.stderr, flush=True)
            return None
        sections = [Section.from_json(one) for one in json.loads(file.read_text())]
    print(f"   {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    return sections


if __name__ == "__main__":
    main()
