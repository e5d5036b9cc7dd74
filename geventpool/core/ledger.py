"""Who is idle, in use, opening, closing, waiting. Pure bookkeeping: never switches, does no I/O.

The ledger decides and says what is to be done; `core.pool` does it. Every method leaves the invariant

    opening + idle + in use + closing == size,  and nobody waits while something is idle

true, so that a greenlet switch, or a kill, between any two calls finds the books right.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from .entry import CLOSED, CLOSING, IDLE, IN_USE, OPENING, Entry


class Ledger:
    """The books of one pool.

    Args:
        max_size: most entries at once, in whatever state; `math.inf` for no limit.
        lifo: lend the entry that was returned last (else the one returned first).

    Attributes:
        size: entries in any state: each of them may hold a connection of the server.
    """

    __slots__ = ("closing", "idle", "in_use", "lifo", "max_size", "opening", "size", "waiting")

    def __init__(self, max_size: float, *, lifo: bool = True) -> None:
        self.max_size = max_size
        self.lifo = lifo
        self.idle: deque[Entry] = deque()  # left: idle for longest
        self.waiting: deque[Any] = deque()  # left: first in line
        self.opening = 0
        self.in_use = 0
        self.closing = 0
        self.size = 0

    def take(self) -> Entry | None:
        """Lends an idle entry; `None` if there is none or somebody is in line before."""
        if not self.idle or self.waiting:
            return None
        entry = self.idle.pop() if self.lifo else self.idle.popleft()
        entry.state = IN_USE
        self.in_use += 1
        return entry

    def put(self, entry: Entry) -> Any:
        """Takes back an entry in use: the first waiter gets it and is returned, else it is idle."""
        if entry.state is not IN_USE:
            raise AssertionError(f"bug: put of an entry that is {entry.state}")
        if self.waiting:
            return self.waiting.popleft()
        entry.state = IDLE
        self.in_use -= 1
        self.idle.append(entry)
        return None

    def park(self, waiter: Any) -> None:
        """Puts a waiter at the end of the line."""
        self.waiting.append(waiter)

    def leave(self, waiter: Any) -> None:
        """Takes a waiter that was not served out of the line."""
        self.waiting.remove(waiter)

    def reserve(self) -> Entry | None:
        """Reserves a place for a resource that is about to be opened; `None` when full."""
        if self.size >= self.max_size:
            return None
        self.opening += 1
        self.size += 1
        return Entry()

    def opened(self, entry: Entry) -> Any:
        """The resource is there: lent to the first waiter, who is returned, or idle."""
        if entry.state is not OPENING:
            raise AssertionError(f"bug: opened an entry that is {entry.state}")
        self.opening -= 1
        self.in_use += 1
        entry.state = IN_USE
        return self.put(entry)

    def open_failed(self, entry: Entry) -> None:
        """Nothing was opened: the place is free again."""
        if entry.state is not OPENING:
            raise AssertionError(f"bug: open failed of an entry that is {entry.state}")
        self.opening -= 1
        self.size -= 1
        entry.state = CLOSED

    def retire(self, entry: Entry) -> None:
        """Takes an idle or used entry out of circulation; its place stays taken until `closed`."""
        if entry.state is IDLE:
            self.idle.remove(entry)
        elif entry.state is IN_USE:
            self.in_use -= 1
        else:
            raise AssertionError(f"bug: retired an entry that is {entry.state}")
        entry.state = CLOSING
        self.closing += 1

    def closed(self, entry: Entry) -> None:
        """The resource of a retired entry is gone: the place is free."""
        if entry.state is not CLOSING:
            raise AssertionError(f"bug: closed an entry that is {entry.state}")
        self.closing -= 1
        self.size -= 1
        entry.state = CLOSED

    def check(self) -> None:
        """Asserts the invariant. For tests: it walks over all idle entries."""
        bad = [entry for entry in self.idle if entry.state is not IDLE]
        if bad or min(self.opening, self.in_use, self.closing) < 0:
            raise AssertionError(f"bug: {bad!r} among the idle, or a negative count in {self!r}")
        if self.size != self.opening + len(self.idle) + self.in_use + self.closing:
            raise AssertionError(f"bug: {self!r} is not of size {self.size}")
        if self.waiting and self.idle:
            raise AssertionError(f"bug: {self!r} lets callers wait beside idle entries")

    def __repr__(self) -> str:
        return (
            f"(max {self.max_size:g}, idle {len(self.idle)}, in use {self.in_use}, "
            f"opening {self.opening}, waiting {len(self.waiting)})"
        )
