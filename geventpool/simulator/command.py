"""`geventpool simulate` and `geventpool trace`."""

from __future__ import annotations

import json
import re
import statistics
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, Any

import click
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, TaskID
from rich.table import Table

from ..errors import ConfigError, printable
from .families import FAMILIES, make_trace
from .outcome import Outcome
from .policies import DEFAULTS, Setting, runner
from .policies import simulate as simulate_one
from .trace import Trace, read_traces


@click.command()
@click.argument("source", metavar="TRACE")
@click.option("--policy", "policies", multiple=True, help="May be repeated; see below.")
@click.option(
    "--breakeven", default=30.0, show_default=True, help="Seconds of idling one connect is worth."
)
@click.option("--connect", default=0.02, show_default=True, help="Seconds that a connect takes.")
@click.option("--max", "max_size", default=100, show_default=True, help="Most connections at once.")
@click.option("--min-idle", default=0, show_default=True, help="Of our pool: never closes below.")
@click.option(
    "--horizon", type=float, help="Charge idling until then, or the last return if later."
)
@click.option(
    "--json", "json_file", metavar="FILE", help="Write the figures; - for standard output."
)
@click.option("--plot", "plot_file", metavar="FILE.png", help="Draw demand and connections held.")
def simulate(
    source: str,
    policies: tuple[str, ...],
    breakeven: float,
    connect: float,
    max_size: int,
    min_idle: int,
    horizon: float | None,
    json_file: str | None,
    plot_file: str | None,
) -> None:
    """Replay TRACE in virtual time, through our pool and through models of others.

    TRACE is a CSV file (or .csv.gz) with the columns t,hold in seconds, a directory of such files, or
    - for standard input.

    \b
    Policies: adaptive[:BREAKEVEN], poisson[:OPEN_INTERVAL], idle:SECONDS,
    queuepool:SIZE+OVERFLOW, queuepool:best, saautopool, djangoqueuepool,
    hikaricp[:MINIMUM_IDLE], psycopg_pool[:MIN_SIZE].

    The ratio is to the least possible cost, that of a pool which knows the future; below 1 it can
    only be where requests wait for others' connections.
    """  # noqa: D301  # the backspace is click's
    setting = Setting(breakeven, connect, max_size, min_idle, horizon)
    names = policies or DEFAULTS
    for name in names:
        runner(name)  # tells now if one is wrong, as the next two do
    _see_that_it_can_be_written(json_file)
    draw = _drawer(plot_file)
    console = _console(is_stderr=json_file == "-")
    is_many = Path(source).is_dir()
    rows: list[dict[str, Any]] = []
    for trace in read_traces(source):
        outcomes = _simulate_all(trace, names, setting)
        _tell_outcomes(console, trace, outcomes, setting)
        rows += [outcome.as_dict() for outcome in outcomes]
        draw(trace, outcomes, not is_many)
    if json_file is not None:
        _write(json_file, rows + means(rows) if is_many else rows)


def _tell_outcomes(
    console: Console, trace: Trace, outcomes: list[Outcome], setting: Setting
) -> None:
    if setting.horizon is not None and setting.horizon < trace.last_return:
        last = f"{trace.last_return:.6g} s"
        console.print(f"--horizon is before the last return: charged up to that, {last}")
    console.print(_table(trace, outcomes, setting))


def _write(path: str, rows: list[dict[str, Any]]) -> None:
    with _writing("json", path) as file:
        json.dump(rows, file, indent=1)
        file.write("\n")


@click.command()
@click.argument("family", type=click.Choice(list(FAMILIES)))
@click.option("--seed", default=0, show_default=True, help="Another one, another trace.")
@click.option("--out", default="-", metavar="FILE", help="[default: standard output]")
def trace(family: str, seed: int, out: str) -> None:
    """Make a trace of a FAMILY of loads, as CSV."""
    made = make_trace(family, seed)
    with _writing("out", out) as file:
        made.write(file)


