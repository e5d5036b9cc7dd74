"""Closing a resource whose other side may not answer."""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING

import gevent

from .entry import Entry

if TYPE_CHECKING:
    from .pool import ResourcePool

log = logging.getLogger("geventpool")

# A close that takes longer is given up: the peer is not there, and the place is needed.
_LONGEST_CLOSE = 5.0


def close_retired(pool: ResourcePool, entry: Entry) -> None:
    """Closes a retired entry's resource and frees its place, whatever happens. May switch greenlets.

    The place is not free before the other side has let go, or could not be seen to.
    """
    ghost = None
    try:
        # A driver's surprise must not keep it from being closed.
        with contextlib.suppress(Exception):
            ghost = pool.handlers.ghost(entry.resource)
        if ghost is not None and entry.cause == "abandoned":
            now = pool.clock.now()  # its holder was killed, moments ago
            pool.line.patience.ended(now - entry.taken_at + entry.waited, now)
            pool.line.patience.cut_short(now - entry.taken_at)
        _close_in_time(pool, entry)
    finally:
        try:
            if ghost is not None and entry.cause != "dead":  # nobody would answer
                is_gone = pool.handlers.lay(ghost)
                pool.counters.cancelled += is_gone
                pool.counters.cancel_failures += not is_gone
        finally:
            pool.closed(entry)


def _close_in_time(pool: ResourcePool, entry: Entry) -> None:
    """Closes an entry's resource, or gives up after five seconds. May switch greenlets."""
    limit = gevent.Timeout.start_new(_LONGEST_CLOSE)
    try:
        pool.handlers.close(entry.resource, entry.cause)
    except Exception:
        log.exception("%r: error while closing %r", pool, entry.resource)
    except gevent.Timeout as error:
        if error is not limit:
            raise
        log.warning("%r: gave up closing %r, which hangs", pool, entry.resource)
    finally:
        limit.close()
