"""The picture at the end of the demo."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot
from matplotlib.ticker import MaxNLocator

from demo_support.phases import phases

SHADES = {"rise": "#f4ead7", "burst": "#f6d9cf"}


def draw(path: Path, title: str, seconds: float, history: dict[str, list[float]]) -> None:
    """Draw demand, connections held and level over time into a PNG file."""
    figure, (pool, flow) = pyplot.subplots(
        2, 1, sharex=True, figsize=(11, 7), height_ratios=(3, 1), layout="constrained"
    )
    at = history["at"]
    top = max([*history["size"], *history["level"], 1.0])
    for axes in (pool, flow):
        for phase in phases(seconds):
            axes.axvspan(phase.start, phase.end, color=SHADES.get(phase.name, "#ffffff"), lw=0)
        axes.grid(axis="y", color="#dddddd", lw=0.6)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    for phase in phases(seconds):
        middle = (phase.start + phase.end) / 2
        pool.text(middle, top * 1.08, phase.name, ha="center", color="#666666")
    step = "post"
    pool.fill_between(at, history["in_use"], step=step, color="#7fb3d5", label="in use (demand)")
    pool.step(at, history["size"], where=step, color="#1f6f5c", lw=4, alpha=0.45, label="held")
    pool.step(at, history["level"], where=step, color="#b03a2e", lw=1.2, ls="--", label="level")
    pool.set_ylim(0, top * 1.18)
    pool.set_ylabel("connections, all workers")
    pool.yaxis.set_major_locator(MaxNLocator(integer=True))
    pool.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=3, frameon=False)
    pool.set_title(title, loc="left")
    flow.step(at, history["opened"], where=step, color="#1f6f5c", label="opened")
    flow.step(at, history["closed"], where=step, color="#888888", label="closed")
    flow.set_ylabel("so far")
    flow.set_xlabel("seconds")
    flow.set_xlim(0, seconds)
    flow.legend(loc="upper left", frameon=False)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
