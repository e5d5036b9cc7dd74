"""PostgreSQL, whatever DBAPI it is reached through: its errors, what it says unasked, how a query ends.

A pooler in between, such as PgBouncer, gives each of its clients a random number where PostgreSQL gives
the number of its process. Nothing else tells it from PostgreSQL, and this not always: one in a thousand of
its numbers might be one of a process.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import Callable
from typing import Any

from gevent.monkey import get_original
from gevent.socket import wait_read

from .abandoned_queries import AbandonedQuery
from .base import Idle

# Errors of a connect reach psycopg and psycopg2 as text only.
_TOO_MANY_CONNECTIONS = "53300"
_TOO_MANY_TEXTS = (
    "too many clients already",
    "remaining connection slots are reserved",
    "too many connections for role",
    "too many connections for database",
    "no more connections allowed",  # PgBouncer, as the next one of 1.24 and later
    "client connections exceeded",
)

# admin_shutdown, crash_shutdown, cannot_connect_now.
_POSTGRESQL_UNFIT = ("57P01", "57P02", "57P03")
_READ_ONLY_TRANSACTION = "25006"

_PROTOCOL_VIOLATION = "08P01"  # PgBouncer's own errors have no other code

log = logging.getLogger("geventpool")

_MOST_PROCESSES = 2**22  # Linux's PID_MAX_LIMIT; those of other systems are smaller

_TERMINATE = b"X\0\0\0\4"

_socketpair: Callable[[], Any] = get_original("socket", "socketpair")


def process_of(number: int) -> int | None:
    """The number of a server's process; `None`: it cannot be one, and so a pooler's."""
    return number if 0 < number <= _MOST_PROCESSES else None


_poolers: set[tuple[object, object]] = set()
_said: set[tuple[object, object]] = set()


def is_pooler(number: int, host: object, port: object) -> bool:
    """Is there a pooler at this address, which may give each transaction another session? Never switches.

    Args:
        number: what a connection was told as the number of its server's process.
        host: where it leads to.
        port: where it leads to.
    """
    if process_of(number) is None:
        _poolers.add((host, port))
    return (host, port) in _poolers


def say_that_nothing_is_prepared(host: object, port: object) -> None:
    """Says it once for each pooler. May switch greenlets, to log."""
    if (host, port) not in _said:
        _said.add((host, port))
        log.warning(
            "%s:%s is no PostgreSQL server, but a pooler in front of one, such as PgBouncer. Statements "
            "are not prepared there, as each transaction may get another session. If a client keeps its "
            "session, or the pooler forwards prepared statements, give psycopg 3 a prepare_threshold "
            "other than 5",
            host,
            port,
        )


class Backend(AbandonedQuery):
    """What PostgreSQL may still do for an abandoned connection, perhaps behind a pooler.

    PgBouncer forgets a client that hangs up, and then passes no cancel request on, while the server works
    to the end of the query. So the socket stays open until the request has been sent: it is taken away
    from the driver's connection, which gets another one to say good-bye on.

    Args:
        fileno: the connection's socket.
        number: what it was told as the number of its process.
        cancel: sends a cancel request.
        is_encrypted: the socket speaks TLS.
        takes_over: nobody else waits on the socket, so that it can be taken away.
    """

    __slots__ = ("_is_encrypted", "_peer")

    def __init__(
        self,
        fileno: int,
        number: int,
        cancel: Callable[[Any], object],
        is_encrypted: bool,
        takes_over: bool,
    ) -> None:
        self._peer: Any = None
        self._is_encrypted = is_encrypted
        super().__init__(fileno, process_of(number), cancel)
        if takes_over and self._fd >= 0:
            with contextlib.suppress(OSError):  # no descriptor is left: as good as can be
                self._take_over(fileno)

    def _take_over(self, fileno: int) -> None:
        theirs, self._peer = _socketpair()
        with contextlib.closing(theirs):
            theirs.setblocking(False)
            self._peer.shutdown(socket.SHUT_WR)
            os.dup2(theirs.fileno(), fileno, inheritable=False)

    def ends_by_itself(self, seconds: float) -> bool:
        """Waits for an answer, or some of it, and hangs up only then. May switch greenlets."""
        if self._fd < 0:
            return False
        try:
            wait_read(self._fd, timeout=seconds)
        except TimeoutError:
            return False
        return self.wait(seconds)

    def close(self) -> None:
        """Closes the descriptors. Idempotent. Never switches."""
        super().close()
        peer, self._peer = self._peer, None
        if peer is not None:
            peer.close()

    def _hang_up(self) -> None:
        if not self._is_encrypted:  # else PostgreSQL logs that it has lost a client
            with contextlib.suppress(OSError):
                os.write(self._fd, _TERMINATE)
        super()._hang_up()


def postgresql_unsolicited(peeked: bytes, is_encrypted: bool) -> Idle:
    """An idle PostgreSQL connection is sent an error only before it is closed; notices, parameters
    and notifications come at any time (PostgreSQL: Frontend/Backend Protocol, Asynchronous Operations).
    """
    return Idle.DEAD if peeked[:1] == b"E" and not is_encrypted else Idle.SUSPECT


def is_postgresql_full(error: BaseException, sqlstate: object) -> bool:
    """Does PostgreSQL refuse a connection because there are too many?

    Args:
        error: what the connect raised.
        sqlstate: its code, where the driver tells it.
    """
    if sqlstate not in (None, _PROTOCOL_VIOLATION):
        return sqlstate == _TOO_MANY_CONNECTIONS
    text = str(error)
    return any(words in text for words in _TOO_MANY_TEXTS)


def is_postgresql_unfit(
    sqlstate: object, is_chosen: Callable[[], object], reported: Callable[[str], str | None]
) -> bool:
    """Does PostgreSQL say that it is not the one to write to (any more)?

    A write is refused in a standby, where all is read only by default, and where the user has made his
    transaction so. Since release 14 a server reports the first two to each session.

    Args:
        sqlstate: the error's code.
        is_chosen: has the user told the driver that he wants to read only?
        reported: what the server has reported of a parameter; `None`: nothing.
    """
    if sqlstate != _READ_ONLY_TRANSACTION:
        return sqlstate in _POSTGRESQL_UNFIT
    return not is_chosen() and any(
        reported(name) != "off" for name in ("in_hot_standby", "default_transaction_read_only")
    )
