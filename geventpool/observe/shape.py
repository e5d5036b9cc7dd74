"""Is it a snapshot? What comes from a file is data, and whoever may write there may write anything.

Checked before anything is made of it, so that no reader has to expect a list where a number belongs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

from ..core.stats import WAIT_EDGES
from .figures import EDGES

Shape = Callable[[object], bool]

# The largest number that readers can still add up and print.
_MOST: Final = 1e300


def number(value: object) -> bool:
    """A number that can be counted with."""
    return isinstance(value, (int, float)) and abs(value) <= _MOST and not math.isnan(value)


def count(value: object) -> bool:
    """A number that is not below zero."""
    return number(value) and value >= 0  # type: ignore[operator]


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


_BLOCK: Final = has(seconds=count, at=number, site=text)
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
    now_at=many(_is_line),
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


def _are_histograms(value: object) -> bool:
    """All of them, or none; and beside them a count of errors."""
    names = ("acquire_seconds", "hold_seconds", "open_seconds", "query_seconds")
    full = has(query_errors=count, **dict.fromkeys(names, _HISTOGRAM))
    return value == {} or (full(value) and len(value) == len(names) + 1)  # type: ignore[arg-type]


_SUMS: Final = has(histograms=_are_histograms, warnings=by_name(count), holders=many(_HOLDER))
_OBSERVED: Final = both(
    _SUMS,
    has(
        recent=many(has(at=number, what=text, site=text)),
        queries=maybe(has(top=many(_QUERY), fingerprints=count, evicted=count)),
        sites=many(_SITE),
    ),
)


def counts(counters: tuple[str, ...], named: tuple[str, ...]) -> Shape:
    """What a pool has counted."""
    return has(
        name=text,
        wait_counts=many(count, len(WAIT_EDGES) + 1),
        **dict.fromkeys(counters, count),
        **dict.fromkeys(named, by_name(count)),
    )


def snapshot(counted: Shape, gauges: tuple[str, ...]) -> Shape:
    """That of a process.

    Args:
        counted: by `counts`.
        gauges: names of what a pool has now.
    """
    pool = has(
        max_size=maybe(count),
        min_idle=count,
        checkouts_per_second=count,
        observed=maybe(_OBSERVED),
        **dict.fromkeys(gauges, count),
    )
    return has(
        pid=lambda pid: isinstance(pid, int) and 0 < pid < 2**31,
        program=text,
        began=text,
        time=number,
        pools=many(both(counted, pool)),
        gone=many(counted),
        hub=maybe(_HUB),
    )


def ended(counted: Shape) -> Shape:
    """The sums of processes that have ended."""
    return has(pools=many(both(counted, has(observed=_SUMS))), hub=maybe(_HUB))
