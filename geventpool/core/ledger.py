"""Which entries there are, in which state, and how many there may be. Pure: never switches, does no I/O.

Every method leaves the invariant

    opening + idle + in use + closing == size

true, so that a greenlet switch, or a kill, between any two calls finds the books right.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Protocol

from .entry import CLOSED, CLOSING, IDLE, IN_USE, OPENING, Entry


class Permits(Protocol):
    """Who has to allow each place, beside the cap. No method ever switches or raises.

    Attributes:
        size: how many there are.
        granted: how many this pool has.
        demand: how many it needs.
        is_short: callers wait because there is none.
    """

    granted: int

    @property
    def size(self) -> int:
        """See there."""

    @property
    def demand(self) -> int:
        """See there."""

    @property
    def is_short(self) -> bool:
        """See there."""

    def take(self) -> bool:
        """Asks for one; False: there is none for now."""

    def give_back(self) -> None:
        """What it was for is gone."""

    def changed(self) -> None:
        """The settings are other ones, or the pool is closed."""


class Cap:
    """Most entries at once, in whatever state: the smallest of three.

    Attributes:
        configured: by the settings; `math.inf`: no limit.
        granted: by somebody outside, who shares out what a server allows; `math.inf`: nobody does.
        found: what the server can make use of; `math.inf`: nobody looks for it.
    """

    __slots__ = ("configured", "found", "granted")

    def __init__(self, configured: float) -> None:
        self.configured = configured
        self.granted = self.found = math.inf

    @property
    def limit(self) -> float:
        """What holds."""
        return min(self.configured, self.granted, self.found)


class Ledger:
    """The entries of one pool.

    Args:
        max_size: most entries at once, in whatever state; `math.inf` for no limit.
        lifo: lend the entry that was returned last (else the one returned first).

    Attributes:
        entries: open ones, in whatever state.
        size: entries in any state, also reserved ones: each may hold a connection of the server.
        cap: how many there may be.
        permits: has to allow each; `None`: the cap alone counts.
    """

    __slots__ = (
        "cap",
        "closing",
        "entries",
        "idle",
        "in_use",
        "lifo",
        "opening",
        "permits",
        "size",
    )

    def __init__(
        self, max_size: float, *, lifo: bool = True, permits: Permits | None = None
    ) -> None:
        self.cap = Cap(max_size)
        self.permits = permits
        self.lifo = lifo
        self.entries: set[Entry] = set()
        self.idle: deque[Entry] = deque()  # left: idle for longest
        self.opening = 0
        self.in_use = 0
        self.closing = 0
        self.size = 0

    @property
    def room(self) -> float:
        """So many more may be opened, if there are permits; below 0: the cap was lowered."""
        cap = self.cap  # its `limit`, for one frame less
        return min(cap.configured, cap.granted, cap.found) - self.size

    @property
    def surplus(self) -> float:
        """So many more are open, or about to be, than the cap allows; 0 or below: none."""
        return self.size - self.closing - self.cap.limit

    def take(self) -> Entry | None:
        """Lends an idle entry; `None`: there is none."""
        if not self.idle:
            return None
        entry = self.idle.pop() if self.lifo else self.idle.popleft()
        entry.state = IN_USE
        self.in_use += 1
        return entry

    def put(self, entry: Entry) -> None:
        """An entry in use is idle from now on."""
        if entry.state is not IN_USE:
            raise AssertionError(f"bug: put of an entry that is {entry.state}")
        entry.state = IDLE
        self.in_use -= 1
        self.idle.append(entry)

    def reserve(self) -> Entry | None:
        """Reserves a place for a resource that is about to be opened; `None`: there is none."""
        if self.size >= self.cap.limit:
            return None
        if self.permits is not None and not self.permits.take():
            return None
        self.opening += 1
        self.size += 1
        return Entry()

    def opened(self, entry: Entry) -> None:
        """The resource of a reserved place is there: it is in use, for now by whoever has opened it."""
        if entry.state is not OPENING:
            raise AssertionError(f"bug: opened an entry that is {entry.state}")
        self.opening -= 1
        self.in_use += 1
        self.entries.add(entry)
        entry.state = IN_USE

    def open_failed(self, entry: Entry) -> None:
        """Nothing was opened: the place is free again."""
        if entry.state is not OPENING:
            raise AssertionError(f"bug: open failed of an entry that is {entry.state}")
        self.opening -= 1
        self._left(entry)

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
        self.entries.discard(entry)
        self._left(entry)

    def _left(self, entry: Entry) -> None:
        self.size -= 1
        entry.state = CLOSED
        if self.permits is not None:
            self.permits.give_back()

    def check(self) -> None:
        """Asserts the invariant. For tests: it walks over all idle entries."""
        bad = [entry for entry in self.idle if entry.state is not IDLE]
        if bad or min(self.opening, self.in_use, self.closing) < 0:
            raise AssertionError(f"bug: {bad!r} among the idle, or a negative count in {self!r}")
        if self.size != self.opening + len(self.idle) + self.in_use + self.closing:
            raise AssertionError(f"bug: {self!r} is not of size {self.size}")
        if len(self.entries) != self.size - self.opening:
            raise AssertionError(f"bug: {self!r} knows {len(self.entries)} open entries")

    def __repr__(self) -> str:
        return (
            f"max {self.cap.limit:g}, idle {len(self.idle)}, in use {self.in_use}, "
            f"opening {self.opening}"
        )
