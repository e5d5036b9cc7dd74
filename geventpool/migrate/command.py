"""`geventpool migrate`: what would change in a program, and why."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import click
from rich.console import Console
from rich.text import Text

from ..config import DEFAULT_MAX_SIZE
from ..errors import ConfigError, printable, without_passwords
from ..observe.text import seconds
from ..simulator import Outcome, Setting, read_traces, simulate
from .plan import Plan
from .tree import plans_in

_AT_RUN_TIME = (
    "callers wait in one line, first come first served, and a time-out says why and who holds",
    "idle connections are closed when the load has gone, and opened ahead when it comes",
    "a connection that the server has closed is never lent, without a ping",
    "a killed or timed-out query is cancelled on the server, and its place is kept until it has ended",
    "a rollback is sent on return only where a transaction may be open",
)
_STYLES = {"+": "green", "-": "red", "@": "cyan"}


@click.command()
@click.argument("sources", nargs=-1, required=True, metavar="URL|PATH...")
@click.option("--check", "trace", metavar="TRACE", help="Compare both pools on a recorded load.")
@click.option("--json", "is_json", is_flag=True, help="For programs.")
def migrate(sources: tuple[str, ...], trace: str | None, is_json: bool) -> None:
    """Show what would change in a program that uses another pool, line by line, with the reasons.

    A PATH is a file or a source tree: create_engine calls, Flask's configuration, Django's DATABASES
    (also of django-db-geventpool and django-db-connection-pool), gunicorn's configuration. A URL is
    SQLAlchemy's. Sources are read, not run, and nothing is written.
    """
    urls = [one for one in sources if "://" in one]
    plans = [plan for one in sources if one not in urls for plan in plans_in(Path(one))]
    if is_json:
        click.echo(json.dumps([*map(_url_json, urls), *map(_json, plans)], indent=1))
        return
    console = Console(highlight=False)
    for url in urls:
        for line in _url_lines(url):
            _print(console, line)
    for plan in plans:
        _tell(console, plan)
    if not urls and not any(plan.is_changed for plan in plans):
        console.print("nothing is to be changed")
        return
    console.print("\nat run time:")
    for line in _AT_RUN_TIME:
        console.print(Text(f"  {line}"), soft_wrap=True)
    if trace is not None:
        _compare(console, trace, [pair for plan in plans for pair in plan.pools])


def _tell(console: Console, plan: Plan) -> None:
    for line in plan.diff():
        _print(console, line)
    if not plan.is_changed:
        _print(console, plan.name)
    for reason in plan.reasons:
        text = f"  line {reason.line}: {without_passwords(reason.text)}"
        console.print(Text(printable(text)), soft_wrap=True)
    console.print()


def _print(console: Console, line: str) -> None:
    console.print(Text(printable(line), style=_STYLES.get(line[:1], "")), soft_wrap=True)


def url_after(url: str) -> str:
    """The same URL, with our pool; settings of a pool in it get our prefix."""
    head, _, query = url.partition("?")
    parts = [one for one in query.split("&") if one]
    if "plugin=geventpool" in parts:
        return url
    pooled = r"(?:pool_size|max_overflow|pool_timeout|pool_recycle|pool_pre_ping)="
    names = {"pool_timeout": "timeout", "pool_recycle": "recycle", "pool_pre_ping": "pre_ping"}

    def ours(part: str) -> str:
        name, equals, value = part.partition("=")
        return f"geventpool_{names.get(name, name)}{equals}{value}"

    parts = [ours(one) if re.match(pooled, one) else one for one in parts]
    return f"{head}?{'&'.join(['plugin=geventpool', *parts])}"


def _url_lines(url: str) -> Iterator[str]:
    yield f"- {without_passwords(url)}"
    yield f"+ {without_passwords(url_after(url))}"
    if re.match(r"mysql(\+mysqldb)?:", url):
        yield "  mysqlclient blocks all greenlets: use mysql+pymysql://"
    if re.match(r"postgres(ql)?(\+psycopg2)?:", url):
        yield "  psycopg2 needs psycogreen.gevent.patch_psycopg(); postgresql+psycopg:// needs nothing"
    yield "  SQLAlchemy loads the plugin; code that names a poolclass wins over it"


def _url_json(url: str) -> dict[str, object]:
    return {"before": without_passwords(url), "after": without_passwords(url_after(url))}


def _json(plan: Plan) -> dict[str, object]:
    return {
        "file": plan.name,
        "is_changed": plan.is_changed,
        "diff": plan.diff(),
        "reasons": [{"line": one.line, "text": one.text} for one in plan.reasons],
    }


def _compare(console: Console, source: str, pools: Iterable[tuple[int, int]]) -> None:
    """Both pools on a load that was recorded, in virtual time."""
    found = list(pools)
    size, overflow = found[0] if found else (5, 10)
    most = size + overflow if size and overflow >= 0 else 1000
    if most < 1:
        raise ConfigError("pool_size", size, "leaves no room for a connection")
    ours = most if found else DEFAULT_MAX_SIZE
    for trace in read_traces(source):
        console.print(f"\n{printable(trace.name)}: {len(trace):,} requests, simulated")
        before = simulate(trace, f"queuepool:{size}+{max(0, most - size)}")
        after = simulate(trace, "adaptive", Setting(max_size=ours))
        for name, outcome in (("now", before), ("with geventpool", after)):
            console.print(f"  {name:<16} {_figures(outcome)}")


def _figures(it: Outcome) -> str:
    return (
        f"{it.opens:,} opened, {it.idle_seconds:,.0f} s idle, {it.waited:,} waited, p99 "
        f"{seconds(it.p99)}, longest {seconds(it.max_wait)}, at most {it.peak:,} at once"
    )
