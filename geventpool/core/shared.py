"""What all parts of one pool have in common. It decides nothing."""

from __future__ import annotations

from typing import Any

from gevent._hub_local import get_hub_if_exists

from ..config import PoolConfig
from ..errors import printable
from ..sizing import SizingPolicy
from . import causes
from .clock import Clock, HubClock
from .entry import Entry
from .handlers import Handlers
from .ledger import Ledger, Permits
from .line import Line
from .listener import Listener, Listeners
from .stats import Counters
from .waiter import Waiter

NO_HUB: Any = (
    object()
)  # of a pool that nobody owns yet; no thread has it, while one may have `None`


class Shared:
    """The name, the settings, the time and the books of one pool.

    Attributes:
        name: for messages.
        handlers: what is done with a resource.
        config: the settings.
        policy: how many to keep.
        clock: time and timers.
        hub: of the thread that owns the pool; only that touches the books.
        mailbox: the hub's, for other threads.
        listener: is told of everything, if there is one.
        permits: has to allow each place; `None`: the cap alone counts.
        ledger: the entries.
        line: the callers in line.
        counters: what has happened.
        resetting: of those in use, such as were given back and wait for the answer to their reset; and
            the greenlet that does that.
        is_closed: nothing is lent any more.
        is_dormant: disposed of, until somebody asks again. Nothing in it is idle or opened ahead. Those
            who were in line are served all the same, but what they give back is closed, so that it comes
            down to nothing by itself even if nobody refers to it any more. Who asked before does not
            wake it.
        is_warm: `min_idle` entries are kept open even if nobody asks.
        is_shrinking: closed, dormant, or above a lowered cap: derived, so that a return looks at one
            attribute.
    """

    ledger: Ledger
    line: Line[Waiter]
    counters: Counters
    resetting: dict[Entry, Any]
    is_closed: bool
    is_dormant: bool
    is_warm: bool
    is_shrinking: bool

    def __init__(
        self,
        handlers: Handlers,
        policy: SizingPolicy,
        config: PoolConfig,
        name: str,
        clock: Clock | None,
    ) -> None:
        self.name = name
        self.handlers = handlers
        self.config = config
        self.policy = policy
        self.clock: Clock = clock or HubClock()
        self.hub: Any = NO_HUB
        self.mailbox: Any = None
        self.listener: Listeners | None = None  # `_listeners`, if there are any
        self._listeners = Listeners(self)
        self.permits: Permits | None = None

    def note_shrinking(self) -> None:
        """To be called when one of the three has changed. Never switches."""
        self.is_shrinking = self.is_closed or self.is_dormant or self.ledger.surplus > 0

    def why_not_kept(self) -> str:
        """The cause for which what has come back, or was opened, is to be closed; empty: none."""
        if self.is_closed:
            return causes.CLOSED
        if self.ledger.surplus > 0:
            return causes.RESIZED
        return causes.DISPOSED if self.is_dormant and not self.line.callers else ""

    @property
    def listeners(self) -> tuple[Listener, ...]:
        """Who is told of everything."""
        return self._listeners.all

    def add_listener(self, listener: Listener) -> None:
        """One more is told of everything from now on. In any thread. Never switches."""
        self._listeners.add(listener)

    def remove_listener(self, listener: Listener) -> None:
        """It is told nothing more. In any thread. Never switches."""
        self._listeners.remove(listener)

    @property
    def is_here(self) -> bool:
        """Does the calling thread own the pool?"""
        return bool(get_hub_if_exists() is self.hub)

    def __repr__(self) -> str:
        return f"<{printable(self.name)} ({self.ledger!r}, waiting {self.line.length})>"
