"""Why connections are closed, and why callers wait or are refused: the words of statistics and logs."""

from __future__ import annotations

from typing import Final

# Why an entry was taken out of circulation: the keys of `PoolStats.closed`.
SURPLUS: Final = "idle"
"""It was idle for as long as the sizing wanted."""
EXPIRED: Final = "expired"
"""It is too old, or something has said that all of its age are of no use."""
DEAD: Final = "dead"
"""The other side has hung up, or does not answer."""
INVALIDATED: Final = "invalidated"
"""Its holder, or the framework, says that it is of no use."""
ABANDONED: Final = "abandoned"
"""It was given back in the middle of an exchange."""
RESET_FAILED: Final = "reset failed"
"""It could not be made fit for the next."""
CHECK_INTERRUPTED: Final = "check interrupted"
"""Its borrower was killed while it was being looked at."""
OWNER_ENDED: Final = "owner ended"
"""The greenlet that held it has ended, and nobody gave it back."""
RESIZED: Final = "resized"
"""The cap was lowered below what is open."""
DISPOSED: Final = "disposed"
"""The pool was disposed of."""
CLOSED: Final = "closed"
"""The pool was closed."""

SIGNS_OF_AN_OUTAGE: Final = frozenset({DEAD, INVALIDATED})
"""Those that may mean that the other side is gone, and not this one entry alone."""

# Why a caller waited, or got nothing: `PoolStats.wait_reasons`, `timeout_reasons` and `PoolTimeout.why`.
SATURATED: Final = "saturated"
"""All that may be open are in use."""
CONNECTING: Final = "connecting"
"""One is being opened."""
DATABASE_DOWN: Final = "database down"
"""Opening fails."""
HUB_BLOCKED: Final = "hub blocked"
"""The hub had no turn for most of the time."""
FLEET: Final = "fleet"
"""All that the processes of the fleet may have together are taken."""
OVERLOADED: Final = "overloaded"
"""The line is too long, or has stood for too long. Only of who is refused."""
DEADLOCK: Final = "deadlock"
"""Everybody who holds one waits for another. Only of who is refused."""

CURES: Final = {
    SATURATED: "raise max_size, hold connections for less time, or allow a longer timeout",
    FLEET: "raise fleet_size, or hold connections for less time; `geventpool fleet` shows who has them",
    CONNECTING: "opening a connection takes long: look at the server and the network, or warm_up()",
    DATABASE_DOWN: "look at the server",
    HUB_BLOCKED: "something computes or blocks without yielding: move it to a thread or a process",
}
