"""What a pool tells those who watch it. Without any it pays one look at an attribute."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, Final, Protocol

import gevent

from .entry import Entry

log = logging.getLogger("geventpool")


class Listener:
    """Told of everything that happens to a pool's entries, in the thread that owns the pool.

    To be subclassed: each method here does nothing, or hands on what it is given. Give one to a pool by
    `pool.core.add_listener(…)`. Its methods are called in the midst of the pool's own steps, so none may
    switch greenlets, if it does not say so, or take long: what logs or writes does so in a greenlet of
    its own. One that raises an `Exception` is logged, and from then on is told nothing more.
    """

    def lent(self, entry: Entry, seconds: float) -> None:
        """The calling greenlet has got an entry, `seconds` after it had asked for one."""

    def waited(self, seconds: float, why: str) -> None:
        """A caller's time in line has ended, in whatever way; `why` as in `PoolStats.wait_reasons`."""

    def refused(self, why: str) -> None:
        """A caller gets no entry; `why` as in `PoolStats.timeout_reasons`."""

    def ring_found(self) -> None:
        """Everybody who holds an entry waits for another one; next, one of them is refused.

        Unless a higher cap now makes room.
        """

    def returned(self, entry: Entry, held: float) -> None:
        """An entry is nobody's any more, after so many seconds: it goes to the next, or is closed.

        `entry.taken_at` and `entry.waited` are still those of this holder. Without a `lent` before, if
        the caller was killed at the moment in which it was served.
        """

    def opened(self, entry: Entry, seconds: float) -> None:
        """Opening an entry's resource took so many seconds."""

    def closed(self, entry: Entry, cause: str) -> None:
        """An entry is taken out of circulation; `cause` as in `PoolStats.closed`."""

    def handed_out(self, entry: Entry, connection: Any) -> Any:
        """What a user of `ConnectionPool.connection` gets, in the caller's thread. May switch greenlets.

        After `lent`, and only there: SQLAlchemy and Django have the driver's own connection.

        Returns:
            The driver's connection, or something that behaves like it.
        """
        return connection

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


class Pool(Protocol):
    """What is known here of a pool."""

    listener: Listeners | None
    mailbox: Any

    @property
    def is_here(self) -> bool:
        """Does the calling thread own it?"""


class Listeners(Listener):
    """All listeners of one pool, as one. Each is asked only for what it has a method of its own.

    It is the pool's `listener` as long as there is anybody. Whoever uses that looks at it once, because
    another thread may take the last one out meanwhile.

    Args:
        pool: whose.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._members: dict[int, Listener] = {}  # by id: others may be equal
        self._of: dict[str, list[tuple[Listener, Callable[..., Any]]]] = {}

    @property
    def all(self) -> tuple[Listener, ...]:
        """Who is told."""
        return tuple(self._members.values())

    def add(self, listener: Listener) -> None:
        """One more is told from now on. Never switches."""
        self._members[id(listener)] = listener
        self._changed()

    def remove(self, listener: Listener) -> None:
        """One is told nothing more. Never switches."""
        self._members.pop(id(listener), None)
        self._changed()

    def lent(self, entry: Entry, seconds: float) -> None:
        """Tells all."""
        self._tell("lent", entry, seconds)

    def waited(self, seconds: float, why: str) -> None:
        """Tells all."""
        self._tell("waited", seconds, why)

    def refused(self, why: str) -> None:
        """Tells all."""
        self._tell("refused", why, is_pools=True)

    def ring_found(self) -> None:
        """Tells all."""
        self._tell("ring_found", is_pools=True)

    def returned(self, entry: Entry, held: float) -> None:
        """Tells all."""
        self._tell("returned", entry, held)

    def opened(self, entry: Entry, seconds: float) -> None:
        """Tells all."""
        self._tell("opened", entry, seconds, is_pools=True)

    def closed(self, entry: Entry, cause: str) -> None:
        """Tells all."""
        self._tell("closed", entry, cause)

    def handed_out(self, entry: Entry, connection: Any) -> Any:
        """Through each in turn."""
        return self._hand_on("handed_out", entry, connection)

    def cursor_made(self, record: Any, cursor: Any) -> Any:
        """Through each in turn."""
        return self._hand_on("cursor_made", record, cursor)

    def transaction_ending(self, entry: Entry | None) -> None:
        """Tells all."""
        self._tell("transaction_ending", entry)

    def _tell(self, event: str, *what: Any, is_pools: bool = False) -> None:
        for listener, method in self._of[event]:
            try:
                method(*what)
            except Exception:
                self._dismiss(listener)
            except BaseException:
                # A kill, because it has switched, which it must not. The caller's goes on to the caller;
                # of the pool's own greenlets, or about somebody else's refusal, it is nobody's.
                if not is_pools:
                    raise
                self._dismiss(listener)

    def _hand_on(self, event: str, about: Any, value: Any) -> Any:
        for listener, method in self._of[event]:
            try:
                value = method(about, value)
            except Exception:
                self._dismiss(listener)
        return value

    def _changed(self) -> None:
        is_told: tuple[Listener, ...] | None = None
        while is_told != self.all:  # another thread may have changed it meanwhile
            is_told = self.all
            self._of = {event: [*_methods(is_told, event)] for event in _EVENTS}
            self._pool.listener = self if is_told else None

    def _dismiss(self, listener: Listener) -> None:
        """A listener has raised, which is handled now: the pool goes on without it. Never switches."""
        self.remove(listener)
        pool = self._pool
        message = "%r: its listener %r has raised an error, and is told nothing more"
        tell = partial(log.error, message, pool, listener, exc_info=sys.exc_info()[1])
        if pool.is_here:
            gevent.spawn_raw(tell)
        elif pool.mailbox is not None:  # a user's thread, which may have no hub that runs
            pool.mailbox.post(gevent.spawn_raw, tell)
        else:  # nobody owns the pool yet, such as after a fork: nothing in it is interrupted
            tell()


_EVENTS: Final = [name for name in vars(Listener) if not name.startswith("_")]


def _methods(
    listeners: Iterable[Listener], event: str
) -> Iterator[tuple[Listener, Callable[..., Any]]]:
    for listener in listeners:
        method = getattr(listener, event)
        if getattr(method, "__func__", None) is not getattr(Listener, event):
            yield listener, method
