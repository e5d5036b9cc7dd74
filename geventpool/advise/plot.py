"""A picture: what share of the callers waits for too long, against how many connections there are."""

from __future__ import annotations

from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ..sizing.erlang import chance_beyond
from .expected import Expectation, Sizes

FORMATS = frozenset(FigureCanvasAgg.get_supported_filetypes())
"""Endings of file names that can be drawn to."""

_LEAST = 1e-6


def draw(it: Expectation, sizes: Sizes, path: Path) -> None:
    """Writes the picture; its format is that of the file's name.

    Raises:
        OSError: the file cannot be written.
    """
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    counts = range(1, max(sizes.erlang, sizes.guide) * 3 // 2 + 5)
    shares = [
        max(_LEAST, chance_beyond(count, sizes.load, it.query_time, it.acceptable_wait))
        for count in counts
    ]
    axis.semilogy(counts, shares, label="share that waits for longer (Erlang C)")
    axis.axhline(it.share, color="grey", linestyle=":", label=f"accepted: {it.share:.2%}")
    for where, color, name in (
        (sizes.load, "tab:orange", f"Little: {sizes.load:.3g} in use on average"),
        (sizes.guide, "tab:red", f"simple formula: {sizes.guide}"),
        (sizes.erlang, "tab:green", f"Erlang C: {sizes.erlang}"),
    ):
        axis.axvline(where, color=color, linestyle="--", label=name)
    axis.set_xlabel("connections of one pool for all")
    axis.set_ylabel(f"waits for more than {it.acceptable_wait:g} s")
    axis.legend(fontsize=8)
    axis.grid(alpha=0.3)
    figure.savefig(path, dpi=100, metadata={"Software": None} if path.suffix == ".png" else None)
