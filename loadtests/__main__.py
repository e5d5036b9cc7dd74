"""The load tests' command line: `python -m loadtests --help`."""

from __future__ import annotations

import dataclasses
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from sqlalchemy.exc import SQLAlchemyError

from benchmarks.report import machine

from . import compare, page, pools, turn
from .faults import FAULTS
from .figures import by_pool, judge, median, milliseconds
from .paths import parse_path
from .server_view import ServerView
from .shapes import SHAPES
from .turn import HERE, LoadTestError, Plan, Turn

REPORT = HERE / "report"
QUICK_SECONDS = 7.0
WEB_PEAK = 40
OVERLOAD_GIVE_UP = 2.0
DEFAULT = Plan()
APP_NOTE = (
    "Each turn was a run of its own, at a time of its own, beside whatever else was running then."
)


@click.group()
def main() -> None:
    """Put the same load on each pool, and show what comes of it."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


def load_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What every load takes."""
    for option in (
        click.option("--seed", default=DEFAULT.seed, show_default=True, help="Of what is random."),
        click.option(
            "--rate", default=DEFAULT.rate, show_default=True, help="Requests a second of a user."
        ),
        click.option("--peak", type=click.IntRange(1), help="Users at the shape's highest."),
        click.option(
            "--seconds",
            type=click.FloatRange(2),
            help="The whole shape is compressed into so many.  [default: 30]",
        ),
        click.option(
            "--give-up",
            type=click.FloatRange(0.01),
            help="Seconds after which a user waits no longer.  [default: overload 2, else never]",
        ),
        click.option(
            "--shape",
            type=click.Choice(list(SHAPES)),
            default=DEFAULT.shape,
            show_default=True,
            help="How the load changes.",
        ),
        click.option(
            "--output",
            type=click.Path(file_okay=False, path_type=Path),
            help="The report's folder.  [default: in loadtests/report]",
        ),
    ):
        command = option(command)
    return command


@main.command("compare")
@click.option(
    "--database",
    type=click.Choice(list(compare.SERVERS)),
    default="mysql",
    show_default=True,
    help="Start a private server of this kind.",
)
@click.option("--url", help="Use this database instead; SQLAlchemy's URL.")
@click.option(
    "--no-tls",
    is_flag=True,
    help="Spare PyMySQL's connects the preparation for TLS, 20 ms each with any other pool.",
)
@click.option(
    "--pool",
    "names",
    multiple=True,
    help="A pool, instead of all; also NAME={JSON of create_engine's arguments}.",
)
@click.option("--rounds", type=click.IntRange(1), help="Turns of each pool.  [default: 2]")
@click.option("--quick", is_flag=True, help=f"One round, of {QUICK_SECONDS:g} s each.")
@click.option("--fault", type=click.Choice(list(FAULTS)), help="What goes wrong in the middle.")
@click.option("--fault-seconds", type=click.FloatRange(0.1), default=DEFAULT.fault_seconds)
@click.option(
    "--locustfile",
    type=click.Path(exists=True, dir_okay=False),
    default=DEFAULT.locustfile,
    help="What the users do.  [default: loadtests/shop.py]",
)
@click.option("--web", is_flag=True, help="Drive the example application under gunicorn.")
@click.option("--workers", type=click.IntRange(1, 16), default=2, help="gunicorn's, with --web.")
@load_options
def compare_command(
    database: str,
    url: str | None,
    no_tls: bool,
    names: tuple[str, ...],
    rounds: int | None,
    quick: bool,
    web: bool,
    workers: int,
    output: Path | None,
    **load: Any,
) -> None:
    """Compare pools on a private server, or on the database that --url names."""
    if quick and load["seconds"] is None:
        load["seconds"] = QUICK_SECONDS
    rounds = rounds or (1 if quick else 2)
    output = output or REPORT
    with _telling():
        if web and load["locustfile"] != DEFAULT.locustfile:
            raise LoadTestError("--web and --locustfile: give one of them")
        plan = _plan(web, **load)
        named = [dataclasses.replace(pools.parse(name), is_aside=False) for name in names]
        variants = named or list(pools.VARIANTS.values())
        page.make_folder(output)
        if url is not None:
            with ServerView(url) as view:
                view.connections()  # before anything is started
        with compare.database(database, url, not no_tls) as place:
            compare.check(variants, place.url)
            web_workers = workers if web else None
            turns = compare.run(place, variants, plan, rounds, web_workers, click.echo)
        _report(turns, output, _notes(rounds, place.url))


