"""A picture of a simulation: demand, what each policy held, and when it opened."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ..errors import printable
from .outcome import Outcome, Timeline
from .trace import Trace

FORMATS: Final = frozenset(FigureCanvasAgg.get_supported_filetypes())
"""Endings of file names that can be drawn to."""


def draw(trace: Trace, outcomes: Sequence[Outcome], path: Path) -> None:
    """Writes the picture; its format is that of the file's name.

    Raises:
        OSError: the file cannot be written.
    """
    demand = _demand(trace, outcomes[0].timeline)
    figure = Figure(figsize=(10, 1.2 + 1.7 * len(outcomes)), layout="constrained")
    FigureCanvasAgg(figure)
    rows = figure.subplots(len(outcomes), 1, sharex=True, sharey=True, squeeze=False)
    top = 1.1 * max(1, max(demand), *(max(it.timeline.held) for it in outcomes))
    for axis, outcome in zip(rows[:, 0], outcomes, strict=True):
        timeline = outcome.timeline
        times = [time - timeline.start for time in timeline.times()]
        axis.fill_between(times, demand, step="post", color="lightgrey", label="wanted")
        axis.step(times, timeline.held, where="post", linewidth=1, label="held")
        opened = [time for time, many in zip(times, timeline.opens, strict=True) if many]
        axis.plot(opened, [-0.04 * top] * len(opened), "|", color="tab:red", label="opened")
        axis.set_title(
            f"{outcome.policy}: {outcome.opens:,} opens, {outcome.idle_seconds:,.0f} s idle, "
            f"{outcome.ratio:.2f} of the least possible cost",
            fontsize=9,
            loc="left",
        )
        axis.set_ylim(-0.09 * top, top)
        axis.grid(alpha=0.3)
    rows[0, 0].legend(loc="upper right", fontsize=8, ncols=3)
    rows[-1, 0].set_xlabel("seconds")
    figure.suptitle(f"{printable(trace.name)}: connections", fontsize=10, parse_math=False)
    figure.savefig(path, dpi=100, metadata={"Software": None} if path.suffix == ".png" else None)


def _demand(trace: Trace, timeline: Timeline) -> list[int]:
    """The most that anybody wanted at once, in each slice."""
    wanted = Timeline(timeline.start, timeline.start + timeline.step * timeline.SLICES)
    in_use = 0
    for now, is_rise in trace.events():
        in_use += 1 if is_rise else -1
        wanted.note(now, in_use)
    return list(wanted.held)
