"""The pictures of the report."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot
from matplotlib.ticker import MaxNLocator

from .figures import by_pool, median
from .turn import Turn

PALETTE = ("#1f6f5c", "#c0392b", "#e08e0b", "#2e6da4", "#7d5ba6", "#5b8c2a", "#8c6d5b", "#333333")
DEMAND, SERVER, LEVEL, FAULT = "#7fb3d5", "#1d2433", "#b03a2e", "#f6d9cf"
_SERVER_STYLE = {"color": SERVER, "lw": 1.3}


def draw(turns: Sequence[Turn], folder: Path) -> list[tuple[str, str]]:
    """All pictures, as PNG files in a folder.

    Returns:
        The names of the files, and what each shows.
    """
    last = {turn.title: turn for turn in turns}
    empty = set()
    if not any(row[4] is not None for turn in last.values() for row in turn.requests):
        empty.add(_errors)
    if not any(turn.opens for turn in last.values()):  # a web server's, which nobody saw
        empty.add(_opens)
    colours = {title: PALETTE[at % len(PALETTE)] for at, title in enumerate(last)}
    pictures = [
        (
            "timeline.png",
            "Demand, connections held, and level, in the last turn of each",
            _timeline,
        ),
        ("opens.png", "Connections opened so far", _opens),
        ("latency.png", "How long requests took", _latency),
        ("errors.png", "Requests that failed, each second", _errors),
        ("server.png", "The server's own view: connections", _server),
    ]
    named = []
    for name, about, paint in pictures:
        if paint in empty:
            (folder / name).unlink(missing_ok=True)  # one of an earlier report
            continue
        figure = paint(turns if paint is _latency else list(last.values()), colours)
        figure.savefig(folder / name, dpi=110, metadata={"Software": None})
        pyplot.close(figure)
        named.append((name, about))
    return named


def _timeline(turns: Sequence[Turn], _colours: dict[str, str]) -> Any:
    columns = min(2, len(turns))
    rows = math.ceil(len(turns) / columns)
    figure, axes = pyplot.subplots(
        rows,
        columns,
        figsize=(6.5 * columns, 2.9 * rows + 0.4),
        sharex=True,
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    for axis in axes.flat[len(turns) :]:
        axis.axis("off")
    for axis, turn in zip(axes.flat, turns, strict=False):
        _plain(axis, turn)
        at = [row[0] for row in turn.samples]
        axis.fill_between(at, [row[2] for row in turn.samples], color=DEMAND, lw=0, label="demand")
        if turn.server:
            _stairs(axis, turn.server, label="held, by the server", **_SERVER_STYLE)
        if any(row[4] >= 0 for row in turn.samples):
            level = [row[4] for row in turn.samples]
            axis.step(at, level, where="post", color=LEVEL, lw=1.2, ls="--", label="level")
        if turn.opens:
            axis.plot(turn.opens, [0] * len(turn.opens), "|", color="black", ms=7, label="opened")
        axis.set_title(turn.title, fontsize=10, loc="left")
        axis.legend(fontsize=7, frameon=False, loc="upper right", ncols=2)
        axis.yaxis.set_major_locator(MaxNLocator(integer=True))
    figure.supxlabel("seconds; a long straight slope: the whole process stood still", fontsize=9)
    figure.supylabel("transactions at once, connections", fontsize=9)
    return figure


def _opens(turns: Sequence[Turn], colours: dict[str, str]) -> Any:
    figure, axis = _one()
    for turn in turns:
        _plain(axis, turn)
        counts = [[0.0, 0.0], *([at, number + 1] for number, at in enumerate(turn.opens))]
        counts.append([turn.ended, float(len(turn.opens))])
        _stairs(axis, counts, color=colours[turn.title], label=turn.title)
    axis.set_yscale("symlog", linthresh=10)
    axis.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.set_ylabel("opened")
    return _legend(figure, axis)


def _server(turns: Sequence[Turn], colours: dict[str, str]) -> Any:
    figure, axis = _one()
    for turn in turns:
        _plain(axis, turn)
        if turn.server:
            _stairs(axis, turn.server, color=colours[turn.title], label=turn.title)
    axis.set_ylabel("connections")
    return _legend(figure, axis)


def _errors(turns: Sequence[Turn], colours: dict[str, str]) -> Any:
    figure, axis = _one()
    for turn in turns:
        _plain(axis, turn)
        counts = [0] * (int(turn.ended) + 1)
        for row in turn.requests:
            if row[4] is not None:
                counts[min(int(row[0]), len(counts) - 1)] += 1
        label = f"{turn.title}: {sum(counts)}"
        axis.step(range(len(counts)), counts, where="post", color=colours[turn.title], label=label)
    axis.set_ylabel("errors a second")
    axis.set_ylim(bottom=0)
    axis.yaxis.set_major_locator(MaxNLocator(integer=True))
    return _legend(figure, axis)


def _latency(turns: Sequence[Turn], colours: dict[str, str]) -> Any:
    """Percentiles as bars, and the whole distribution of what comes on top of the queries."""
    figure, (bars, tail) = pyplot.subplots(1, 2, figsize=(13, 4.2), layout="constrained")
    rounds = by_pool(turns)
    for at, (title, each) in enumerate(rounds.items()):
        middle = median(each)
        values = [middle[name] * 1e3 for name in ("p50", "p95", "p99")]
        places = [place + (at - len(rounds) / 2) * 0.12 for place in range(3)]
        bars.bar(places, values, width=0.11, color=colours[title])
        beyond = sorted(
            row[3] * 1e3
            for turn in turns
            for row in turn.requests
            if turn.title == title and row[4] is None
        )
        if beyond:
            share = [1 - number / len(beyond) for number in range(len(beyond))]
            tail.plot([max(value, 0.1) for value in beyond], share, color=colours[title])
    bars.set_xticks(range(3), ["p50", "p95", "p99"])
    bars.set_yscale("log")
    bars.set_ylabel("milliseconds")
    bars.set_title("requests, the queries' own time included", fontsize=10, loc="left")
    tail.set_xscale("log")
    tail.set_yscale("log")
    tail.set_xlabel("milliseconds beyond the queries' own time")
    tail.set_ylabel("share of requests that took longer")
    tail.set_title("what the pool and the machine add", fontsize=10, loc="left")
    for axis in (bars, tail):
        _calm(axis)
    handles = [pyplot.Line2D([], [], color=colours[title], lw=3) for title in rounds]
    figure.legend(handles, list(rounds), loc="outside lower center", ncols=3, frameon=False)
    return figure


def _one() -> tuple[Any, Any]:
    return pyplot.subplots(figsize=(13, 4.2), layout="constrained")


def _legend(figure: Any, axis: Any) -> Any:
    axis.set_xlabel("seconds")
    handles, labels = axis.get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    return figure


def _plain(axis: Any, turn: Turn) -> None:
    """No frame, faint lines, and the fault in the background."""
    _calm(axis)
    axis.set_xlim(0, statistics.fmean([turn.plan["seconds"], turn.ended]))
    if turn.fault:
        axis.axvspan(*turn.fault, color=FAULT, lw=0, zorder=0)


def _calm(axis: Any) -> None:
    axis.grid(color="#dddddd", lw=0.6)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)


def _stairs(axis: Any, points: Sequence[Sequence[float]], **style: Any) -> None:
    axis.step([at for at, _ in points], [value for _, value in points], where="post", **style)
