"""Closing a resource whose other side may not answer."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterator
from typing import Any

import gevent
from gevent.monkey import get_original
from gevent.socket import MSG_DONTWAIT, SHUT_WR, wait_read

from . import causes
from .entry import Entry
from .shared import Shared

log = logging.getLogger("geventpool")

# A close that takes longer is given up: the peer is not there, and the place is needed.
_LONGEST_CLOSE = 5.0

# A server that is there does so within a round trip.
_LONGEST_FAREWELL = 1.0

_Socket: Any = get_original("socket", "socket")


def close_retired(pool: Shared, closed: Callable[[Entry], object], entry: Entry) -> None:
    """Closes a retired entry's resource and frees its place, whatever happens. May switch greenlets.

    Args:
        pool: whose.
        closed: frees the place; called when the other side has let go, or could not be seen to.
        entry: the entry.
    """
    abandoned, socket = None, _socket_to_follow(pool, entry)
    try:
        # A driver's surprise must not keep it from being closed.
        with contextlib.suppress(Exception):
            abandoned = pool.handlers.abandoned(entry.resource)
        if abandoned is not None and entry.cause == causes.ABANDONED:
            now = pool.clock.now()  # its holder was killed, moments ago
            pool.line.patience.ended(now - entry.taken_at + entry.waited, now)
            pool.line.patience.cut_short(now - entry.taken_at)
        _close_in_time(pool, entry)
    finally:
        try:
            if abandoned is not None and entry.cause != causes.DEAD:  # nobody would answer
                is_gone = pool.handlers.cancel(abandoned)
                pool.counters.cancelled += is_gone
                pool.counters.cancel_failures += not is_gone
            elif socket is not None:
                _see_to_end(socket)
        finally:
            if socket is not None:
                socket.close()
            closed(entry)


@contextlib.contextmanager
def in_time(pool: Shared, entry: Entry, seconds: float, doing: str) -> Iterator[None]:
    """Gives up what is done to an entry's resource after so many seconds, and logs it."""
    limit = gevent.Timeout.start_new(seconds)
    try:
        yield
    except gevent.Timeout as error:
        if error is not limit:
            raise
        log.warning("%r: gave up %s %r, which hangs", pool, doing, entry.resource)
    finally:
        limit.close()


def _close_in_time(pool: Shared, entry: Entry) -> None:
    """Closes an entry's resource, or gives up after five seconds. May switch greenlets."""
    with in_time(pool, entry, _LONGEST_CLOSE, "closing"):
        try:
            pool.handlers.close(entry.resource, entry.cause)
        except Exception:
            log.exception("%r: error while closing %r", pool, entry.resource)


def _socket_to_follow(pool: Shared, entry: Entry) -> Any:
    """Where places need permits: one more of its socket, by which the other side is seen to let go."""
    if pool.permits is None or entry.cause == causes.DEAD:
        return None
    with contextlib.suppress(Exception):  # a driver's surprise, or no descriptor is left
        fd = pool.handlers.fileno(entry.resource)
        return None if fd is None else _Socket(fileno=os.dup(fd))
    return None


def _see_to_end(socket: Any) -> None:
    """Waits until the other side has closed, because it counts until then. May switch greenlets."""
    limit = gevent.Timeout.start_new(_LONGEST_FAREWELL, TimeoutError)
    try:
        socket.shutdown(SHUT_WR)  # while we have it open, nobody else's close has told
        wait_read(socket.fileno())
        while socket.recv(4096, MSG_DONTWAIT):
            wait_read(socket.fileno())
    except OSError:  # it was reset, or takes too long
        pass
    finally:
        limit.close()
