"""`KILL`: ends what abandoned connections of MySQL and MariaDB still have at work, through another one.

The protocol has no cancel message. Whose thread a number belongs to is asked before, because behind a load
balancer another connection may lead to another server, and after a restart numbers begin at 1 again.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

from .abandoned_queries import AbandonedQuery
from .sockets import python_fileno

_NO_SUCH_THREAD = 1094  # ER_NO_SUCH_THREAD


class Thread(AbandonedQuery):
    """A thread of the server's that works for an abandoned connection.

    Args:
        fileno: the connection's socket.
        number: the thread's.
        ours: where the connection came from, as seen from here; no pair: a Unix socket.
        theirs: where it led to.
    """

    __slots__ = ("ours", "theirs")
    needs_connection = True

    def __init__(self, fileno: int, number: int, ours: Any, theirs: Any) -> None:
        super().__init__(fileno, number)
        self.ours = ours
        self.theirs = theirs

    def cancel(self, connect: Callable[[], Any]) -> None:
        """Kills it through a connection of its own."""
        if self.is_over:
            return
        helper = connect()
        try:
            for refusal in self.cancel_all([self], helper):
                raise refusal
        finally:
            with contextlib.suppress(Exception):
                helper.close()

    @staticmethod
    def ask_through(connection: Any) -> tuple[Any, Any]:
        """A cursor of a connection, and the connection's socket."""
        # The creator may have set another class, whose rows may be anything.
        return connection.cursor(sys.modules["pymysql.cursors"].Cursor), connection._sock

    @classmethod
    def cancel_all(cls, abandoned_queries: Sequence[Any], connection: Any) -> list[Exception]:
        """Kills all of them that are still there, after one question."""
        # While the connection was waited for, or opened, they may have ended.
        abandoned_queries = [abandoned for abandoned in abandoned_queries if not abandoned.is_over]
        if not abandoned_queries:
            return []
        cursor, sock = cls.ask_through(connection)
        numbers = ", ".join(f"{abandoned.server_id:d}" for abandoned in abandoned_queries)
        cursor.execute(
            "SELECT id, id = connection_id(), host FROM information_schema.processlist "
            f"WHERE id IN ({numbers}, connection_id())"
        )
        rows = cursor.fetchall()
        # The user's converters, too, make anything of a value; and without Unicode text is bytes.
        told = [(int(number), int(is_own), _text(host)) for number, is_own, host in rows]
        seen = {number: host for number, _, host in told}
        (own,) = (host for _, is_own, host in told if is_own)
        refusals = []
        for abandoned in abandoned_queries:
            if abandoned.server_id not in seen or abandoned.is_over:
                continue
            try:
                _check_that_it_is_ours(abandoned, seen[abandoned.server_id], sock, own)
                # Not `KILL QUERY`: the next one of several statements would go on.
                cursor.execute(f"KILL CONNECTION {abandoned.server_id:d}")
            except Exception as error:
                if python_fileno(sock) is None:
                    raise  # it is lost, and so is what was to follow
                if not error.args or error.args[0] != _NO_SUCH_THREAD:
                    refusals.append(error)
        return refusals


def _check_that_it_is_ours(abandoned: Thread, seen: str, sock: Any, own: str) -> None:
    """Is the thread of that number the abandoned connection's?

    Args:
        abandoned: the abandoned connection.
        seen: from which host and port the server sees the thread's connection come.
        sock: the socket of the connection that was asked.
        own: from where the server sees that one come.

    Raises:
        RuntimeError: it is another's, or that cannot be told.
    """
    host, port = _split(seen)
    own_host, own_port = _split(own)
    if not (port.isdigit() or own_port.isdigit()):
        return  # a Unix socket: there is one server at the end of it
    here, there = sock.getsockname(), sock.getpeername()
    if own_port != _port(here):
        raise RuntimeError(
            "something between us and the server translates addresses, and so it cannot be told whether "
            "another connection leads to the same server"
        )
    if there != abandoned.theirs or port != _port(abandoned.ours):
        raise RuntimeError("another connection leads to another server")
    # The server may know us by a name; but one address of ours has one name.
    if host != (own_host if abandoned.ours[0] == here[0] else abandoned.ours[0]):
        raise RuntimeError(
            "another connection leads to another server, or the host has several names"
        )


def _text(host: Any) -> str:
    return host.decode() if isinstance(host, (bytes, bytearray)) else str(host)


def _split(seen: str) -> tuple[str, str]:
    host, _, port = seen.rpartition(":")
    return host, port


def _port(address: Any) -> str | None:
    return str(address[1]) if isinstance(address, tuple) else None
