"""`geventpool top`: what the pools of all processes of this machine do, live in a terminal."""

from __future__ import annotations

import json
import math
import re
import time
from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ..errors import printable
from .files import default_directory, read_snapshots
from .interrupt import hear_ctrl_c
from .text import by_name, now_line, seconds, slowest, tell

_BLOCKS = " ▁▂▃▄▅▆▇█"
_HISTORY = 24
_ROWS = 8
_LONGEST = 200
# All folders of a path but the last.
_FOLDERS = re.compile(r"(?<![\w.-])/?(?:[^/\s]+/)+(?=[^/\s]+/[^/\s]+:\d)")


@click.command()
@click.option(
    "--directory",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where processes publish.  [default: as geventpool.observe.publish()]",
)
@click.option("--once", is_flag=True, help="Print a report and end.")
@click.option(
    "--json", "as_json", is_flag=True, help="With --once: as JSON, one object per process."
)
@click.option(
    "--interval", type=click.FloatRange(0.1, 60), default=1.0, show_default=True, help="Seconds."
)
def top(directory: Path | None, once: bool, as_json: bool, interval: float) -> None:
    """Show pools, holders, slow queries and blocked hubs of the processes that publish them.

    They do so after geventpool.observe.publish(); nothing is asked of them, files are read.
    """
    if math.isnan(interval):  # which click takes for one within the range
        raise click.BadParameter("nan is no number of seconds.", param_hint="--interval")
    if as_json and not once:
        raise click.UsageError("--json needs --once")
    where = directory or default_directory()
    if not where.is_dir():
        raise click.ClickException(
            f"there is no directory {where}: call geventpool.observe.publish() in the program, "
            "or give its --directory"
        )
    if once:
        said = read_snapshots(where)
        click.echo(json.dumps(said, indent=2) if as_json else tell(said), nl=as_json)
        return
    _watch(where, interval)


def _watch(directory: Path, interval: float) -> None:
    """Until Ctrl-C."""
    screen = Screen()
    console = Console()
    with Live(console=console, screen=console.is_terminal, auto_refresh=False) as live:
        try:
            hear_ctrl_c()
            while True:
                live.update(screen.render(read_snapshots(directory)), refresh=True)
                time.sleep(interval)
        except KeyboardInterrupt:
            pass


class Screen:
    """What is shown, with the little that is remembered of before."""

    def __init__(self) -> None:
        self._demand: dict[tuple[int, str], deque[float]] = defaultdict(
            lambda: deque(maxlen=_HISTORY)
        )

    def render(self, snapshots: Sequence[Mapping[str, Any]]) -> RenderableType:
        """All processes as they are now."""
        if not snapshots:
            return Text("No process publishes here: call geventpool.observe.publish() there.")
        parts: list[RenderableType] = [self._pools(snapshots)]
        parts += [_cell(line) for line in _waits(snapshots)]
        for table in (_holders(snapshots), _queries(snapshots), _hubs(snapshots)):
            if table.row_count:
                parts.append(table)
        return Group(*parts)

    def _pools(self, snapshots: Sequence[Mapping[str, Any]]) -> Table:
        # Numbers first, and what is long in a line of its own below them: it fits into 80 columns.
        numbers = ("use", "idle", "max", "wait", "level", "demand")
        table = _table("pools", ("pid", "pool", *numbers), "demand over time")
        for said in snapshots:
            for pool in said["pools"]:
                history = self._demand[said["pid"], pool["name"]]
                history.append(pool["mean_in_use"])
                cells = (
                    said["pid"],
                    pool["name"],
                    pool["in_use"],
                    pool["idle"],
                    "none" if pool["max_size"] is None else f"{pool['max_size']:g}",
                    pool["waiting"],
                    pool["level"],
                    f"{pool['mean_in_use']:.2f}",
                    sparkline(history, pool["level"]),
                )
                table.add_row(*map(_cell, cells))
        return table


def sparkline(values: Sequence[float], level: float) -> str:
    """Demand over time, full height being the level of now or the most of then."""
    most = max(level, *values)
    last = len(_BLOCKS) - 1
    return "".join(_BLOCKS[round(value / most * last)] if most else _BLOCKS[0] for value in values)


def _waits(snapshots: Sequence[Mapping[str, Any]]) -> list[str]:
    """Why callers have waited, and for what they gave up; nothing of pools where nobody has."""
    return [
        f"{said['pid']} {pool['name']}: waits: {by_name(pool['wait_reasons'])}; "
        f"timeouts: {by_name(pool['timeout_reasons'])}"
        for said in snapshots
        for pool in said["pools"]
        if pool["wait_reasons"] or pool["timeout_reasons"]
    ]


def _holders(snapshots: Sequence[Mapping[str, Any]]) -> Table:
    table = _table("holders, longest first", ("pid", "state", "held", "in trans.", "sent"), "where")
    found = [
        (said["pid"], holder) for said, pool in _observed(snapshots) for holder in pool["holders"]
    ]
    for pid, holder in sorted(found, key=lambda one: -one[1]["held_for"])[:_ROWS]:
        transaction = holder["in_transaction_for"]
        taken, now = short(holder["site"]), short(now_line(holder))
        row = (
            pid,
            holder["state"].partition(" ")[0],  # in which transaction the next but one says
            seconds(holder["held_for"]),
            "" if transaction is None else seconds(transaction),
            holder["queries"],
            f"{taken}; now {now}" if now and now != taken else taken,
        )
        table.add_row(*map(_cell, row))
    return table


def _queries(snapshots: Sequence[Mapping[str, Any]]) -> Table:
    table = _table("slowest queries", ("calls", "mean", "p99", "max"), "query, sent at")
    found = [
        query
        for _, pool in _observed(snapshots)
        if pool["queries"] is not None
        for query in pool["queries"]["top"]
    ]
    for query in slowest(found)[:_ROWS]:
        times = (seconds(query[name]) for name in ("mean", "p99", "longest"))
        where = f"{query['query'][:_LONGEST]}; at {short(query['site'])}"
        table.add_row(*map(_cell, (query["calls"], *times, where)))
    return table


def _hubs(snapshots: Sequence[Mapping[str, Any]]) -> Table:
    table = _table("blocked hubs", ("pid", "times", "in sum", "longest"), "at")
    for said in snapshots:
        hub = said["hub"]
        if hub is not None and hub["longest"] is not None:
            longest = hub["longest"]
            times = (seconds(hub["blocked_seconds"]), seconds(longest["seconds"]))
            row = (said["pid"], hub["blocks"], *times, short(longest["site"]))
            table.add_row(*map(_cell, row))
    return table


def short(site: str) -> str:
    """A call site with the last two names of each path: `desk/orders.py:60 in list_orders`."""
    return _FOLDERS.sub("", site)


def _observed(
    snapshots: Sequence[Mapping[str, Any]],
) -> list[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    return [
        (said, pool["observed"])
        for said in snapshots
        for pool in said["pools"]
        if pool["observed"] is not None
    ]


def _table(title: str, figures: Sequence[str], text: str) -> Table:
    """Figures in columns that are as wide as they are, and one that takes what is left."""
    table = Table(
        title=title, title_justify="left", expand=True, box=SIMPLE_HEAD, padding=(0, 1, 0, 0)
    )
    for column in figures:
        table.add_column(column, no_wrap=True)
    table.add_column(text, overflow="fold", ratio=1)
    return table


def _cell(value: object) -> Text:
    """Another process's text: neither markup nor control characters mean anything in it."""
    return Text(printable(value))
