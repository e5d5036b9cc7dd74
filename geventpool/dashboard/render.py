"""HTML of what the views give. Every text is escaped, and what cannot be printed is shown as `?`."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlencode

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from ..errors import printable
from ..observe.text import seconds
from ..observe.top import short
from .charts import Line, chart, sparkline
from .collector import Now
from .views import VIEWS, WINDOWS, Query

_LONGEST: Final = 2000
_LABELS: Final = 6
_GAP: Final = 15  # very many processes are not looked at each second
_HOUR: Final = 3600

TITLES: Final = {
    "fleet": "Fleet",
    "timeline": "Timeline",
    "holders": "Holders",
    "queries": "Queries",
    "waits": "Waits",
    "events": "Events",
}


def _finalize(value: object) -> object:
    """Texts of other processes can neither move a cursor nor turn the direction of writing."""
    if value is None:
        return "-"
    if isinstance(value, str) and not isinstance(value, Markup):
        shown = value[:_LONGEST]
        return shown if shown.isprintable() else printable(shown)
    return value


def _number(value: float | None) -> str:
    """A figure of at most a few signs."""
    if value is None:
        return "none"
    return f"{value:.0f}" if value >= 100 or value == int(value) else f"{value:.2g}"


def _moment(at: float) -> Markup:
    """A time in UTC; the page's script can show it as local time."""
    return _time(at, "%Y-%m-%d %H:%M:%S UTC" if time.time() - at > 86_000 else "%H:%M:%S UTC")


def _time(at: float, pattern: str) -> Markup:
    try:
        told = time.gmtime(at)
        text, exact = time.strftime(pattern, told), time.strftime("%Y-%m-%dT%H:%M:%SZ", told)
    except (OverflowError, ValueError, OSError):  # a snapshot may give any number
        return Markup("-")
    return Markup('<time datetime="{}">{}</time>').format(exact, text)


Tell = Callable[[float], str]


class _Links:
    """Addresses of other pages, which keep what this one was asked for."""

    def __init__(self, base: str, query: Query) -> None:
        self.base = base
        self._kept = {"pool": query.pool, "process": query.process}

    def __call__(self, view: str, /, **parameters: object) -> str:
        chosen = {**self._kept, **parameters}
        given = {name: value for name, value in chosen.items() if value not in ("", None)}
        path = f"{self.base}/" if view == "fleet" else f"{self.base}/{view}"
        return path + (f"?{urlencode(given)}" if given else "")


