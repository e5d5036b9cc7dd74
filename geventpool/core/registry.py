"""The pools of this process, and what becomes of them in a forked child."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from gevent.monkey import get_original

from .entry import CLOSED, Entry

if TYPE_CHECKING:
    from .pool import ResourcePool

# gevent's own puts it off to the next turn of the loop, which may never come.
_close: Callable[[int], None] = get_original("os", "close")

_pools: weakref.WeakSet[ResourcePool] = weakref.WeakSet()
_inherited: list[object] = []


def add(pool: ResourcePool) -> None:
    """Makes a new pool known."""
    _pools.add(pool)


def pools() -> list[ResourcePool]:
    """The pools of this process that are still referred to, in no order."""
    return list(_pools)


def disown(entries: Iterable[Entry], fileno: Callable[[Any], int | None]) -> None:
    """Puts a parent's entries out of reach of this child, destructors included.

    The child's descriptor of each socket is replaced by the null device, so that whatever a driver
    sends when its object dies (a QUIT, a Terminate) never reaches the parent's server; the objects
    themselves are kept for good.
    """
    inherited = list(entries)
    null = os.open(os.devnull, os.O_RDWR)
    try:
        for entry in inherited:
            entry.state = CLOSED
            fd = fileno(entry.resource)
            if fd is not None:
                os.dup2(null, fd, inheritable=False)
    finally:
        _close(null)
    keep_for_good(inherited)


def keep_for_good(inherited: object) -> None:
    """Keeps what is a parent's from ever being finalized in this child."""
    _inherited.append(inherited)


def _after_fork_in_child() -> None:
    for pool in pools():
        pool.begin_again_after_fork()


os.register_at_fork(after_in_child=_after_fork_in_child)
