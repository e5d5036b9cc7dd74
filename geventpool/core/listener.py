"""What a pool tells those who watch it. Without a listener it pays one look at an attribute."""

from __future__ import annotations

import logging
import sys
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import gevent

from .entry import Entry

if TYPE_CHECKING:
    from .pool import ResourcePool

log = logging.getLogger("geventpool")


class Listener:
    """Told of everything that happens to a pool's entries, in the thread that owns the pool.

    To be subclassed: each method here does nothing, or hands on what it is given. Give one to a pool by
    `pool.core.listener = …`. Its methods are called in the midst of the pool's own steps, so none may
    switch greenlets, if it does not say so, or take long: what logs or writes does so in a greenlet of
    its own. One that raises an `Exception` is logged, and from then on is told nothing more.
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

    def handed_out(self, entry: Entry) -> Any:
        """What a user of `ConnectionPool.connection` gets, in the caller's thread. May switch greenlets.

        After `lent`, and only there: SQLAlchemy and Django have the driver's own connection.

        Returns:
            The driver's connection, or something that behaves like it.
        """
        return entry.resource

    def cursor_made(self, record: Any, cursor: Any) -> Any:
        """What a user of SQLAlchemy's or of Django's connection gets, in the user's thread.

        Args:
            record: has the `entry` and the `dbapi_connection`; `None`: it is not the pool's any more.
            cursor: the driver's.

        Returns:
            The driver's cursor, or something that behaves like it.
        """
        return cursor

    def transaction_ending(self, entry: Entry | None) -> None:
        """A commit or a rollback is about to be sent through SQLAlchemy or Django."""


class Recorder(Protocol):
    """Told of every return, in its midst: never switches, never raises, and is quick.

    Beside the listener, because one recorder may serve many pools: all of a process, also later ones.
    """

    def record(self, pool: ResourcePool, entry: Entry, held: float) -> None:
        """An entry has come back, in whatever way, after it was lent for `held` seconds.

        `entry.taken_at` and `entry.waited` are still those of this holder.
        """


def tell_handed_out(pool: ResourcePool, entry: Entry) -> Any:
    """See `Listener.handed_out`. May switch greenlets."""
    listener = pool.listener
    if listener is not None:
        try:
            return listener.handed_out(entry)
        except Exception:
            dismiss(pool)
    return entry.resource


def tell_cursor_made(pool: ResourcePool, record: Any, cursor: Any) -> Any:
    """See `Listener.cursor_made`. Never switches."""
    listener = pool.listener
    if listener is not None:
        try:
            return listener.cursor_made(record, cursor)
        except Exception:
            dismiss(pool)
    return cursor


def tell_transaction_ending(pool: ResourcePool, entry: Entry | None) -> None:
    """Not every driver tells afterwards that a transaction has ended. Never switches."""
    listener = pool.listener
    if listener is not None:
        try:
            listener.transaction_ending(entry)
        except Exception:
            dismiss(pool)


def dismiss(pool: ResourcePool) -> None:
    """The listener has raised, which is handled now: the pool goes on without it. Never switches."""
    listener, pool.listener = pool.listener, None
    message = "%r: its listener %r has raised an error, and is told nothing more"
    tell = partial(log.error, message, pool, listener, exc_info=sys.exc_info()[1])
    if pool.is_here:
        gevent.spawn_raw(tell)
    else:  # a user's thread, which may have no hub that runs
        pool.mailbox.post(gevent.spawn_raw, tell)
