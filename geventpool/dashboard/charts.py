"""Lines over time as SVG, drawn here: they need no script, no font and no style but the page's own.

What a line looks like stands in the style sheet, so that it has both colours, light and dark. A chart says
in words what it shows, for who cannot see it, and its figures are in the table below it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from markupsafe import Markup, escape

_WIDTH, _HEIGHT = 1000, 240
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 10, 10, 22
_NICE: Final = (1, 1.2, 1.6, 2, 2.4, 3.2, 4, 6, 8, 10)  # a quarter of each is short, too

Points = Sequence[tuple[float, float | None]]


@dataclass(frozen=True)
class Line:
    """One line of a chart.

    Attributes:
        name: for its legend.
        style: how the style sheet draws it.
        points: times and values; `None` is a gap.
    """

    name: str
    style: str
    points: Points


def sparkline(values: Sequence[float], most: float) -> Markup:
    """A small line; full height is `most`, or the highest."""
    most = max([most, *values]) or 1
    step = 100 / max(len(values) - 1, 1)
    points = " ".join(
        f"{place * step:.1f},{20 - 19 * value / most:.1f}" for place, value in enumerate(values)
    )
    text = f'<svg class="spark" viewBox="0 0 100 21" preserveAspectRatio="none" aria-hidden="true"><polyline points="{points}"/></svg>'  # noqa: E501
    return Markup(text)


def chart(
    title: str,
    lines: Sequence[Line],
    ticks: Sequence[tuple[str, Sequence[float]]],
    span: tuple[float, float],
    labels: Sequence[tuple[float, str]],
    tell: Callable[[float], str],
) -> Markup:
    """Lines over time, and marks below them where something happened.

    Args:
        title: what it shows, also for a screen reader.
        lines: drawn in their order.
        ticks: kinds of marks, each with its times.
        span: the times at the left and at the right.
        labels: times with what is written below them.
        tell: a value as text.
    """
    begin, end = span
    top = _nice_top(max((y for line in lines for _, y in line.points if y is not None), default=0))

    def x(at: float) -> float:
        return _LEFT + (at - begin) / (end - begin) * (_WIDTH - _LEFT - _RIGHT)

    def y(value: float) -> float:
        return _HEIGHT - _BOTTOM - value / top * (_HEIGHT - _TOP - _BOTTOM)

    parts = [
        f'<svg class="chart" role="img" viewBox="0 0 {_WIDTH} {_HEIGHT}" data-begin="{begin:.3f}" '
        f'data-end="{end:.3f}" data-left="{_LEFT}" data-right="{_RIGHT}">',
        f"<title>{escape(title)}</title>",
        *(_grid(y(value), tell(value)) for value in (0.0, top / 4, top / 2, top * 3 / 4, top)),
    ]
    parts += [_label(x(at), text) for at, text in labels]
    for kind, times in ticks:
        path = "".join(f"M{x(at):.1f} {_HEIGHT - _BOTTOM}v-8" for at in times if begin <= at <= end)
        parts.append(f'<path class="tick {escape(kind)}" d="{path}"/>')
    for line in lines:
        drawn = _path([(x(at), None if v is None else y(v)) for at, v in line.points])
        parts.append(f'<path class="line {escape(line.style)}" d="{drawn}"/>')
    return Markup("".join(parts) + "</svg>")


def _grid(y: float, text: str) -> str:
    return (
        f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        f'<text class="axis end" x="{_LEFT - 5}" y="{y + 4:.1f}">{escape(text)}</text>'
    )


def _label(x: float, text: str) -> str:
    return f'<text class="axis middle" x="{x:.1f}" y="{_HEIGHT - 5}">{escape(text)}</text>'


def _path(points: Sequence[tuple[float, float | None]]) -> str:
    drawn, command = [], "M"
    for x, y in points:
        if y is None:
            command = "M"
        else:
            drawn.append(f"{command}{x:.1f} {y:.1f}")
            command = "L"
    return "".join(drawn)


def _nice_top(most: float) -> float:
    """A round number that is not below it."""
    if most <= 0:
        return 1.0
    scale = 10.0 ** math.floor(math.log10(most))
    return next(scale * nice for nice in _NICE if scale * nice >= most * 0.999)
