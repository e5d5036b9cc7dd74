"""What a pool tells those who watch it. Without a listener it pays one look at an attribute."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from .entry import Entry

if TYPE_CHECKING:
    from .pool import ResourcePool


class Listener(Protocol):
    """Told of everything that happens to a pool's entries, in the thread that owns the pool.

    Called in the midst of the pool's own steps, so no method may switch greenlets, take long or raise:
    what logs or writes does so in a greenlet of its own.
    """

    def lent(self, entry: Entry, seconds: float) -> None:
        """The calling greenlet has got an entry, `seconds` after it had asked for one."""

    def waited(self, seconds: float, why: str) -> None:
        """A caller's time in line has ended, in whatever way; `why` as in `PoolStats.wait_reasons`."""

    def refused(self, why: str) -> None:
        """A caller gets no entry; `why` as in `PoolStats.timeout_reasons`."""

    def returned(self, entry: Entry, held: float) -> None:
        """An entry is nobody's any more, after so many seconds: it goes to the next, or is closed.

        Without a `lent` before, if the caller was killed at the moment in which it was served.
        """

    def opened(self, entry: Entry, seconds: float) -> None:
        """Opening an entry's resource took so many seconds."""

    def closed(self, entry: Entry, cause: str) -> None:
        """An entry is taken out of circulation; `cause` as in `PoolStats.closed`."""


class Recorder(Protocol):
    """Told of every return, in its midst: never switches, never raises, and is quick.

    Beside the listener, because one recorder may serve many pools: all of a process, also later ones.
    """

    def record(self, pool: ResourcePool, entry: Entry, held: float) -> None:
        """An entry has come back, in whatever way, after it was lent for `held` seconds.

        `entry.taken_at` and `entry.waited` are still those of this holder.
        """
