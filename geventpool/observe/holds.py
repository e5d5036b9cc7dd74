"""Who holds which connection, since when, and in which transaction."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from ..core import stacks
from ..core.entry import Entry
from ..core.pool import ResourcePool
from ..drivers import State, driver_for
from .sites import (
    Line,
    Site,
    lines_of_capture,
    lines_of_greenlet,
    site_of_capture,
    tell_site,
    tell_stack,
)

ACTIVE, IDLE, IN_TRANSACTION = "active", "idle", "idle in transaction"
"""States of a lent connection, as PostgreSQL calls them."""

_ENDS = {"COMMIT", "ROLLBACK"}


class Hold:
    """One lent connection. Times are seconds of the pool's clock.

    Attributes:
        site: who took it.
        began: when the query under way was sent; `None`: there is none.
        text: that query.
        active_at: when anything was last done with it.
        transaction_at: when the first query of the transaction was sent; `None`: none, as far as seen.
        queries: how many were sent.
        busy: seconds spent in queries.
        is_sampled: stacks are taken.
        taken: the stack where it was taken, if it is sampled.
        cursor: where its last cursor was made.
        executed: where its last query was sent.
        execute_site: who sent it, if somebody has looked.
        warned: what has been warned of.
    """

    __slots__ = (
        "active_at",
        "began",
        "busy",
        "cursor",
        "execute_site",
        "executed",
        "is_sampled",
        "queries",
        "site",
        "taken",
        "text",
        "transaction_at",
        "warned",
    )

    def __init__(self, now: float, site: Site, taken: stacks.Stack | None) -> None:
        self.site = site
        self.taken = taken
        self.is_sampled = taken is not None
        self.active_at = now
        self.began: float | None = None
        self.text = ""
        self.transaction_at: float | None = None
        self.queries = 0
        self.busy = 0.0
        self.cursor: stacks.Stack | None = None
        self.executed: stacks.Stack | None = None
        self.execute_site: Site = ()
        self.warned: str | None = None

    def begin(self, now: float, text: str, connection: Any) -> None:
        """A query is being sent. Never switches."""
        if self.transaction_at is not None and driver_state(connection) is State.CLEAN:
            self.transaction_at = None  # it was committed, or rolled back
        self.began = now
        self.text = text
        self.execute_site = ()

    def end(self, now: float, connection: Any) -> float:
        """The query under way is over. Never switches.

        Args:
            now: by the pool's clock.
            connection: the driver's, to see whether it is in a transaction; `None`: it is lost.

        Returns:
            The seconds that it took.
        """
        began = now if self.began is None else self.began
        self.began = None
        self.active_at = now
        self.busy += now - began
        self.queries += 1
        if not begins_transaction(connection, self.text):
            self.transaction_at = None
        elif self.transaction_at is None:
            self.transaction_at = began
        return now - began

    @property
    def last_site(self) -> Site:
        """Who sent the last query; empty if nobody has looked."""
        return self.execute_site or site_of_capture(self.executed)


@dataclass(frozen=True)
class Holder:
    """What is known of a lent connection at one moment. Durations are seconds.

    Attributes:
        pool: the pool's name.
        connection: which one: its number, as long as it is open.
        state: `"active"`: in a query; `"idle in transaction"`; `"idle"`.
        owner: the greenlet that holds it.
        held_for: since it was taken.
        idle_for: since something was last done with it; 0 while it is active.
        in_transaction_for: since the first query of its transaction; `None`: in none.
        queries: sent so far; 0 also if queries are not watched.
        busy: the time that these took.
        query: the one under way, or the last, as a fingerprint.
        site: who took it.
        execute_site: who sent the last query.
        taken_at: the stack there, outermost first; empty if it was not sampled.
        cursor_at: the stack where the last cursor was made.
        executed_at: the stack where the last query was sent.
        now_at: where its greenlet is now.
    """

    pool: str
    connection: int
    state: str
    owner: str
    held_for: float
    idle_for: float
    in_transaction_for: float | None
    queries: int
    busy: float
    query: str
    site: str
    execute_site: str
    taken_at: list[Line]
    cursor_at: list[Line]
    executed_at: list[Line]
    now_at: list[Line]

    def to_json(self) -> dict[str, Any]:
        """As a snapshot has it."""
        return dict(vars(self))  # `asdict` would copy each line of the stacks

    def __str__(self) -> str:
        transaction = (
            ""
            if self.in_transaction_for is None
            else f", in a transaction for {self.in_transaction_for:.3g} s"
        )
        return (
            f"connection {self.connection} of {self.pool}, {self.state}, held for {self.held_for:.3g} s"
            f"{transaction}, {self.queries} queries, by {self.owner}; taken at {self.site}"
        )

    def tell(self) -> str:
        """All of it as text, with the stacks that there are."""
        parts = [str(self)]
        if self.query:
            parts.append(f"last query: {self.query}, sent at {self.execute_site}")
        for title, lines in (
            ("taken at", self.taken_at),
            ("last cursor made at", self.cursor_at),
            ("last query sent at", self.executed_at),
            ("now at", self.now_at),
        ):
            if lines:
                parts.append(f"{title}:\n{tell_stack(lines).rstrip()}")
        return "\n".join(parts)


def connection_of(entry: Entry) -> Any:
    """The driver's connection behind an entry."""
    resource = entry.resource
    return getattr(resource, "dbapi_connection", resource)


