"""Draws what RESULTS.md shows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt

from .result import Figure, Section

GOOD, BAD, PLAIN = "tab:blue", "tab:red", "tab:grey"


def draw(
    judged: Sequence[Figure], results: Mapping[str, Sequence[Section]], folder: Path
) -> list[str]:
    """All plots.

    Args:
        judged: the figures that have targets.
        results: the sections of each benchmark.
        folder: where to write.

    Returns:
        The names of the files.
    """
    names = [_draw_targets(judged, folder)] if judged else []
    for name, sections in results.items():
        ladders = [section for section in sections if section.plot]
        if ladders:
            names.append(_draw_ladders(name, ladders, folder))
    return names


def _draw_targets(figures: Sequence[Figure], folder: Path) -> str:
    """Each figure in units of its target; to the left of the line it is met."""
    _, axis = plt.subplots(figsize=(13, 0.5 + 0.25 * len(figures)))
    axis.set_ylim(-1, len(figures))
    for row, figure in enumerate(reversed(figures)):
        value, low, high = (
            _in_targets(figure, one if one is not None else figure.value)
            for one in (figure.value, figure.low, figure.high)
        )
        low, high = sorted((low, high))
        colour = BAD if value > 1 else GOOD
        axis.plot([low, high], [row, row], color=colour, linewidth=3, alpha=0.4)
        axis.plot([value], [row], "o", color=colour)
        if figure.stretch is not None:
            axis.plot([_in_targets(figure, figure.stretch)], [row], "|", color="black", ms=9)
    axis.axvline(1, color="black", linewidth=1)
    axis.set_xscale("log", base=2)
    axis.xaxis.set_major_formatter(lambda x, _: f"{x:g}")
    axis.set_yticks(range(len(figures)), [figure.what for figure in reversed(figures)], fontsize=7)
    axis.set_title("Figures in units of their targets (left is better; | is the stretch)")
    axis.grid(alpha=0.3, axis="x")
    return _save(folder, "targets.png")


def _in_targets(figure: Figure, value: float) -> float:
    assert figure.target
    share = figure.target / value if figure.is_least else value / figure.target
    return max(share, 1e-3)


def _draw_ladders(name: str, sections: Sequence[Section], folder: Path) -> str:
    columns = min(2, len(sections))
    rows = math.ceil(len(sections) / columns)
    _, axes = plt.subplots(rows, columns, figsize=(7 * columns, 2.8 * rows), squeeze=False)
    for axis in axes.flat[len(sections) :]:
        axis.axis("off")
    for axis, section in zip(axes.flat, sections, strict=False):
        ladder = section.plot["ladder"]
        values = [value for value, _, _ in ladder.values()]
        lows = [value - low for value, low, _ in ladder.values()]
        highs = [high - value for value, _, high in ladder.values()]
        colours = [GOOD if label.startswith("GeventPool") else PLAIN for label in ladder]
        axis.barh(range(len(ladder)), values, color=colours, xerr=[lows, highs], height=0.6)
        axis.set_yticks(range(len(ladder)), list(ladder), fontsize=8)
        axis.invert_yaxis()
        axis.set_title(section.title, fontsize=9)
        axis.set_xlabel(section.plot["unit"], fontsize=8)
        axis.grid(alpha=0.3, axis="x")
    return _save(folder, f"{name}.png")


def _save(folder: Path, name: str) -> str:
    plt.tight_layout()
    plt.savefig(folder / name, dpi=110, metadata={"Software": None})
    plt.close()
    return name
