"""The example's order desk under gunicorn: requests a second, latencies, connections opened.

python -m benchmarks.end_to_end

Driven by wrk where it is installed (Debian: `apt-get install wrk`), else by a client of our own.
"""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy.engine import make_url

from examples.demo_support.server import gunicorn
from tools import system_packages

from .desk import OPENED, OPTIONS
from .measure import Scale, spread
from .result import Figure, Section, Table
from .run import Serve, main

CLIENTS = 20
SIZES = (5, 10, 20)
PAGE = "/bench/1"
WARM_SECONDS, MOST_WARM_UPS = 1.0, 4
LOAD = 0.6  # of what QueuePool's defaults can take, in the open loop
TICK = 1 / os.sysconf("SC_CLK_TCK")
CONF = Path(__file__).with_name("gunicorn.conf.py")
ROOT = Path(__file__).parents[1]

NOTE = (
    f"One row by its key and a commit, {CLIENTS} clients ({{client}}) that wait for their answers. `CPU`: "
    "of the workers for each request. `open`: requests come at random, "
    f"{LOAD:.0%} of the rate that QueuePool's defaults took in the first round; NullPool is left out. "
    "`opened`: connections in a run and its warm-up. Absolute figures: of this machine and this run only."
)
HEADER = ["pool", "requests/s, ratio", "requests/s", "CPU", "p50", "p99", "p50, open", "p99, open"]
HEADER += ["opened", "errors"]

OURS = "GeventPool, nothing configured"
DEFAULT = "QueuePool, nothing configured"
NULL = "NullPool"


@dataclass
class Variant:
    """A pool, and how it did in each round.

    Attributes:
        name: how it is shown.
        options: the engine's.
        family: of which only the best one counts.
        rates: requests a second in the closed loop.
        cpu: CPU seconds that the workers spent on each of them.
        p50: its latencies, in seconds.
        p99: likewise.
        opened: connections opened since the server started.
        open_p50: latencies in the open loop.
        open_p99: likewise.
        errors: wrong answers.
    """

    name: str
    options: dict[str, Any]
    family: str
    rates: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    p50: list[float] = field(default_factory=list)
    p99: list[float] = field(default_factory=list)
    opened: list[int] = field(default_factory=list)
    open_p50: list[float] = field(default_factory=list)
    open_p99: list[float] = field(default_factory=list)
    errors: int = 0


def variants(sizes: tuple[int, ...] = SIZES) -> list[Variant]:
    """QueuePool's defaults first: they set the pace of the open loop."""
    found = [Variant(DEFAULT, {"poolclass": "QueuePool"}, "default")]
    for size in sizes:
        fixed = {"poolclass": "QueuePool", "pool_size": size, "max_overflow": 0}
        found.append(Variant(f"QueuePool({size})", fixed, "tuned"))
        pinged = {**fixed, "pool_pre_ping": True}
        found.append(Variant(f"QueuePool({size}), pre-ping", pinged, "pinged"))
    found.append(Variant(NULL, {"poolclass": "NullPool"}, "null"))
    found.append(Variant(OURS, {"poolclass": "GeventPool"}, "ours"))
    return found


def measure(scale: Scale, serve: Serve) -> list[Section]:
    """MariaDB and PostgreSQL, one worker and two; or only the first of each.

    Two workers are measured with the pool sizes that were best with one.
    """
    places = [("mariadb", "pymysql"), ("postgresql", "psycopg")]
    sections = []
    for server, driver in places if scale.is_full else places[:1]:
        url = serve(server).url(driver)
        sizes = SIZES if scale.is_full else SIZES[-1:]
        for workers in (1, 2) if scale.is_full else (1,):
            found = variants(sizes)
            drive(scale, url, workers, found)
            sections.append(section(url, workers, found))
            best = _best_of_each_family(found)
            sizes = tuple({best[family].options["pool_size"] for family in ("tuned", "pinged")})
    return sections


def drive(scale: Scale, url: str, workers: int, found: list[Variant]) -> None:
    """All variants by turns; each turn in web servers of its own."""
    pace = 0.0
    for _ in range(scale.end_to_end_rounds):
        for variant in found:
            with _desk(url, workers, variant) as (page, opened, parent):
                _warm_up(page, opened, min(WARM_SECONDS, scale.end_to_end_seconds))
                before = _cpu_of_children(parent)
                told = _closed(page, scale.end_to_end_seconds)
                spent = _cpu_of_children(parent) - before
                variant.cpu.append(max(spent, TICK) / max(told["requests"], 1))
                variant.rates.append(told["rate"])
                variant.p50.append(told["p50"])
                variant.p99.append(told["p99"])
                variant.errors += told["errors"]
                pace = pace or LOAD * told["rate"]
                if variant.name != NULL:
                    told = _our_client(page, scale.end_to_end_seconds, "--rate", pace)
                    variant.open_p50.append(told["p50"])
                    variant.open_p99.append(told["p99"])
                    variant.errors += told["errors"]
                variant.opened.append(opened.stat().st_size)
            print(".", end="", file=sys.stderr, flush=True)
        found[1:] = reversed(found[1:])
    print(file=sys.stderr)


def _warm_up(page: str, opened: Path, seconds: float) -> None:
    """Drives it until no more connections are opened, which some pools never cease to do."""
    for _ in range(MOST_WARM_UPS):
        before = opened.stat().st_size
        _closed(page, seconds)
        if opened.stat().st_size == before:
            return


