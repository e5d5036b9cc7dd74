"""What a scenario is, and what it is given."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from . import pools
from .observer import Observer

ALL_POOLS = tuple(pools.ADAPTERS)
OURS = pools.OURS
MARK = "verdict: "  # begins the line on which a child says what it has seen


_LONGEST = 200


@dataclass(frozen=True)
class Row:
    """One line of the table: a scenario on one driver.

    Attributes:
        label: what tells it from the scenario's other rows; the driver's name comes with it.
        driver: the part of the URL after the plus.
        options: for the scenario's function.
    """

    label: str
    driver: str
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Scenario:
    """Something that happens to pools.

    Attributes:
        name: for `--only`, and the name of the module.
        title: for the table.
        about: what is done and what is asked, for people.
        run: does it to one pool.
        rows: the drivers and variants it is done with.
        limit: seconds at full length after which the pool counts as hung.
        quick_limit: the same for the shorter forms.
        compared: the figure that is also shown as a multiple of QueuePool's.
    """

    name: str
    title: str
    about: str
    run: Callable[[Context], None]
    rows: tuple[Row, ...]
    limit: float = 60
    quick_limit: float = 60
    compared: str = ""

    def applies(self, row: Row, pool: str) -> bool:
        """Can the pool do with the driver, and does the row mean it?"""
        only = row.options.get("pools", ALL_POOLS)
        return row.driver in pools.ADAPTERS[pool].drivers and pool in only

    def row_id(self, row: Row) -> str:
        """For `--only` and the tests' names."""
        return f"{self.name}-{row.label}".replace(" ", "_").replace(",", "")


class Context:
    """What a scenario's function works with, and where it puts what it has seen.

    Args:
        pool: the adapter's name.
        row: of the scenario.
        url: of the server that all scenarios share, for the row's driver.
        scale: `full`, `quick`, or `short`. In the short form, which runs beside other tests, times and
            shares of throughput are shown but not judged.

    Attributes:
        figures: what was measured, by its name.
        failures: why the pool does not pass.
        notes: how the pool was configured, if beyond its maximum.
    """

    def __init__(self, pool: str, row: Row, url: str, scale: str) -> None:
        self.pool = pool
        self.row = row
        self.url = url
        self.scale = scale
        self.figures: dict[str, Any] = {}
        self.failures: list[str] = []
        self.notes: list[str] = []

    @property
    def is_ours(self) -> bool:
        return self.pool == OURS

    def make_pool(self, max_size: int, url: str | None = None, **settings: Any) -> Any:
        """A new pool with an equal maximum for all; settings as for `Adapter`."""
        return pools.ADAPTERS[self.pool](url or self.url, max_size, **settings)

    def observer(self, url: str | None = None) -> Observer:
        """A connection beside the pool; nobody else is connected then."""
        observer = Observer(url or self.url)
        observer.clear()
        return observer

    def pick(self, full: Any, quick: Any, short: Any = None) -> Any:
        """By the scale of the run."""
        return {"full": full, "quick": quick, "short": quick if short is None else short}[
            self.scale
        ]

    def expect(self, condition: bool, reason: str, is_timing: bool = False) -> None:
        """The pool fails if not; at most three reasons are kept."""
        if not condition and not (is_timing and self.scale == "short") and len(self.failures) < 3:
            line = reason.splitlines()[0] if reason else "?"
            self.failures.append(line if len(line) <= _LONGEST else line[:_LONGEST] + "…")

    def verdict(self) -> dict[str, Any]:
        """For the parent."""
        return asdict(
            Verdict(not self.failures, "; ".join(self.failures), self.figures, self.notes)
        )


@dataclass(frozen=True)
class Verdict:
    """How it went for one pool.

    Attributes:
        passed: everything was as it must be.
        reason: why not.
        figures: what was measured.
        notes: how the pool was configured.
    """

    passed: bool
    reason: str
    figures: dict[str, Any]
    notes: list[str]


def eventually(condition: Callable[[], bool], seconds: float) -> bool:
    """Does it become true? Switches greenlets."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
