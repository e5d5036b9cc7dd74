"""`geventpool fleet`: who has how many of a fleet's connections, and who is short of one."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..errors import printable
from .host import Folder, directory_of_host
from .rows import Row, rightful, smallest_size

_COLUMNS = ("host", "pid", "granted", "in use", "waiting", "rightful", "")


@click.command()
@click.argument("name", required=False)
@click.option(
    "--directory",
    type=click.Path(file_okay=False, path_type=Path),
    help='What `fleet=` says.  [default: that of fleet="host"]',
)
def fleet(name: str | None, directory: Path | None) -> None:
    """Show who has how many of a fleet's connections.

    NAME is a part of the names of the fleets to show. Nothing is asked of the members.
    """
    where = directory or directory_of_host()
    try:
        found = sorted(path for path in where.iterdir() if (name or "") in path.name)
    except OSError as error:
        raise click.ClickException(f"{where}: {error.strerror}; is fleet= set?") from None
    if not found:
        raise click.ClickException(f"no such fleet is in {where}")
    console = Console()
    for path in found:
        try:
            rows = Folder(path, is_new=False).rows()
        except OSError as error:
            raise click.ClickException(f"{path}: {error.strerror}") from None
        console.print(table(path.name, rows, time.monotonic()))


def table(name: str, rows: list[Row], now: float) -> Table:
    """One fleet."""
    granted = sum(row.granted for row in rows)
    title = f"{printable(name)}: {granted} of {smallest_size(rows)}"
    made = Table(title=title, title_justify="left", box=SIMPLE_HEAD)
    for column in _COLUMNS:
        made.add_column(column, no_wrap=True)
    theirs = rightful(rows, now, asks=-1)
    for row in rows:
        figures = (row.pid, row.granted, row.in_use, row.waiting, theirs[row.slot])
        cells = (socket.gethostname(), *figures, "is short" if row.is_in_want(now) else "")
        made.add_row(*(Text(str(cell)) for cell in cells))
    return made
