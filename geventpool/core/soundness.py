"""A second look at an idle entry before it is lent: its age, its socket, and a ping if need be."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING

import gevent

from .entry import IN_USE, Entry
from .watch import follow, has_same_socket, is_dead, is_quiet

if TYPE_CHECKING:
    from .pool import ResourcePool


def begin_to_watch(pool: ResourcePool, entry: Entry) -> None:
    """An entry's socket is a new one, or not known to be the same. Never switches."""
    follow(entry, pool.handlers, pool.tell)
    settle_sure_for(pool, entry)


def settle_sure_for(pool: ResourcePool, entry: Entry) -> None:
    """For how long an entry need not be pinged, from its next return on. Never switches."""
    seconds = pool.config.sure_for(is_watched=entry.poll is not None)
    entry.sure_for = seconds if pool.handlers.needs_check(entry.resource) else math.inf


def has_died_lent(pool: ResourcePool, entry: Entry) -> bool:
    """Has a suspect entry hung up while it was lent, or only reconnected? Never switches."""
    entry.is_suspect = False
    if is_dead(entry, pool.handlers):
        return True
    if not has_same_socket(entry):
        begin_to_watch(pool, entry)
    return False


def wait(pool: ResourcePool, deadline: float, now: float) -> Entry:
    """Waits in line for an entry. What has hung up before it changed hands goes to nobody.

    But a second new one does: what becomes of all that are opened is for the caller to see.
    """
    had_new_one = False
    while True:
        entry = pool.line.wait(deadline, now)
        now = pool.clock.now()
        is_new = entry.taken_at == entry.opened_at
        if entry.poll is None or (is_new and had_new_one) or is_quiet(entry, now):
            return entry
        if not is_dead(entry, pool.handlers):
            return entry
        had_new_one |= is_new
        pool.discard(entry, "dead")


def lend_sound(pool: ResourcePool, taken: Entry, now: float, timeout: float | None) -> Entry:
    """Takes a second look at an entry that was just taken; if it will not do, at the next."""
    entry: Entry | None = taken
    deadline = math.inf if timeout is None else now + timeout
    while entry is not None:
        try:
            if _is_sound(pool, entry, now, deadline):
                return entry
        except BaseException:
            if entry.state is IN_USE:
                pool.discard(entry, "check interrupted")
            raise
        now = pool.clock.now()
        entry = pool.take_idle(now)
    return wait(pool, deadline, now)


def _is_sound(pool: ResourcePool, entry: Entry, now: float, deadline: float) -> bool:
    """Looks at an entry that was just taken; discards it unless it can be lent."""
    if now >= entry.expires_at:
        pool.discard(entry, "expired")
        return False
    if is_dead(entry, pool.handlers):
        pool.discard(entry, "dead")
        return False
    if not has_same_socket(entry):  # it has reconnected by itself
        begin_to_watch(pool, entry)
    if now < entry.sure_until and not entry.is_suspect:
        return True
    if deadline <= now:
        # timeout=0 never switches: somebody else checks, the next caller has the use of it.
        pool.in_background(partial(_check_and_return, pool), entry)
        return False
    patience = pool.config.connect_timeout
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
    entry.is_suspect = False  # now, because the hub may learn something worse meanwhile
    is_alive = pool.handlers.check(entry.resource)
    if not is_alive:
        _bury(pool, entry)
    return is_alive


def _bury(pool: ResourcePool, entry: Entry) -> None:
    """It is dead, and what killed it has perhaps killed the others."""
    pool.discard(entry, "dead")
    for other in pool.ledger.idle:
        other.is_suspect = True


def _check_and_return(pool: ResourcePool, entry: Entry) -> None:
    try:
        is_fit = _check(pool, entry)
    except BaseException:
        pool.discard(entry, "check interrupted")
        raise
    if is_fit:
        pool.release(entry, is_clean=True)
