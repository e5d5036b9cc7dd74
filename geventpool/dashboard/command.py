"""`geventpool dashboard`: the page, served by gevent on this machine."""

from __future__ import annotations

import signal
from pathlib import Path

import click
import gevent
from gevent.event import Event
from gevent.pywsgi import WSGIServer

from ..errors import ConfigError
from .making import make_page
from .memory import MOST_BYTES
from .security import is_loopback, new_token, token_from_environment


@click.command()
@click.option(
    "--listen",
    default="127.0.0.1:8765",
    show_default=True,
    metavar="HOST:PORT",
    help="Where to serve it; port 0: any. Beyond this machine a token is wanted.",
)
@click.option(
    "--snapshots",
    "directories",
    multiple=True,
    type=click.Path(file_okay=False, path_type=Path),
    metavar="[NAME=]DIR",
    help="Where processes publish, with the name of their host if it is not this one; may be given "
    "several times.  [default: as geventpool.observe.publish()]",
)
@click.option(
    "--memory",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The file with the last 24 hours.  [default: ~/.local/state/geventpool/dashboard.sqlite3]",
)
@click.option(
    "--memory-bytes",
    type=click.IntRange(min=1_000_000),
    default=MOST_BYTES,
    show_default=True,
    help="Its size at most.",
)
def dashboard(
    listen: str, directories: tuple[Path, ...], memory: Path | None, memory_bytes: int
) -> None:
    """Serve a page with all pools of the processes that publish them, live and for the last day.

    GEVENTPOOL_DASHBOARD_TOKEN sets the token; without it, one is made and printed if --listen is no
    address of this machine alone.
    """
    host, port = _address(listen)
    token = token_from_environment()
    if token is None and not is_loopback(host):
        token = new_token()
    page = make_page(directories, memory, token, memory_bytes)
    server = WSGIServer((host, port), page, log=None)
    try:
        server.start()
    except OSError as error:
        raise ConfigError("listen", listen, f"cannot listen there: {error.strerror}") from None
    shown = f"[{host}]" if ":" in host else host
    secret = f"?token={token}" if token else ""
    click.echo(f"http://{shown}:{server.server_port}/{secret}")
    page.collector.start()
    is_over = Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        gevent.signal_handler(number, is_over.set)
    try:
        is_over.wait()
    finally:
        server.stop(timeout=1)
        page.collector.stop()
        page.collector.memory.close()


def _address(listen: str) -> tuple[str, int]:
    host, _, port = listen.rpartition(":")
    if not (port.isascii() and port.isdecimal() and int(port) < 65536 and host):
        raise ConfigError("listen", listen, "give HOST:PORT, such as 127.0.0.1:8765")
    return host.strip("[]"), int(port)
