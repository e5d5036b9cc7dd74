"""`geventpool doctor`: what is wrong with a system, and the cure."""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from pathlib import Path
from typing import Any

import click
from gevent import monkey
from rich.console import Console

from ..errors import BlockingDriverWarning
from . import Case, Finding, examine
from .case import Deployment, Process, Target
from .sources.gunicorn import USUAL, read_deployment
from .sources.patching import process_as_it_is
from .sources.snapshots import read_published
from .symptoms import SYMPTOMS, symptom_of
from .tell import as_json, exit_code, tell


@click.command()
@click.argument("url", required=False)
@click.option("--app", metavar="MODULE:NAME", help="An application, as gunicorn is given it.")
@click.option("--django", "is_django", is_flag=True, help="DJANGO_SETTINGS_MODULE's databases.")
@click.option("--pid", type=int, help="Only the running pools of this process.")
@click.option(
    "--gunicorn", metavar="FILE", help=f"gunicorn's configuration.  [with --app: {USUAL}]"
)
@click.option("--workers", type=click.IntRange(1), help="Processes on each host.")
@click.option("--hosts", type=click.IntRange(1), default=1, show_default=True, help="Machines.")
@click.option(
    "--directory",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where processes publish.  [default: as geventpool.observe.publish()]",
)
@click.option("--symptom", metavar="TEXT", help=f"An error's text, or: {', '.join(SYMPTOMS)}.")
@click.option("--json", "is_json", is_flag=True, help="For programs.")
def doctor(
    url: str | None,
    app: str | None,
    is_django: bool,
    pid: int | None,
    gunicorn: str | None,
    workers: int | None,
    hosts: int,
    directory: Path | None,
    symptom: str | None,
    is_json: bool,
) -> None:
    """Examine databases, settings and running pools, and say what is wrong, why, and the cure.

    URL is SQLAlchemy's; better than on the command line it is in the variable DATABASE_URL, where
    nobody else sees its password. It connects three times as the application would, asks with the
    user's own rights, and changes nothing.

    The exit code is 0 if nothing is wrong, 1 if something is worth a look, 2 if something is wrong.
    """
    if sum(map(bool, (url, app, is_django))) > 1:
        raise click.UsageError("give one of URL, --app and --django")
    warnings.simplefilter("ignore", BlockingDriverWarning)  # driver.blocks says it
    chosen = None if symptom is None else symptom_of(symptom)
    if gunicorn is None and app and os.path.exists(USUAL):
        gunicorn = USUAL
    deployment = read_deployment(gunicorn, workers, hosts)
    snapshots, blind = read_published(directory, pid)
    if app is None and not is_django and url is None and pid is None:
        url = os.environ.get("DATABASE_URL")
        if not url and not snapshots:
            raise click.UsageError("give URL, --app, --django or --pid, or set DATABASE_URL")
    case = Case(Process(), [], deployment, snapshots, blind)
    if app is not None:
        case.process, case.targets = _of_application(app, deployment)
    elif is_django:
        case.process, case.targets = _of_django(deployment.has_greenlets)
    elif url:
        case.targets = [_of_url(url)]
    show(examine(case, symptom=chosen), is_json)


def examine_flask(
    app: Any, symptom: str | None, gunicorn: str | None, workers: int | None, hosts: int
) -> list[Finding]:
    """Of an application that `flask` has loaded: all its binds. Switches greenlets.

    Raises:
        ConfigError: an option cannot be used.
    """
    from .sources.engines import of_flask

    chosen = None if symptom is None else symptom_of(symptom)
    deployment = read_deployment(gunicorn, workers, hosts)
    snapshots, blind = read_published(app.config.get("GEVENTPOOL_SNAPSHOTS"), None)
    case = Case(process_as_it_is(), of_flask(app), deployment, snapshots, blind)
    return examine(case, symptom=chosen)


def show(findings: list[Finding], is_json: bool) -> None:
    """Prints findings, and ends the command with their exit code."""
    if is_json:
        click.echo(as_json(findings))
    else:
        tell(Console(highlight=False), findings)
    sys.exit(exit_code(findings))


def _of_application(app: str, deployment: Deployment) -> tuple[Process, list[Target]]:
    from .sources.application import load

    return load(app, deployment)


def _of_url(url: str) -> Target:
    """As the application that uses it would connect; what makes psycopg2 yield is taken for granted."""
    monkey.patch_all()
    with contextlib.suppress(ImportError):
        from psycogreen.gevent import patch_psycopg

        patch_psycopg()
    from .sources.engines import engine_of, target_of

    return target_of(engine_of(url))


def _of_django(has_greenlets: bool) -> tuple[Process, list[Target]]:
    if has_greenlets:
        monkey.patch_all()
    from .sources.django import process_of_django, set_up, targets_of_django

    set_up()
    return process_of_django(), targets_of_django()
