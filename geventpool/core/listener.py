"""Who wants to know what happens in a pool."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from .entry import Entry

if TYPE_CHECKING:
    from .pool import ResourcePool


class Listener(Protocol):
    """Told in the middle of a return: never switches, never raises, and is quick."""

    def returned(self, pool: ResourcePool[Any], entry: Entry[Any], held: float) -> None:
        """An entry has come back, in whatever way, after it was lent for `held` seconds.

        `entry.taken_at` and `entry.waited` are still those of this holder.
        """
