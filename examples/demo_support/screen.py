"""What the demo shows in the terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Group, RenderableType
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

BLOCKS = "▁▂▃▄▅▆▇█"
SPARKLINE = 56


class Screen:
    """A progress bar, a line for each worker and their sum, and the last figures as bars."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.progress = Progress(
            TextColumn("[bold]{task.description:<12}"),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[clients]:>2} clients"),
            TextColumn("{task.fields[requests]:>5} requests"),
            TextColumn("{task.fields[errors]} errors"),
            TimeRemainingColumn(),
            expand=True,
        )
        self.task = self.progress.add_task(
            "starting", total=seconds, clients=0, requests=0, errors=0
        )

    def update(self, said: dict[str, Any], at: float) -> None:
        """Take over what the clients said last."""
        if said:
            self.progress.update(
                self.task,
                description=said["phase"],
                completed=min(at, self.seconds),
                clients=said["clients"],
                requests=said["requests"],
                errors=said["errors"],
            )

    def render(
        self,
        workers: dict[int, dict[str, float]],
        total: dict[str, float],
        history: dict[str, list[float]],
    ) -> RenderableType:
        """The whole screen."""
        return Group(
            self.progress,
            _workers_table(workers, total),
            _sparkline("in use", history["in_use"], "cyan"),
            _sparkline("held", history["size"], "green"),
        )


def _workers_table(workers: dict[int, dict[str, float]], total: dict[str, float]) -> Table:
    table = Table(box=None, padding=(0, 1))
    table.add_column("worker")
    names = ("in_use", "idle", "waiting", "level", "opened", "closed", "checkouts")
    for name in names:
        table.add_column(name.replace("_", " "), justify="right", min_width=7)
    for pid, figures in workers.items():
        table.add_row(str(pid), *(f"{figures[name]:.0f}" for name in names))
    table.add_row("all", *(f"{total[name]:.0f}" for name in names), style="bold")
    return table


def _sparkline(title: str, values: list[float], style: str) -> str:
    """The figures of the last seconds as bars, with the highest of them."""
    values = values[-SPARKLINE:]
    top = max(values, default=0.0)
    last = len(BLOCKS) - 1
    bars = "".join(BLOCKS[round(value / top * last)] if top else BLOCKS[0] for value in values)
    return f"{title:>8}  [{style}]{bars:<{SPARKLINE}}[/]  most {top:.0f}"


def summary(title: str, load: dict[str, Any], total: dict[str, float], most: float) -> Table:
    """What came of it, as a table."""
    table = Table(title=title, show_header=False, title_justify="left", min_width=64)
    table.add_column("figure")
    table.add_column("value", justify="right")
    waited = total["wait_seconds"] / total["waits"] * 1000 if total["waits"] else 0.0
    rows = [
        ("requests", f"{load['requests']:,}"),
        ("failed requests", f"{load['errors']:,}"),
        ("time of a request (/bad/hold aside), median", f"{load['p50'] * 1000:.1f} ms"),
        ("… 99th percentile", f"{load['p99'] * 1000:.1f} ms"),
        ("connections opened", f"{total['opened']:.0f}"),
        ("connections closed", f"{total['closed']:.0f}"),
        ("most connections held at once", f"{most:.0f}"),
        ("held at the end", f"{total['size']:.0f}"),
        ("checkouts", f"{total['checkouts']:,.0f}"),
        ("… checked with a round trip (ping)", f"{total['pings']:.0f}"),
        ("… that waited for a connection", f"{total['waits']:,.0f}"),
        ("… and for how long, on average", f"{waited:.1f} ms"),
        ("… that timed out", f"{total['timeouts']:.0f}"),
    ]
    for name, value in rows:
        table.add_row(name, value)
    return table
