"""What a driver's file tells a pool, and what is assumed of a DBAPI that has none."""

from __future__ import annotations

import enum
import sys
from collections.abc import Callable
from typing import Any


class State(enum.Enum):
    """What is known of a connection without asking the server."""

    CLEAN = "clean"
    """Usable, and the server has no transaction open for it."""

    IN_TRANSACTION = "in transaction"
    """Usable after a rollback."""

    UNKNOWN = "unknown"
    """Perhaps usable after a rollback: when in doubt, one is sent."""

    BROKEN = "broken"
    """Closed, or abandoned in the middle of an exchange: never to be used again."""


class Idle(enum.Enum):
    """What it means that an idle connection's socket has something to read."""

    DEAD = "dead"
    SUSPECT = "suspect"


class Ghost:
    """What a connection that was left in mid-query may still have at work on the server."""

    def cancel(self, connect: Callable[[], Any]) -> None:
        """Asks the server to stop. May switch greenlets."""
        raise NotImplementedError

    def wait(self, seconds: float) -> bool:
        """Waits until the server has let go. Switches greenlets."""
        raise NotImplementedError

    def close(self) -> None:
        """Lets go of it here."""
        raise NotImplementedError


class Driver:
    """A DBAPI; this class: one of which nothing is known, so that nothing is ever skipped.

    Attributes:
        name: its module's name.
        needs_ping: False if nothing can come between us and the database.
    """

    name = "unknown"
    needs_ping = True

    def tune(self) -> None:
        """Cures what stalls the hub in a connect. Idempotent."""

    def adopt(self, connection: Any) -> None:
        """Called once for a connection that was just opened, before anybody uses it."""

    def fileno(self, connection: Any) -> int | None:
        """The socket to watch while it is idle; `None`: it cannot be watched, or is closed."""
        return None

    def state(self, connection: Any) -> State:
        """What is known of it. No I/O, never switches."""
        return State.UNKNOWN

    def unsolicited(self, connection: Any, peeked: bytes) -> Idle:
        """What the first bytes that an idle connection received unasked mean. Never switches."""
        return Idle.SUSPECT

    def ping(self, connection: Any) -> bool:
        """One round trip that leaves no transaction open. May switch greenlets.

        Returns:
            False: it is dead. What is no `Exception` passes through.
        """
        try:
            cursor = connection.cursor()
            cursor.execute("SELECT 1")
            cursor.fetchall()
            cursor.close()
            connection.rollback()
        except Exception:
            return False
        return True

    def ghost(self, connection: Any) -> Ghost | None:
        """What the server may still do for a connection left in mid-query, before it is closed."""
        return None

    def is_full(self, error: BaseException) -> bool:
        """Has a connect failed because the server has no room for one more?"""
        return False

    def move(self, connection: Any) -> None:
        """Makes a connection usable by the hub of the calling thread."""

    def blocks_hub(self, connection: Any) -> str | None:
        """If this connection blocks the hub of a monkey-patched program: the cure, in a sentence."""
        return None


def is_patched(module: str = "socket") -> bool:
    """Has gevent monkey-patched this module of the program?"""
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched(module))


def python_fileno(sock: Any) -> int | None:
    """The number of a Python socket; `None` if it is closed or there is none."""
    if sock is None:
        return None
    number: int = sock.fileno()
    return number if number >= 0 else None


def is_tls(sock: Any) -> bool:
    """Is it a Python socket that speaks TLS (whose alerts and tickets look like any data)?"""
    return hasattr(sock, "do_handshake")


def postgresql_unsolicited(peeked: bytes, is_encrypted: bool) -> Idle:
    """An idle PostgreSQL connection is sent an error only before it is closed; notices, parameters
    and notifications come at any time (PostgreSQL: Frontend/Backend Protocol, Asynchronous Operations).
    """
    return Idle.DEAD if peeked[:1] == b"E" and not is_encrypted else Idle.SUSPECT
