"""Shows a geventpool at work: the order desk under gunicorn, with a load that changes.

`python examples/demo.py [sqlite|mysql|postgresql]`. Starts everything that it needs on this
machine, and ends it.
"""

from __future__ import annotations

import signal
import sys
import tempfile
import time
from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path
from typing import NoReturn

import click
from rich.console import Console
from rich.live import Live

sys.path.insert(0, str(Path(__file__).resolve().parent))

from demo_support.screen import Screen, summary
from demo_support.server import (
    DemoError,
    Load,
    add_up,
    clients,
    dashboard,
    database,
    gunicorn,
    read_stats,
)

INTERVAL = 0.25
RESULTS = Path(__file__).resolve().parent.parent / "build" / "demo"


@click.command()
@click.argument(
    "kind",
    metavar="[sqlite|mysql|postgresql]",
    type=click.Choice(["sqlite", "mysql", "postgresql"]),
    default="sqlite",
)
@click.option(
    "--seconds", type=click.FloatRange(4, 3600), default=60, show_default=True, help="The load."
)
@click.option(
    "--workers", type=click.IntRange(1, 16), default=2, show_default=True, help="Of gunicorn."
)
@click.option(
    "--plot",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The picture's file; logs go beside it.  [default: build/demo/pool-DATABASE.png]",
)
@click.option("--keep", is_flag=True, help="Afterwards, keep the desk and its page until Ctrl-C.")
@click.option("--no-color", is_flag=True, help="Plain text.")
def main(
    kind: str, seconds: float, workers: int, plot: Path | None, keep: bool, no_color: bool
) -> None:
    """Run the order desk under gunicorn and a changing load, and watch its pools.

    mysql and postgresql start a private server of their own; DATABASE_URL names another one.
    """
    console = Console(no_color=no_color, highlight=False)
    plot = plot or RESULTS / f"pool-{kind}.png"
    for number in (signal.SIGTERM, signal.SIGINT):  # a script's background job inherits it ignored
        signal.signal(number, _leave)
    try:
        failed = run(console, kind, seconds, workers, plot, keep)
    except DemoError as error:
        console.print(f"[bold red]The demo failed:[/] {error}", soft_wrap=True)
        sys.exit(1)
    except KeyboardInterrupt:
        console.print("\nStopped; nothing is left running.")
        sys.exit(130)
    sys.exit(1 if failed else 0)


def run(console: Console, kind: str, seconds: float, workers: int, plot: Path, keep: bool) -> bool:
    """Do it all; whether any request failed."""
    plot.parent.mkdir(parents=True, exist_ok=True)
    log = plot.with_suffix(".gunicorn.log")
    history: dict[str, list[float]] = defaultdict(list)
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="geventpool-")))
        console.print(f"Starting {kind} and gunicorn with {workers} workers …")
        url = stack.enter_context(database(kind, directory))
        snapshots = directory / "snapshots"
        server = stack.enter_context(gunicorn(url, workers, directory, log, snapshots=snapshots))
        address = server.url
        page = stack.enter_context(dashboard(snapshots, directory))
        console.print(f"The order desk is at {address} with its default pool settings.")
        console.print(f"[bold]Its pools are shown at {page}[/]")
        load = stack.enter_context(clients(address, seconds, plot.with_suffix(".clients.log")))
        watch(console, load, directory, seconds, history)
        total = add_up(read_stats(directory))
        if keep:
            wait_for_ctrl_c(console, f"\nThe page {page} and the desk are kept; Ctrl-C ends them.")
    console.print()
    title = f"The pools of {workers} workers on {kind}"
    console.print(summary(title, load.said, total, max(history["size"], default=0)))
    for failure in load.said["failures"]:
        console.print(f"[red]failed:[/] {failure}", soft_wrap=True)
    if load.said["errors"]:
        console.print(f"gunicorn's log: {log}", soft_wrap=True)

    # Takes a second to import, which nobody should wait for at the start.
    from demo_support.chart import draw

    draw(plot, f"geventpool on {kind}: {workers} gunicorn workers", seconds, history)
    console.print(f"Level and demand over time: {plot}", soft_wrap=True)
    return bool(load.said["errors"])


def wait_for_ctrl_c(console: Console, told: str) -> None:
    """Until it is pressed, which then is no failure: from the moment on in which it is told."""
    try:
        console.print(told)
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        pass


def watch(
    console: Console,
    load: Load,
    directory: Path,
    seconds: float,
    history: dict[str, list[float]],
) -> None:
    """Show the pools and keep their figures until the load is done."""
    screen = Screen(seconds)
    with Live(console=console, auto_refresh=False) as live:
        while load.is_running:
            workers = read_stats(directory)
            total = add_up(workers)
            if load.started is not None:
                at = time.monotonic() - load.started
                history["at"].append(at)
                for name, value in total.items():
                    history[name].append(value)
                screen.update(load.said, at)
            live.update(screen.render(workers, total, history), refresh=True)
            time.sleep(INTERVAL)
        screen.update(load.said, seconds)
        live.update(screen.render(workers, total, history), refresh=True)


def _leave(*_: object) -> NoReturn:
    """A signal to end: everything is cleaned up on the way out."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