def _plan(
    web: bool,
    shape: str,
    peak: int | None,
    seconds: float | None,
    give_up: float | None,
    **load: Any,
) -> Plan:
    """The load, with what is usual where nothing was said."""
    if peak is None:
        peak = WEB_PEAK if web else DEFAULT.peak
        if shape == "overload" and not web:
            peak = compare.capacity(load["rate"])
    if give_up is None and shape == "overload":
        give_up = OVERLOAD_GIVE_UP
    if web:
        load["locustfile"] = str(HERE / "web.py")
    return Plan(shape, seconds or DEFAULT.seconds, peak, give_up=give_up, **load)


@main.command("app")
@click.argument("address")
@click.option("--label", required=True, help="What is tested, as the report shall call it.")
@click.option("--path", "paths", multiple=True, help="A path, or WEIGHT:PATH.  [default: /]")
@click.option("--url", help="The application's database, to see what its server sees.")
@load_options
def app_command(
    address: str,
    label: str,
    paths: tuple[str, ...],
    url: str | None,
    output: Path | None,
    **load: Any,
) -> None:
    """Put a load on your application at ADDRESS, and add it to the report.

    Run it once for each pool, with a label of its own and the same --output.
    """
    output = output or REPORT / "app"
    plan = _plan(True, **load)
    arguments = ["--host", address.rstrip("/")]
    for path in paths:
        arguments += ["--path", path]
    with _telling():
        for path in paths:
            parse_path(path)
        before, _ = page.read(output)
        number = 1 + sum(one.title == label for one in before)
        if before and before[0].plan != dataclasses.asdict(plan):
            raise LoadTestError(
                f"the report in {output} is of another load: give the same options, or another --output"
            )
        page.make_folder(output)
        turn.look_for(address)
        one = turn.take(label, number, plan, arguments, url)
        _report([*before, one], output, [APP_NOTE, machine()])


@main.command("soak")
@click.option("--minutes", type=click.FloatRange(0.2), default=30, show_default=True)
@click.option("--workers", type=click.IntRange(1, 16), default=4, show_default=True)
@click.option("--database", type=click.Choice(list(compare.SERVERS)), default="mysql")
@click.option("--output", type=click.Path(file_okay=False, path_type=Path), default=REPORT / "soak")
def soak_command(minutes: float, workers: int, database: str, output: Path) -> None:
    """Run the example application for long: memory, descriptors and connections stay as they are."""
    from . import soak

    with _telling(), compare.database(database, None) as place:
        found = soak.run(place.url, workers, minutes * 60, output, click.echo)
    for line in found.lines():
        click.echo(line)
    sys.exit(0 if found.holds else 1)


class _telling:  # noqa: N801 # reads as what it is
    """Errors that the user can do something about are told without a traceback."""

    def __enter__(self) -> None:
        """Nothing to do."""

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        if isinstance(error, (LoadTestError, ValueError)):
            raise click.ClickException(str(error)) from error
        if isinstance(error, (SQLAlchemyError, OSError, ImportError)):
            raise click.ClickException(
                f"{type(error).__name__}: {error}".partition("\n")[0]
            ) from error


def _notes(rounds: int, url: str | None) -> list[str]:
    turns = "one turn" if rounds == 1 else f"{rounds} turns"
    where = "" if url is None else f" on {url.partition(':')[0]}"
    return [
        f"Each pool had {turns}{where} (NullPool and poisson one, when all are compared), in a process "
        "of its own, one after the other; every other round backwards. Load, pools and server share "
        "one machine unless you have told otherwise: trust ratios and counts before milliseconds.",
        machine(),
    ]


def _report(turns: list[Turn], folder: Path, notes: list[str]) -> None:
    written = page.write(turns, folder, notes)
    click.echo(f"\n{'':42}{'errors':>8}{'p99':>11}{'opened':>8}{'conn. seconds':>15}")
    for title, rounds in by_pool(turns).items():
        one = median(rounds)
        click.echo(
            f"{title:42}{one['errors']:>8.0f}{milliseconds(one['p99']):>11}{one['opened']:>8.0f}"
            f"{one['connection seconds']:>15.0f}"
        )
    for verdict in judge(turns):
        mark = "holds" if verdict.holds else "DOES NOT HOLD"
        click.echo(f"{mark}: {verdict.what}: {verdict.shown}, at most {verdict.most:g}")
    click.echo(f"\nThe report: {written}")


if __name__ == "__main__":
    main()
