"""A second look at an idle entry before it is lent: its age, its socket, and a ping if need be."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING

import gevent

from .entry import Entry

if TYPE_CHECKING:
    from .pool import ResourcePool


def is_sound(pool: ResourcePool, entry: Entry, now: float, deadline: float) -> bool:
    """Looks at an entry that was just taken; discards it unless it can be lent."""
    if now >= entry.expires_at:
        pool.discard(entry, "expired")
        return False
    if pool.liveness.is_dead(entry):
        pool.discard(entry, "dead")
        return False
    idle_for, is_watched = now - entry.idle_since, entry.watch is not None
    is_fresh = is_watched and idle_for <= pool.limits.sure_for  # for which nobody is to be asked
    if not entry.is_suspect and (
        is_fresh or not pool.handlers.must_check(entry.resource, idle_for, is_watched)
    ):
        return True
    if deadline <= now:
        # timeout=0 never switches: somebody else checks, the next caller has the use of it.
        pool.in_background(partial(_check_and_return, pool), entry)
        return False
    patience = pool.limits.connect_timeout
    limit = gevent.Timeout.start_new(min(deadline - now, patience))
    try:
        return _check(pool, entry)
    except gevent.Timeout as error:
        if error is not limit:
            raise
        if deadline - now <= patience:
            raise pool.line.timed_out(pool.clock.now(), now, 0.0) from None
        pool.discard(entry, "dead")
        for other in pool.ledger.idle:  # to ask them would take as long for each
            other.expires_at = other.sure_until = -math.inf
        return False
    finally:
        limit.close()


def _check(pool: ResourcePool, entry: Entry) -> bool:
    """Pings. The caller owns the entry; if it comes to harm, so does nobody else."""
    pool.counters.pings += 1
    is_alive = pool.handlers.check(entry.resource)
    if is_alive:
        entry.is_suspect = False
    else:
        _bury(pool, entry)
    return is_alive


def _bury(pool: ResourcePool, entry: Entry) -> None:
    """It is dead, and what killed it has perhaps killed the others."""
    pool.discard(entry, "dead")
    for other in pool.ledger.idle:
        other.is_suspect = True
        other.sure_until = -math.inf


def _check_and_return(pool: ResourcePool, entry: Entry) -> None:
    try:
        is_fit = _check(pool, entry)
    except BaseException:
        pool.discard(entry, "check interrupted")
        raise
    if is_fit:
        pool.release(entry, is_clean=True)
