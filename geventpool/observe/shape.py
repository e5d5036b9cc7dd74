"""Is it a snapshot? What comes from a file is data, and whoever may write there may write anything.

Checked before anything is made of it, so that no reader has to expect a list where a number belongs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from ..core import stats
from .figures import EDGES, FIGURES

Shape = Callable[[object], bool]

# The largest number that readers can still add up and print.
_MOST: Final = 1e300


def number(value: object) -> bool:
    """A number that can be counted with."""
    return isinstance(value, (int, float)) and -_MOST <= value <= _MOST  # which NaN is not


def count(value: object) -> bool:
    """A number that is not below zero."""
    return isinstance(value, (int, float)) and 0 <= value <= _MOST


def text(value: object) -> bool:
    """Text."""
    return isinstance(value, str)


def maybe(shape: Shape) -> Shape:
    """That, or `None`."""
    return lambda value: value is None or shape(value)


def many(shape: Shape, length: int | None = None) -> Shape:
    """A list of these; with a length: of so many, or of none."""
    return lambda value: (
        isinstance(value, list)
        and len(value) in (0, length or len(value))
        and all(map(shape, value))
    )


def by_name(shape: Shape) -> Shape:
    """Any names, each with one of these."""
    return lambda value: isinstance(value, dict) and all(map(shape, value.values()))


def has(**shapes: Shape) -> Shape:
    """These names at least, each with its own."""

    def is_so(value: object) -> bool:
        return isinstance(value, dict) and all(
            name in value and shape(value[name]) for name, shape in shapes.items()
        )

    return is_so


def both(one: Shape, other: Shape) -> Shape:
    """One and the other."""
    return lambda value: one(value) and other(value)


def _is_line(value: object) -> bool:
    match value:
        case [str(), int(), str()]:
            return True
    return False


_BLOCK: Final = has(seconds=count, at=number, site=text, stack=many(_is_line))
_HUB: Final = has(
    threshold=count, blocks=count, blocked_seconds=count, longest=maybe(_BLOCK), last=maybe(_BLOCK)
)
_HOLDER: Final = has(
    connection=count,
    state=text,
    owner=text,
    held_for=number,
    idle_for=number,
    in_transaction_for=maybe(number),
    queries=count,
    query=text,
    site=text,
    execute_site=text,
    **dict.fromkeys(("taken_at", "cursor_at", "executed_at", "now_at"), many(_is_line)),
)
_QUERY: Final = has(
    query=text,
    site=text,
    **dict.fromkeys(
        ("calls", "errors", "rows", "total", "mean", "p50", "p95", "p99", "longest"), count
    ),
)
_SITE: Final = has(
    site=text, **dict.fromkeys(("count", "held", "busy", "busy_share", "longest"), number)
)
_HISTOGRAM: Final = has(counts=many(count, len(EDGES) + 1), total=count)


_FIGURES: Final = has(
    **{one.exposed: _HISTOGRAM if one.kind == stats.HISTOGRAM else count for one in FIGURES}
)


def _are_histograms(value: object) -> bool:
    """All figures of a pool that is observed, or none."""
    return value == {} or (_FIGURES(value) and len(value) == len(FIGURES))  # type: ignore[arg-type]


_SUMS: Final = has(histograms=_are_histograms, warnings=by_name(count), holders=many(_HOLDER))
_OBSERVED: Final = both(
    _SUMS,
    has(
        recent=many(has(at=number, what=text, site=text)),
        queries=maybe(has(top=many(_QUERY), fingerprints=count, evicted=count)),
        sites=many(_SITE),
    ),
)


_OF_KIND: Final[Mapping[str, Shape]] = {
    stats.GAUGE: count,
    stats.COUNTER: count,
    stats.BY_LABEL: by_name(count),
    stats.HISTOGRAM: many(count, len(stats.WAIT_EDGES) + 1),
}
_COUNTED: Final = has(name=text, **{one.name: _OF_KIND[one.kind] for one in stats.COUNTED})
_POOL: Final = has(
    **{one.name: _OF_KIND[one.kind] for one in stats.METRICS if one.is_added_up}
    | {"max_size": maybe(count), "observed": maybe(_OBSERVED)}
)

is_snapshot: Final = has(
    pid=lambda pid: isinstance(pid, int) and 0 < pid < 2**31,
    program=text,
    began=text,
    time=number,
    pools=many(both(_COUNTED, _POOL)),
    gone=many(_COUNTED),
    hub=maybe(_HUB),
)
"""Is it that of a process?"""

is_sum: Final = has(pools=many(both(_COUNTED, has(observed=_SUMS))), hub=maybe(_HUB))
"""Is it the sums of processes that have ended?"""
