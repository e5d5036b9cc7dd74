"""The table of metrics in docs/observe.md, made from where they are declared.

`python -m tools.metrics_table` writes it anew.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from geventpool.core.stats import BY_LABEL, COUNTER, HISTOGRAM, METRICS
from geventpool.observe.metrics import HUB, OBSERVED, PROCESSES, families

PAGE = Path(__file__).resolve().parents[1] / "docs" / "observe.md"
_BEGIN = "<!-- metrics: written by python -m tools.metrics_table -->\n"
_END = "<!-- end of metrics -->\n"
_SCOPES = (
    ("each pool", METRICS),
    ("each pool that is observed", OBSERVED),
    ("the hub, if it is watched", HUB),
    ("all", (PROCESSES,)),
)


def table() -> str:
    """The table in Markdown."""
    return "".join(f"{row}\n" for row in _rows())


def _rows() -> Iterator[str]:
    yield "| metric | of | what |"
    yield "|---|---|---|"
    for scope, metrics in _SCOPES:
        for family in families(metrics):
            first = family[0]
            suffix = "_total" if first.kind in (COUNTER, BY_LABEL) else ""
            label = f"{{{first.label}}}" if first.label else ""
            states = ", ".join(f"`{one.name}`" for one in family) if len(family) > 1 else ""
            what = f"{first.family}: {states}" if states else first.help
            kind = ", a histogram in seconds" if first.kind == HISTOGRAM else ""
            yield f"| `geventpool_{first.exposed}{suffix}{label}` | {scope} | {what}{kind} |"


def page_with(text: str) -> str:
    """The page with the table as it has to be."""
    before, _, rest = text.partition(_BEGIN)
    return f"{before}{_BEGIN}{table()}{_END}{rest.partition(_END)[2]}"


if __name__ == "__main__":
    PAGE.write_text(page_with(PAGE.read_text()))
