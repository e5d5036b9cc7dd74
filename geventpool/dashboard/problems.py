"""What is wrong, in words, and what helps: the state of a process and of each of its pools.

Pure: what was published and what it was a moment before go in, sentences come out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ..core.causes import CURES, DATABASE_DOWN, DEADLOCK, HUB_BLOCKED, SATURATED
from ..observe.holds import IN_TRANSACTION
from ..observe.sites import tell_site
from ..observe.text import now_line, seconds
from .records import Record, count, gauge

STALE: Final = "stale"
LEAK: Final = "leak"
OPEN_TRANSACTION: Final = "idle in transaction"

CURE_OF: Final[Mapping[str, str]] = {
    **CURES,
    DEADLOCK: "take one connection at a time in a greenlet, or raise max_size",
    STALE: "its hub is blocked, or it calls publish() no more: look at the process",
    LEAK: "give each connection back: with engine.connect() as connection",
    OPEN_TRANSACTION: "commit or close before waiting for something else",
    "held": "give the connection back before waiting for something else",
    "slow query": "look at its plan: EXPLAIN",
    "resize": "",
    "started": "",
    "ended": "",
}
"""What helps, by what is wrong."""

# For how long a turn of the hub or a leak stays a problem after it was seen.
_RECENT: Final = 30.0
_LONG_IN_TRANSACTION: Final = 1.0
_ORDER: Final = (
    STALE,
    DATABASE_DOWN,
    DEADLOCK,
    HUB_BLOCKED,
    LEAK,
    SATURATED,
    OPEN_TRANSACTION,
    "slow query",
)


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong now.

    Attributes:
        what: in a few words; it is told since when.
        told: with figures.
        site: whose line; empty if it is nobody's.
        view: the page that explains it.
    """

    what: str
    told: str
    site: str = ""
    view: str = "events"

    @property
    def cure(self) -> str:
        """What helps."""
        return cure(self.what)


def cure(what: str) -> str:
    """What helps against something that goes by this name; may be empty."""
    if what in CURE_OF:
        return CURE_OF[what]
    return next((told for name, told in CURE_OF.items() if what.startswith(name)), "")


def worst_first(problems: Sequence[Problem]) -> list[Problem]:
    """The one to look at first comes first."""
    rank = {what: place for place, what in enumerate(_ORDER)}
    return sorted(problems, key=lambda one: rank.get(one.what, len(rank)))


def of_process(
    said: Mapping[str, Any], stale_for: float | None, blocks: Iterable[Mapping[str, Any]]
) -> list[Problem]:
    """What is wrong with a whole process.

    Args:
        said: its snapshot.
        stale_for: seconds since it published last, if that is too long; else `None`.
        blocks: stretches for which its hub was blocked, by its own clock.
    """
    found = []
    if stale_for is not None:
        found.append(Problem(STALE, f"not published for {seconds(stale_for)}", view="fleet"))
    # The process's own clock made both times, so that it does not matter whether it is right.
    recent = [one for one in blocks if said["time"] - one["at"] + (stale_for or 0) < _RECENT]
    if recent:
        nowhere = tell_site(())
        # One that somebody can do something about, if there is one.
        worst = max(recent, key=lambda block: (block["site"] != nowhere, block["seconds"]))
        told = f"blocked for {seconds(worst['seconds'])}"
        found.append(Problem(HUB_BLOCKED, told, worst["site"], "waits"))
    return found


def of_pool(pool: Mapping[str, Any], rose: Record, time: float) -> list[Problem]:
    """What is wrong with one pool.

    Args:
        pool: as its snapshot has it.
        rose: what it did in the last seconds.
        time: when its process made the snapshot, by its own clock.
    """
    return [*_of_figures(pool, rose), *_of_observed(pool["observed"] or {}, time)]


def _of_figures(pool: Mapping[str, Any], rose: Record) -> Iterator[Problem]:
    failed = rose["e"].get(DATABASE_DOWN, 0) + rose["r"].get(DATABASE_DOWN, 0)
    errors = count(rose, "open_errors")
    if failed or errors:
        told = f"{errors:g} attempts to connect failed, {pool['waiting']} callers wait"
        yield Problem(DATABASE_DOWN, told, view="waits")
    elif pool["waiting"] and pool["max_size"] is not None and pool["in_use"] >= pool["max_size"]:
        told = f"all {pool['max_size']:g} connections are in use, {pool['waiting']} callers wait"
        yield Problem(SATURATED, told, _culprit(pool), "holders")
    if rose["e"].get(DEADLOCK):
        yield Problem(DEADLOCK, f"{rose['e'][DEADLOCK]} callers", _culprit(pool), "holders")


def _of_observed(observed: Mapping[str, Any], time: float) -> Iterator[Problem]:
    told: set[str] = set()
    for warning in reversed(observed.get("recent", ())):
        what = warning["what"]
        if time - warning["at"] < _RECENT and what not in told and what != OPEN_TRANSACTION:
            told.add(what)
            view = "queries" if what == "slow query" else "events"
            yield Problem(what, "", warning["site"], view)
    idle = [one for one in observed.get("holders", ()) if one["state"] == IN_TRANSACTION]
    worst = max(idle, key=lambda one: float(one["idle_for"]), default=None)
    if worst is not None and worst["idle_for"] >= _LONG_IN_TRANSACTION:
        told_of = f"{len(idle)} held so, the longest for {seconds(worst['idle_for'])}"
        yield Problem(OPEN_TRANSACTION, told_of, worst["site"], "holders")


def _culprit(pool: Mapping[str, Any]) -> str:
    """Who has held a connection for longest, and where that greenlet is now."""
    holders = (pool["observed"] or {}).get("holders") or []
    if not holders:
        return ""
    longest = max(holders, key=lambda one: float(one["held_for"]))
    now = now_line(longest)
    return f"{longest['site']}; now {now}" if now else str(longest["site"])


def outlook(rose: Record) -> str:
    """The state of a pool with which nothing is wrong, in a word."""
    if gauge(rose, "waiting"):
        return "callers wait"
    return "in use" if gauge(rose, "in_use") else "idle"