_templates: Final = Environment(
    loader=PackageLoader("geventpool.dashboard"),
    autoescape=True,
    finalize=_finalize,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_templates.filters.update(
    seconds=seconds, number=_number, moment=_moment, sparkline=sparkline, short=short
)


def render_login(base: str, is_wrong: bool) -> str:
    """Asks for the token."""
    return _templates.get_template("login.html").render(base=base, is_wrong=is_wrong)


def render_page(name: str, query: Query, base: str, live: str, now: Now) -> str:
    """A whole page.

    Args:
        name: of the view.
        query: what is asked for.
        base: where the application is.
        live: what changes in it, as `render_live` gives it.
        now: for what can be chosen.
    """
    shown = {key: value for key, value in _asked(query).items() if value not in ("", 0, 0.0)}
    return _templates.get_template("page.html").render(
        name=name,
        titles=TITLES,
        query=query,
        base=base,
        link=_Links(base, query),
        live=Markup(live),
        stream=f"{base}/stream?{urlencode({'view': name, **shown})}",
        is_live=not query.end,
        pools=list(now.sums),
        windows=WINDOWS,
        export=urlencode(shown),
        at=now.at,
    )


def _asked(query: Query) -> dict[str, Any]:
    return {
        "pool": query.pool,
        "process": query.process,
        "from": query.begin,
        "to": query.end,
        "window": query.window,
        "order": query.order,
        "page": query.page,
        "what": query.what,
    }


def render_live(name: str, query: Query, base: str, found: Mapping[str, Any]) -> str:
    """What changes on a page: sections, each with an id by which it is replaced."""
    assert name in VIEWS
    more = {"charts": timeline_charts(found)} if name == "timeline" else {}
    return _templates.get_template(f"{name}.html").render(
        query=query, base=base, link=_Links(base, query), **found, **more
    )


def timeline_charts(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The four charts of the timeline, each with its legend."""
    rows: Sequence[Mapping[str, Any]] = found["rows"]
    begin, end = found["begin"], found["end"]
    labels = _labels(begin, end)
    marks = [(kind, [row["at"] for row in rows if row[kind]]) for kind in ("opened", "closed")]
    plans: list[tuple[str, Tell, list[tuple[str, str]], Sequence[Any]]] = [
        (
            "Connections",
            _number,
            [
                ("max_size", "cap"),
                ("level", "level"),
                ("size", "held"),
                ("demand", "in use + waiting"),
                ("in_use", "in use"),
            ],
            marks,
        ),
        ("Waits", seconds, [("wait_p99", "p99"), ("wait_p50", "p50")], ()),
        ("Checkouts per second", _number, [("checkouts", "checkouts/s")], ()),
    ]
    charts = [
        _chart(
            title, tell, [_line(rows, *one, found["step"]) for one in names], ticks, found, labels
        )
        for title, tell, names, ticks in plans
    ]
    errors = _refused(rows, found["step"])
    charts.append(_chart("Callers refused per second", _number, errors, (), found, labels))
    return charts


def _refused(rows: Sequence[Mapping[str, Any]], step: int) -> list[Line]:
    """A line for each reason for which callers got nothing."""
    reasons = sorted({why for row in rows for why in row["errors"]})[:6]
    return [
        Line(
            why,
            f"reason{place}",
            _points([(row["at"], row["errors"].get(why, 0) / step) for row in rows], step),
        )
        for place, why in enumerate(reasons)
    ]


def _chart(
    title: str,
    tell: Tell,
    lines: Sequence[Line],
    ticks: Sequence[Any],
    found: Mapping[str, Any],
    labels: Sequence[tuple[float, str]],
) -> dict[str, Any]:
    told = f"{title} of {found['pool']}: {', '.join(_last(line, tell) for line in lines) or 'none'}"
    drawn = chart(printable(told), lines, ticks, (found["begin"], found["end"]), labels, tell)
    return {"title": title, "svg": drawn, "lines": lines, "ticks": [kind for kind, _ in ticks]}


def _last(line: Line, tell: Tell) -> str:
    values = [value for _, value in line.points if value is not None]
    if not values:
        return f"{line.name} unknown"
    return f"{line.name} {tell(values[-1])} now, {tell(max(values))} at most"


def _line(rows: Sequence[Mapping[str, Any]], key: str, name: str, step: int) -> Line:
    return Line(name, key, _points([(row["at"], row[key]) for row in rows], step))


def _points(
    points: Sequence[tuple[float, float | None]], step: int
) -> list[tuple[float, float | None]]:
    """With a gap wherever nothing was remembered."""
    found: list[tuple[float, float | None]] = []
    before = None
    for at, value in points:
        if before is not None and at - before > max(3 * step, _GAP):
            found.append((at, None))
        found.append((at, value))
        before = at
    return found


def _labels(begin: float, end: float) -> list[tuple[float, str]]:
    """Whole minutes or hours, in UTC."""
    wanted = (end - begin) / _LABELS
    steps = (1, 5, 15, 30, 60, 120, 300, 600, 1800, _HOUR, 2 * _HOUR, 4 * _HOUR)
    step = next((one for one in steps if one >= wanted), 4 * _HOUR)
    pattern = "%H:%M:%S" if step < 60 else "%H:%M"
    first = int(begin // step + 1) * step
    return [
        (at, time.strftime(pattern, time.gmtime(at)))
        for at in range(first, int(end), step)
        if begin + 0.03 * (end - begin) < at < end - 0.03 * (end - begin)
    ]
