"""`geventpool advise`: how many connections, by several ways of reckoning, and what it saves."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from ..errors import ConfigError, printable
from ..observe.text import seconds
from ..simulator import read_traces
from ..sizing.erlang import chance_beyond, mean_wait
from .expected import MEMORY, USUAL_MOST, Expectation, Return, Sizes, return_of, sizes_for
from .traced import Traced, from_trace

_UNITS = {"": 1.0, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "m": 60.0}


class Duration(click.ParamType[float]):
    """A length of time, such as `50ms`, `0.05` or `2min`."""

    name = "time"

    def convert(self, value: Any, param: Any, ctx: Any) -> float:
        """Seconds."""
        if isinstance(value, float):
            return value
        found = re.fullmatch(r"\s*([0-9.]+(?:e-?\d+)?)\s*([a-zµ]*)\s*", str(value))
        if found and found[2] in _UNITS:
            try:
                number = float(found[1]) * _UNITS[found[2]]
            except ValueError:
                number = 0.0
            if 0 < number < 1e6:
                return number
        return self.fail(
            f"{value!r}: give a length of time above 0, such as 50ms or 0.05", param, ctx
        )


_TIME = Duration()


@click.command()
@click.option(
    "--concurrent", type=click.FloatRange(1, 1e6), help="Requests at once, of all processes."
)
@click.option("--query-time", type=_TIME, help="For which each holds a connection.")
@click.option(
    "--acceptable-wait",
    type=_TIME,
    default="100ms",
    show_default=True,
    help="For which a request may wait for one.",
)
@click.option("--rate", type=click.FloatRange(1e-6, 1e7), help="Requests each second, if known.")
@click.option(
    "--share",
    type=click.FloatRange(1e-9, 0.5),
    default=0.01,
    show_default=True,
    help="Of the requests that may wait for longer.",
)
@click.option(
    "--workers", type=click.IntRange(1), default=1, show_default=True, help="On each host."
)
@click.option("--hosts", type=click.IntRange(1), default=1, show_default=True, help="Machines.")
@click.option("--database", type=click.Choice(list(USUAL_MOST)), default="postgresql")
@click.option("--max-connections", type=click.IntRange(1), help="The server's.  [100; MySQL: 151]")
@click.option(
    "--connect-time", type=_TIME, default="30ms", show_default=True, help="Of one connect."
)
@click.option(
    "--connect-cpu", type=_TIME, default="1ms", show_default=True, help="Of that, computing."
)
@click.option(
    "--trace", "source", metavar="TRACE", help="A recorded load, as of geventpool record."
)
@click.option("--plot", "plot_file", metavar="FILE.png", help="Draw who waits against how many.")
@click.option("--json", "is_json", is_flag=True, help="For programs.")
def advise(
    concurrent: float | None,
    query_time: float | None,
    acceptable_wait: float,
    share: float,
    rate: float | None,
    connect_time: float,
    connect_cpu: float,
    source: str | None,
    plot_file: str | None,
    is_json: bool,
    **where: Any,
) -> None:
    """Say how many connections a load needs, whether the server has them, and what a pool saves.

    From what you expect (--concurrent and --query-time), by the simple formula, Little's law and
    Erlang C side by side; or from a load as it was (--trace), by the real pool in virtual time.
    """
    if source is not None:
        found = [from_trace(one, acceptable_wait, connect_time) for one in read_traces(source)]
        told = _traced_json(found) if is_json else "\n".join(_tell_traced(found, acceptable_wait))
        click.echo(told)
        return
    if concurrent is None or query_time is None:
        raise click.UsageError("give --concurrent and --query-time, or --trace")
    it = Expectation(concurrent, query_time, acceptable_wait, rate, share, **where)
    sizes = sizes_for(it)
    saved = return_of(it, sizes, connect_time, connect_cpu)
    if plot_file is not None:
        _draw(it, sizes, Path(plot_file))
    if is_json:
        figures = {"expected": asdict(it), "sizes": asdict(sizes), "return": asdict(saved)}
        click.echo(json.dumps({**figures, "fits": sizes.fits}, indent=1))
        return
    click.echo("\n".join([*_tell_sizes(it, sizes), *_tell_return(it, sizes, saved, connect_time)]))


def _tell_sizes(it: Expectation, sizes: Sizes) -> Iterator[str]:
    formula = f"{it.concurrent:g} x {it.query_time:g} / {it.acceptable_wait:g}"
    yield f"simple formula  {sizes.guide:>5}  {formula}"
    yield (
        f"Little's law    {sizes.load:>5.3g}  in use on average: {it.requests_per_second:g} requests/s "
        f"x {seconds(it.query_time)}"
    )
    yield (
        f"Erlang C        {sizes.erlang:>5}  of whose callers {it.share:.2%} at most wait for more than "
        f"{seconds(it.acceptable_wait)}; on average "
        f"{seconds(mean_wait(sizes.erlang, sizes.load, it.query_time))}"
    )
    beyond = chance_beyond(sizes.guide, sizes.load, it.query_time, it.acceptable_wait)
    if beyond > it.share:
        grows = ": the line grows for ever" if sizes.guide <= sizes.load else ""
        yield (
            f"  The simple formula misleads here: with {sizes.guide} connections {beyond:.0%} of random "
            f"arrivals wait for too long{grows}."
        )
        yield "  It is the mean number in use, and leaves no room for what comes by chance."
    elif sizes.guide > sizes.erlang:
        yield f"  The simple formula takes {sizes.guide - sizes.erlang} more than the load needs."
    yield ""
    yield from _tell_processes(it, sizes)


def _tell_processes(it: Expectation, sizes: Sizes) -> Iterator[str]:
    yield (
        f"{it.processes} processes have a pool each: {sizes.each} connections in each, {sizes.total} in "
        f"sum; one pool for all would need {sizes.erlang}"
    )
    low, high = sizes.room
    verdict = "fits" if sizes.fits else "does NOT fit"
    yield (
        f"{sizes.total} {verdict} into 20 to 30 % of the server's max_connections={it.most} "
        f"({low} to {high})"
    )
    if not sizes.fits:
        yield (
            "  Use fewer processes with more greenlets each, shorten the query time, accept a longer "
            "wait, put PgBouncer in between, or raise max_connections."
        )
    spare = sizes.room[1] // it.processes
    more = f"; up to {spare}, as what idles is closed anyway" if spare > sizes.each else ""
    yield f"so: GeventPool(max_size={sizes.each}){more}"


def _tell_return(it: Expectation, sizes: Sizes, saved: Return, connect: float) -> Iterator[str]:
    yield ""
    yield (
        f"a pool saves {seconds(connect)} for each request: {saved.per_minute:,.0f} connects and "
        f"{saved.seconds:,.0f} s of waiting each minute, {saved.cpu:,.1f} s of CPU"
    )
    yield f"and about {saved.memory:,.0f} MB of the server's memory at {it.concurrent:g} requests at once"
    yield ""
    yield "assumed: requests come at random, and hold connections for random times around the mean;"
    if it.rate is None:
        yield (
            f"  each of the {it.concurrent:g} comes again after {seconds(it.acceptable_wait)}, which is "
            "the most there can be (give --rate if you know it);"
        )
    yield (
        "  they are spread evenly over the processes; without a pool each request would connect; a "
        f"connection takes {MEMORY[it.database]:g} MB of the server's memory, as a rule of thumb."
    )
    yield "geventpool record and advise --trace reckon with your own load instead."


def _tell_traced(found: list[Traced], acceptable: float) -> Iterator[str]:
    for one in found:
        yield (
            f"{printable(one.trace)}: {one.requests:,} requests, {one.rate:.3g}/s, held for "
            f"{seconds(one.hold)} on average, at most {one.peak} at once"
        )
        yield f"  Little's law    {one.load:>6.3g}  in use on average"
        yield f"  Erlang C        {one.erlang:>6}  if that rate had been even"
        yield (
            f"  simulated       {one.cap:>6}  the smallest cap with which 99 of 100 wait for "
            f"{seconds(acceptable)} at most (p99 {seconds(one.outcome.p99)}, longest "
            f"{seconds(one.outcome.max_wait)}, {one.outcome.opens:,} opened)"
        )
        if one.cap > one.erlang:
            yield "  The load comes in bursts: an even rate of the same mean would need fewer."
    if len(found) > 1:
        yield f"in sum: {sum(one.cap for one in found)} connections of {len(found)} pools"
    yield "assumed: the load comes as it was recorded, however long each request waits."


def _traced_json(found: list[Traced]) -> str:
    rows = [
        {
            **{name: value for name, value in vars(one).items() if name != "outcome"},
            "load": one.load,
            "p99": one.outcome.p99,
            "max_wait": one.outcome.max_wait,
            "opens": one.outcome.opens,
        }
        for one in found
    ]
    return json.dumps(rows, indent=1)


def _draw(it: Expectation, sizes: Sizes, path: Path) -> None:
    try:
        from .plot import FORMATS, draw
    except ImportError as error:
        cure = f"needs {error.name}: pip install 'geventpool[plots]'"
        raise ConfigError("plot", str(path), cure) from None
    if path.suffix.removeprefix(".").lower() not in FORMATS:
        raise ConfigError("plot", str(path), "give a name that ends in .png, .svg or .pdf")
    try:
        draw(it, sizes, path)
    except OSError as error:
        raise ConfigError("plot", str(path), f"cannot be written: {error.strerror}") from None