def section(url: str, workers: int, found: list[Variant]) -> Section:
    """What came of it."""
    best = _best_of_each_family(found)
    ours = best["ours"]
    driver = make_url(url).drivername
    limits = (1.12, 1.2) if workers == 1 else ()
    figures = [
        _faster(ours, best["pinged"], *limits),
        *(_faster(ours, best[family]) for family in ("tuned", "default", "null")),
        *(_cheaper(ours, best[family]) for family in ("pinged", "tuned")),
    ]
    by_rate = sorted(found, key=lambda one: -_median(one.rates))
    rows = [_row(variant, best["pinged"]) for variant in by_rate]
    return Section(
        f"The Flask example under gunicorn, {_workers(workers)}, {driver}",
        NOTE.format(client="wrk" if _wrk() else "our own client"),
        figures,
        [Table(HEADER, rows)],
        plot={
            "ladder": {variant.name: _bars(variant, best["pinged"]) for variant in best.values()},
            "unit": f"requests a second, {best['pinged'].name} = 1",
        },
    )


def _best_of_each_family(found: list[Variant]) -> dict[str, Variant]:
    best: dict[str, Variant] = {}
    for variant in found:
        rival = best.get(variant.family)
        if rival is None or _median(variant.rates) > _median(rival.rates):
            best[variant.family] = variant
    return best


def _ratios(variant: Variant, unit: Variant) -> list[float]:
    # NullPool may give no answer at all in a round, where nothing can be made of a ratio.
    rounds = zip(variant.rates, unit.rates, strict=True)
    return [mine / other for mine, other in rounds if other] or [math.inf]


def _faster(
    ours: Variant, theirs: Variant, target: float | None = None, stretch: float | None = None
) -> Figure:
    what = f"{ours.name}, requests/s / {theirs.name}"
    return spread(what, _ratios(ours, theirs), target, stretch, is_least=True)


def _cheaper(ours: Variant, theirs: Variant) -> Figure:
    what = f"{ours.name}, CPU time of the workers for a request / {theirs.name}"
    return spread(what, [mine / other for mine, other in zip(ours.cpu, theirs.cpu, strict=True)])


def _bars(variant: Variant, unit: Variant) -> list[float | None]:
    one = spread(variant.name, _ratios(variant, unit))
    return [one.value, one.low, one.high]


def _row(variant: Variant, unit: Variant) -> list[str]:
    seconds = (variant.cpu, variant.p50, variant.p99, variant.open_p50, variant.open_p99)
    return [
        variant.name,
        f"{_median(_ratios(variant, unit)):.2f}",
        f"{_median(variant.rates):.0f}",
        *(f"{_median(values) * 1e3:.2f} ms" if values else "" for values in seconds),
        f"{_median(variant.opened):.0f}",
        str(variant.errors),
    ]


def _median(values: list[Any]) -> float:
    return spread("", values).value


def _workers(count: int) -> str:
    return "1 worker" if count == 1 else f"{count} workers"


@contextmanager
def _desk(url: str, workers: int, variant: Variant) -> Iterator[tuple[str, Path, int]]:
    """The order desk: the page's URL, the file with a byte for each connection, gunicorn's number."""
    with tempfile.TemporaryDirectory(prefix="geventpool-bench-") as folder:
        opened = Path(folder, "opened")
        opened.touch()
        os.environ[OPTIONS] = json.dumps(variant.options)
        os.environ[OPENED] = str(opened)
        _seed(url)
        log = Path(folder, "log")
        with gunicorn(url, workers, Path(folder), log, CONF) as server:
            yield server.url + PAGE, opened, server.process.pid


def _cpu_of_children(parent: int) -> float:
    """CPU seconds of the worker processes by now."""
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    ticks = 0
    for child in children:
        fields = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks * TICK


def _seed(url: str) -> None:
    """Makes the tables and rows, once for each database."""
    if url in _seeded:
        return
    code = (
        "from benchmarks.desk import create_app\n"
        "from examples.flask_app.seed import seed\n"
        "with create_app().app_context(): seed(50)"
    )
    environ = {**os.environ, "DATABASE_URL": url}
    subprocess.run([sys.executable, "-c", code], env=environ, cwd=ROOT, check=True)
    _seeded.add(url)


_seeded: set[str] = set()


def _wrk() -> str | None:
    return system_packages.find("wrk")


def _closed(page: str, seconds: float) -> dict[str, Any]:
    """20 clients, each of which waits for its answer."""
    wrk = _wrk()
    if wrk is None or seconds < 1:  # wrk counts whole seconds
        return _our_client(page, seconds, "--clients", CLIENTS)
    command = [wrk, "--latency", "-t1", f"-c{CLIENTS}", f"-d{round(seconds)}s", page]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return read_wrk(done.stdout)


def read_wrk(text: str) -> dict[str, Any]:
    """What wrk says, in seconds."""
    errors = sum(int(number) for number in re.findall(r"responses: (\d+)", text))
    for line in re.findall(r"Socket errors: (.*)", text):
        errors += sum(int(number) for number in re.findall(r"\d+", line))
    (requests,) = re.findall(r"(\d+) requests in", text)
    (rate,) = re.findall(r"Requests/sec: +([\d.]+)", text)
    return {
        "requests": int(requests),
        "rate": float(rate),
        "p50": _wait(text, "50%"),
        "p99": _wait(text, "99%"),
        "errors": errors,
    }


def _wait(text: str, label: str) -> float:
    ((number, unit),) = re.findall(rf"\s{label} +([\d.]+)(us|ms|s|m)\b", text)
    return float(number) * {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0}[unit]


def _our_client(page: str, seconds: float, mode: str, value: float) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.http_client", page]
    command += ["--seconds", str(seconds), mode, str(value)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    told: dict[str, Any] = json.loads(done.stdout)
    return told


if __name__ == "__main__":
    main(measure)
