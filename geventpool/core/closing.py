"""Closing a resource whose other side may not answer."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import gevent

from .entry import Entry

if TYPE_CHECKING:
    from .pool import ResourcePool

log = logging.getLogger("geventpool")

# A close that takes longer is given up: the peer is not there, and the place is needed.
_LONGEST_CLOSE = 5.0


def close_in_time(pool: ResourcePool, entry: Entry) -> None:
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
