"""One pooled resource and its state."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final

# Plain strings, because they are compared on every checkout; they are also what logs and `repr` show.
OPENING: Final = "opening"
IDLE: Final = "idle"
IN_USE: Final = "in use"
CLOSING: Final = "closing"
CLOSED: Final = "closed"


def _nobody_asks(entry: Entry, greenlet: Any) -> None:
    """Of an entry that is nowhere in circulation."""


class Entry:
    """One place in the pool, from the moment that it is reserved until its resource is closed.

    Times are seconds of the pool's monotonic clock.

    Attributes:
        resource: what `open` returned; `None` while opening.
        state: `opening`, `idle`, `in use`, `closing` or `closed`.
        opened_at: when `open` returned.
        expires_at: from then on the entry is replaced instead of lent.
        idle_since: when it was last returned.
        taken_at: when it was last lent.
        sure_for: for so many seconds after its return it may be lent without a ping, if its socket is
            quiet.
        quiet_until: until then its socket was looked at a moment ago.
        is_suspect: something happened on its socket: ping before it is lent.
        watch: the hub's `core.watch.Watch`, if its socket is in that.
        fd: the number of its socket; -1: it has none, as far as is known.
        tell: who is told when that hangs up.
        socket_of: tells which socket the resource has now; `None`: nobody can tell.
        socket: what it told when the entry was last followed by `core.watch`.
        owner: while it is lent: the greenlet that holds it, as far as that is known.
        on_owner_end: called with the entry and its owner, when that has ended; the entry itself is what
            is linked to a greenlet, so that there is no object more for each.
        stack: where it was taken, if that is being recorded.
        waited: seconds that its holder stood in line for it.
        cause: why it was taken out of circulation.
    """

    __slots__ = (
        "__weakref__",
        "cause",
        "expires_at",
        "fd",
        "idle_since",
        "is_suspect",
        "on_owner_end",
        "opened_at",
        "owner",
        "quiet_until",
        "resource",
        "socket",
        "socket_of",
        "stack",
        "state",
        "sure_for",
        "taken_at",
        "tell",
        "waited",
        "watch",
    )

    def __init__(self) -> None:
        self.resource: Any = None
        self.state: str = OPENING
        self.opened_at = 0.0
        self.expires_at = math.inf
        self.idle_since = 0.0
        self.taken_at = 0.0
        self.sure_for = 0.0
        self.quiet_until = 0.0
        self.is_suspect = False
        self.watch: Any = None
        self.fd = -1
        self.tell: Any = None
        self.socket_of: Any = None
        self.socket: object = None
        self.owner: Any = None
        self.on_owner_end: Callable[[Entry, Any], object] = _nobody_asks
        self.stack: Any = None
        self.waited = 0.0
        self.cause = ""

    def __call__(self, greenlet: Any) -> None:
        """The owner has ended. Runs in the hub."""
        self.on_owner_end(self, greenlet)

    def __repr__(self) -> str:
        return f"<Entry {self.state} {self.resource!r}>"
