"""What a benchmark hands back, and how it is written down."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Figure:
    """One measured number, mostly a ratio, which does not depend on the machine as a time does.

    Attributes:
        what: what was measured, beside what.
        value: the median.
        low: the lower quartile of the rounds; `None`: it was counted and has no spread.
        high: the upper quartile.
        target: what it should be at most; `None`: there is no such claim.
        stretch: what would be better still.
        is_least: target and stretch say what it should be at least.
    """

    what: str
    value: float
    low: float | None = None
    high: float | None = None
    target: float | None = None
    stretch: float | None = None
    is_least: bool = False

    @property
    def verdict(self) -> str:
        """Whether the target is met; if not, how much of it was measured."""
        if self.target is None:
            return ""
        if self._meets(self.stretch):
            return "stretch met"
        if self._meets(self.target):
            return "met"
        return f"**missed: {self.value / self.target:.0%} of it**"

    def _meets(self, limit: float | None) -> bool:
        if limit is None:
            return False
        return self.value >= limit if self.is_least else self.value <= limit

    def row(self) -> list[str]:
        """Its cells."""
        sign = "≥ " if self.is_least else "≤ "
        spread = "" if self.low is None else f"{_short(self.low)} to {_short(self.high)}"
        target, stretch = (
            "" if limit is None else sign + _short(limit) for limit in (self.target, self.stretch)
        )
        return [self.what, _short(self.value), spread, target, stretch, self.verdict]


@dataclass
class Table:
    """Whatever is not judged: counts, context."""

    header: list[str]
    rows: list[list[str]]


@dataclass
class Section:
    """One question, and what was measured to answer it.

    Attributes:
        title: the question, in a few words.
        note: how it was measured.
        figures: the answer.
        tables: more to look at.
        plot: what to draw, if it is more than the figures.
    """

    title: str
    note: str
    figures: list[Figure] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    plot: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Section:
        """The section that `dataclasses.asdict` has made it from."""
        figures = [Figure(**figure) for figure in data["figures"]]
        tables = [Table(**table) for table in data["tables"]]
        return cls(data["title"], data["note"], figures, tables, data["plot"])

    def markdown(self) -> str:
        """As it is in RESULTS.md."""
        parts = [f"### {self.title}", self.note]
        if self.figures:
            parts.append(figures_table(self.figures))
        parts += [markdown_table(table.header, table.rows) for table in self.tables]
        return "\n\n".join(parts)


def figures_table(figures: Sequence[Figure]) -> str:
    """Figures as a Markdown table."""
    header = ["what", "median", "quartiles", "target", "stretch", ""]
    return markdown_table(header, [figure.row() for figure in figures])


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _short(value: float | None) -> str:
    assert value is not None
    if value == int(value) and value < 1e6:
        return str(int(value))
    return f"{value:.3g}" if value < 100 else f"{value:,.0f}"
