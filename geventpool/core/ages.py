"""When entries are too old, and what takes their place. Pure: never switches.

An entry is replaced before it is too old: the new one is opened first, then the old one is closed. Each is
due at a moment of its own, between 75 % and 90 % of its lifetime, so that connections which were opened
together do not all go together; at the end of the lifetime it is no longer lent at all.

So are those of an age that something is wrong with: all that were opened before an error that says so.
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
from typing import Final

from .entry import Entry

_EARLIEST: Final = 0.75
_LATEST: Final = 0.90
# What takes the place of distrusted entries may be no better, as long as an address leads to the same
# server, or because the program is to blame. It is distrusted after these seconds at the earliest, which
# double up to the second figure while that goes on.
_FIRST_PAUSE: Final = 1.0
_LONGEST_PAUSE: Final = 8.0
# Of less than that nothing can be renewed in time: it is replaced when it is asked for.
_SHORTEST: Final = 1.0
_SLACK: Final = 16  # entries that were forgotten and may be left in the heap before it is made anew


class Ages:
    """The ages of one pool's entries.

    Attributes:
        ageing: entries for which replacements are wanted.
        due_when_returned: lent ones, whose time has come.
        distrusted_at: what was opened before is to be replaced.
    """

    def __init__(self) -> None:
        self.ageing: list[Entry] = []
        self.due_when_returned: set[Entry] = set()
        self.distrusted_at = -math.inf
        self._pause = _FIRST_PAUSE
        self._due: dict[Entry, float] = {}
        self._heap: list[tuple[float, int, Entry]] = []
        self._order = itertools.count()

    def next_due(self) -> float:
        """When the next one is due; `inf`: none ever is."""
        heap = self._heap
        while heap and self._due.get(heap[0][2]) != heap[0][0]:
            heapq.heappop(heap)  # it was forgotten
        return heap[0][0] if heap else math.inf

    def add(self, entry: Entry, lifetime: float) -> Entry | None:
        """A new entry, open since `opened_at`.

        Returns:
            The one that it replaces; `None`: none.
        """
        entry.expires_at = min(entry.expires_at, entry.opened_at + lifetime)
        self._await(entry, lifetime)
        if not self.ageing:
            return None
        old = self.ageing[0]
        self.forget(old)
        return old

    def forget(self, entry: Entry) -> None:
        """An entry is closed, or about to be."""
        self._due.pop(entry, None)
        self.due_when_returned.discard(entry)
        if entry in self.ageing:
            self.ageing.remove(entry)

    def due(self, now: float) -> list[Entry]:
        """Takes out those whose time has come."""
        due = []
        while self._heap and self._heap[0][0] <= now:
            at, _, entry = heapq.heappop(self._heap)
            if self._due.get(entry) == at:
                del self._due[entry]
                due.append(entry)
        return due

    def wait_for_return(self, entry: Entry) -> None:
        """A lent one is due: what was opened now would be surplus until it comes back."""
        self.due_when_returned.add(entry)
        entry.expires_at = -math.inf

    def came_back(self, entry: Entry, lifetime: float, now: float) -> bool:
        """A lent one has come back too old: may it stay until its replacement is there?"""
        if entry not in self.due_when_returned:
            return False
        self.due_when_returned.discard(entry)
        entry.expires_at = entry.opened_at + lifetime
        return now < entry.expires_at

    def wants_replacement(self, entry: Entry) -> None:
        """One is to be opened for it; if none comes, it is due when it expires."""
        self.ageing.append(entry)
        self._set(entry, entry.expires_at)

    def lifetime_changed(self, entry: Entry, lifetime: float) -> None:
        """It counts for what is open, too."""
        is_only_due = entry in self.due_when_returned
        self.forget(entry)
        if is_only_due or entry.expires_at > -math.inf:  # else it was told to be replaced
            entry.expires_at = entry.opened_at + lifetime
            self._await(entry, lifetime)

    def distrust(self, entry: Entry, now: float) -> bool:
        """Something says that this entry, and so all of its age, is of no use.

        Returns:
            False: that was said already, or too often.
        """
        quiet_for = now - self.distrusted_at
        if entry.opened_at < self.distrusted_at or quiet_for < self._pause:
            return False
        is_first = quiet_for > 2 * _LONGEST_PAUSE
        self._pause = _FIRST_PAUSE if is_first else min(2 * self._pause, _LONGEST_PAUSE)
        self.distrusted_at = now
        return True

    def _await(self, entry: Entry, lifetime: float) -> None:
        if _SHORTEST <= lifetime < math.inf:
            self._set(entry, entry.opened_at + lifetime * random.uniform(_EARLIEST, _LATEST))

    def _set(self, entry: Entry, at: float) -> None:
        self._due[entry] = at
        heapq.heappush(self._heap, (at, next(self._order), entry))
        if len(self._heap) > 2 * len(self._due) + _SLACK:
            self._heap = [(at, next(self._order), entry) for entry, at in self._due.items()]
            heapq.heapify(self._heap)
