"""What a pool does not keep: it is closed, was disposed of, or has more open than its cap allows.

A pool that was disposed of is dormant: nothing in it is idle or opened ahead. Those who were in line are
served all the same, but what they give back is closed, so that it comes down to nothing by itself even
if nobody refers to it any more. It is as before from the next request on: a new one, because somebody
who asked before the pool was disposed of does not want it back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .pool import ResourcePool


def is_oversize(pool: ResourcePool) -> bool:
    """The cap was lowered below what is open."""
    return pool.ledger.size - pool.ledger.closing > pool.ledger.max_size


def note(pool: ResourcePool) -> None:
    """Whether `why_not_kept` has to be asked, for a look at one attribute. Never switches."""
    pool.is_shrinking = pool.is_closed or pool.is_dormant or is_oversize(pool)


def why_not_kept(pool: ResourcePool) -> str:
    """The cause for which what has come back, or was opened, is to be closed; empty: none."""
    note(pool)
    if pool.is_closed:
        return "closed"
    if is_oversize(pool):
        return "resized"
    return "disposed" if pool.is_dormant and not pool.ledger.waiting else ""


def dispose(pool: ResourcePool) -> None:
    """See `ResourcePool.dispose`."""
    pool.is_dormant = pool.is_shrinking = True
    try:
        pool.close_idle("disposed")
    finally:  # again, because somebody may have asked while that was closed
        pool.is_dormant = pool.is_shrinking = True
        while pool.ledger.idle:
            pool.discard(pool.ledger.idle[0], "disposed")
        pool.cleaner.arm()
        pool.opener.look(pool.clock.now())


def wake(pool: ResourcePool) -> None:
    """Somebody asks again: all is as before `dispose`. Never switches."""
    pool.is_dormant = False
    note(pool)