def means(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The mean ratio of each family and policy, and of all families.

    A trace's family is its name without the numbers at its end: `ramp-1` and `ramp-2` are of one, and
    so are the files of a pool that was recorded in some processes.
    """
    ratios: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        family = re.sub(r"(?<=.)([-_.]\d+)+$", "", row["trace"])
        ratios.setdefault(row["policy"], {}).setdefault(family, []).append(row["ratio"])
    found = []
    for policy, families in ratios.items():
        each = {family: statistics.mean(its) for family, its in families.items()}
        found += [
            {"family": family, "policy": policy, "traces": len(families[family]), "ratio": ratio}
            for family, ratio in each.items()
        ]
        many = sum(map(len, families.values()))
        whole = statistics.mean(each.values())
        found.append({"family": "*", "policy": policy, "traces": many, "ratio": whole})
    return found


def _console(is_stderr: bool) -> Console:
    console = Console(stderr=is_stderr)
    if not console.is_terminal:
        console.width = 120
    return console


def _simulate_all(trace: Trace, names: tuple[str, ...], setting: Setting) -> list[Outcome]:
    outcomes = []
    with Progress(console=Console(stderr=True), transient=True) as bar:
        for name in names:
            task = bar.add_task(escape(printable(f"{trace.name}: {name}")), total=1.0)
            tell = partial(_tell, bar, task)
            outcomes.append(simulate_one(trace, name, setting, tell))
            bar.update(task, completed=1.0)
    return outcomes


def _tell(bar: Progress, task: TaskID, share: float) -> None:
    bar.update(task, completed=share)


def _table(trace: Trace, outcomes: list[Outcome], setting: Setting) -> Table:
    seconds = trace.last_return - trace.start
    table = Table(
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        title_justify="left",
        title=escape(
            f"{printable(trace.name)}: {len(trace):,} requests in {seconds:,.0f} s; one connect is "
            f"worth {setting.breakeven:g} s of idling; the least possible cost is "
            f"{outcomes[0].optimum:,.0f} s"
        ),
    )
    table.add_column("policy", no_wrap=True)
    for name in ("opens", "idle s", "waited", "p50", "p99", "max wait", "peak", "cost s", "ratio"):
        table.add_column(name, justify="right", no_wrap=True)
    for it in outcomes:
        waits = (_span(wait) for wait in (it.p50, it.p99, it.max_wait))
        table.add_row(
            it.policy,
            f"{it.opens:,}",
            f"{it.idle_seconds:,.0f}",
            f"{it.waited:,}",
            *waits,
            f"{it.peak:,}",
            f"{it.cost:,.0f}",
            f"{it.ratio:.2f}",
        )
    return table


def _span(seconds: float) -> str:
    if seconds >= 1.0:
        return f"{seconds:,.3g} s"
    return f"{seconds * 1000:.3g} ms" if seconds else "0"


def _drawer(file: str | None) -> Callable[[Trace, list[Outcome], bool], None]:
    """What draws the picture of a trace, if one is wanted.

    Raises:
        ConfigError: matplotlib is missing, it knows no such format, or there is no such directory.
    """
    if file is None:
        return lambda trace, outcomes, is_one: None
    try:
        from .plot import FORMATS, draw
    except ImportError as error:
        cure = f"needs {error.name}: pip install 'geventpool[plots]'"
        raise ConfigError("plot", file, cure) from None
    path = Path(file)
    if path.suffix.removeprefix(".").lower() not in FORMATS:
        raise ConfigError("plot", file, "give a name that ends in .png, .svg or .pdf")
    if not path.parent.is_dir():
        raise ConfigError("plot", file, f"cannot be written: there is no directory {path.parent}")

    def drawn(trace: Trace, outcomes: list[Outcome], is_one: bool) -> None:
        # One picture for each file of a directory.
        to = path if is_one else path.with_name(f"{path.stem}-{trace.name}{path.suffix}")
        try:
            draw(trace, outcomes, to)
        except OSError as error:
            raise ConfigError("plot", str(to), f"cannot be written: {error.strerror}") from None

    return drawn


def _see_that_it_can_be_written(json_file: str | None) -> None:
    """Told before a simulation that may take long; what is in the file stays until then."""
    if json_file is not None and json_file != "-":
        with _writing("json", json_file, mode="a"):
            pass


@contextmanager
def _writing(option: str, name: str, mode: str = "w") -> Iterator[IO[str]]:
    if name == "-":
        yield sys.stdout
        return
    try:
        with open(name, mode, encoding="utf-8") as file:
            yield file
    except OSError as error:
        raise ConfigError(option, name, f"cannot be written: {error.strerror}") from None