def number_of(entry: Entry) -> int:
    """The server's own number of a connection, as its lists of sessions show it; else one of ours."""
    connection = connection_of(entry)
    try:
        number = driver_for(connection).server_id(connection)
    except Exception:  # it is closed
        return 0
    return id(connection) % 1_000_000 if number is None else number


def describe(
    core: ResourcePool, entry: Entry, hold: Hold | None, show: Callable[[str], str]
) -> Holder:
    """A lent connection as it is now. Never switches.

    Args:
        core: the pool that has lent it.
        entry: the pool's record of it.
        hold: what was seen of it; `None`: nothing.
        show: a query's text without what may be secret.
    """
    now = core.clock.now()
    owner = entry.owner
    is_alive = owner is not None and not owner.dead
    holder = Holder(
        pool=core.name,
        connection=number_of(entry),
        state=state_of(entry, hold),
        owner=stacks.name_of(owner) if is_alive else "a greenlet that is gone, or another thread",
        held_for=now - entry.taken_at,
        idle_for=0.0,
        in_transaction_for=None,
        queries=0,
        busy=0.0,
        query="",
        site="",
        execute_site="",
        taken_at=[],
        cursor_at=[],
        executed_at=[],
        now_at=lines_of_greenlet(owner) if is_alive else [],
    )
    if hold is None:
        return holder
    return replace(_with_hold(holder, entry, hold, now), query=show(hold.text))


def _with_hold(holder: Holder, entry: Entry, hold: Hold, now: float) -> Holder:
    is_active = hold.began is not None
    since = hold.transaction_at
    if since is None and holder.state == IN_TRANSACTION:
        since = entry.taken_at  # it was begun where we could not see it
    if holder.state == IDLE:
        since = None
    return replace(
        holder,
        idle_for=0.0 if is_active else now - hold.active_at,
        in_transaction_for=None if since is None else now - since,
        queries=hold.queries,
        busy=hold.busy + (now - hold.began if hold.began is not None else 0.0),
        site=tell_site(hold.site),
        execute_site=tell_site(hold.last_site) if hold.last_site else "",
        taken_at=lines_of_capture(hold.taken),
        cursor_at=lines_of_capture(hold.cursor),
        executed_at=lines_of_capture(hold.executed),
    )


def driver_state(connection: Any) -> State:
    """What the driver knows of a connection; `None` is broken. No I/O. Never switches."""
    try:
        return State.BROKEN if connection is None else driver_for(connection).state(connection)
    except Exception:  # a driver's surprise must not become the program's
        return State.BROKEN


def begins_transaction(connection: Any, text: str) -> bool:
    """Is a transaction open after a query? No I/O. Never switches.

    Where the driver never tells, as DBAPI has it: any query begins one, unless in autocommit.
    """
    state = driver_state(connection)
    if state is not State.UNKNOWN or driver_for(connection).tells_transactions:
        return state is State.IN_TRANSACTION
    try:
        ask = getattr(connection, "get_autocommit", None)
        is_autocommit = getattr(connection, "autocommit", False) if ask is None else ask()
    except Exception:
        is_autocommit = False
    return not is_autocommit and text.lstrip()[:8].upper() not in _ENDS


def is_busy(connection: Any) -> bool:
    """Is it in an exchange, such as a commit, or a fetch of rows? No I/O. Never switches."""
    try:
        return driver_state(connection) is State.BROKEN and (
            connection is not None and driver_for(connection).fileno(connection) is not None
        )
    except Exception:
        return False


def state_of(entry: Entry, hold: Hold | None) -> str:
    """What a lent connection does, as far as its driver tells. No I/O. Never switches."""
    connection = connection_of(entry)
    if (hold is not None and hold.began is not None) or is_busy(connection):
        return ACTIVE
    state = driver_state(connection)
    if state is State.UNKNOWN and not driver_for(connection).tells_transactions:
        return IDLE if hold is None or hold.transaction_at is None else IN_TRANSACTION
    return IN_TRANSACTION if state is State.IN_TRANSACTION else IDLE


def longest_held(holders: list[Holder], limit: int) -> list[Holder]:
    """Those that are held for longest, first."""
    return heapq.nlargest(limit, holders, key=lambda holder: holder.held_for)
