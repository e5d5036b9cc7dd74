"""psycopg2: a C library that cooperates through a wait callback, which psycogreen sets.

If the callback raises, as it does when a kill arrives, psycopg2 closes the connection at once, and with it
goes all that it would take to end the server's work. A pool's first connection therefore wraps the
callback in one that keeps this before it lets the kill through.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

from .abandoned_queries import AbandonedQuery
from .base import Driver, Idle, State, is_patched
from .libpq import CancelRequest, send_in_thread
from .postgresql import (
    Backend,
    is_pooler,
    is_postgresql_full,
    is_postgresql_unfit,
    postgresql_unsolicited,
    process_of,
    say_that_nothing_is_prepared,
)
from .sockets import hang_up

# libpq's PGTransactionStatusType
_IDLE, _ACTIVE, _IN_TRANSACTION, _IN_ERROR = 0, 1, 2, 3

# psycopg2.extensions.STATUS_READY: the next statement outside autocommit begins a transaction.
_READY = 1

# The connections that pools have opened, and what kills have left of them.
_abandoned_queries: WeakKeyDictionary[Any, AbandonedQuery | None] = WeakKeyDictionary()


class Psycopg2(Driver):
    """psycopg2 2.8 and later. Outside a transaction its rollback costs no round trip anyway."""

    name = "psycopg2"
    packages = ("psycopg2", "psycogreen")
    database = "postgresql"
    tells_transactions = True
    resets_behind = True
    plans = "sql"
    socket = "info.socket"

    def adopt(self, connection: Any) -> None:
        _is_pooled(connection)  # which is remembered
        extensions = sys.modules.get("psycopg2.extensions")
        callback = None if extensions is None else extensions.get_wait_callback()
        if extensions is None or callback is None:
            return  # it blocks, and so nothing can kill its queries
        if not getattr(callback, "_is_watchful", False):
            extensions.set_wait_callback(_watchful(callback))
        _abandoned_queries[connection] = None

    def fileno(self, connection: Any) -> int | None:
        if connection.closed:
            return None
        number: int = connection.fileno()
        return number

    def state(self, connection: Any) -> State:
        if connection.closed:
            return State.BROKEN
        status = connection.get_transaction_status()
        if status == _IDLE:
            # After a COMMIT that was run as a statement, psycopg2 still believes in the transaction
            # and would begin none for the next borrower; after a two-phase one it refuses to go on.
            return State.CLEAN if connection.status == _READY else State.UNKNOWN
        if status in (_IN_TRANSACTION, _IN_ERROR):
            return State.IN_TRANSACTION
        return State.BROKEN  # active: a query was abandoned; unknown: the connection is bad

    def unsolicited(self, connection: Any, peeked: bytes) -> Idle:
        return postgresql_unsolicited(peeked, bool(connection.info.ssl_in_use))

    def ping(self, connection: Any) -> bool:
        try:
            was = connection.autocommit
            connection.autocommit = True  # costs no round trip, and opens no transaction
            with connection.cursor() as cursor:
                cursor.execute("SELECT 1")
            connection.autocommit = was
        except Exception:
            return False
        return True

    def server_id(self, connection: Any) -> int | None:
        return process_of(connection.get_backend_pid())

    def has_own_session(self, connection: Any) -> bool:
        if not _is_pooled(connection):
            return True
        say_that_nothing_is_prepared(connection.info.host, connection.info.port)
        return False

    def abandoned(self, connection: Any) -> AbandonedQuery | None:
        if connection not in _abandoned_queries:
            return None
        abandoned = _abandoned_queries.pop(connection) or _abandoned_of(connection, False)
        return None if abandoned is None or abandoned.is_over else abandoned

    def leave_to_user(self, connection: Any) -> bool:
        # While it waits it holds its mutex, and whoever closes it would stop the whole process.
        if connection.closed or connection.get_transaction_status() != _ACTIVE:
            return False
        hang_up(connection.fileno())
        return True

    def server_is_full(self, error: BaseException) -> bool:
        return is_postgresql_full(error, getattr(error, "pgcode", None))

    def is_unfit(self, connection: Any, error: BaseException) -> bool:
        return is_postgresql_unfit(
            getattr(error, "pgcode", None),
            lambda: connection.readonly,
            lambda name: connection.info.parameter_status(name),
        )

    def blocks_hub(self, connection: Any) -> str | None:
        if not is_patched() or sys.modules["psycopg2.extensions"].get_wait_callback() is not None:
            return None
        return (
            "psycopg2 blocks the gevent hub during every query, and with it all greenlets of the "
            "process: call psycogreen.gevent.patch_psycopg() at the start, or use psycopg 3 "
            "(postgresql+psycopg://…)"
        )


def _is_pooled(connection: Any) -> bool:
    info = connection.info
    return is_pooler(connection.get_backend_pid(), info.host, info.port)


def _watchful(callback: Callable[[Any], object]) -> Callable[[Any], None]:
    """The same wait callback, but it keeps what a kill in mid-query leaves behind."""

    def wait(connection: Any) -> None:
        try:
            callback(connection)
        except BaseException:
            if connection in _abandoned_queries:
                _abandoned_queries[connection] = _abandoned_of(connection, True)
            raise

    watchful: Any = wait
    watchful._is_watchful = True
    return wait


def _abandoned_of(connection: Any, is_mine: bool) -> AbandonedQuery | None:
    """What is left of it; nothing if it is lost, or waits for no answer.

    Args:
        connection: the connection.
        is_mine: it is the caller who waited for its answer, and nobody else does.
    """
    if connection.closed or connection.get_transaction_status() != _ACTIVE:
        return None
    extension = str(sys.modules["psycopg2._psycopg"].__file__)
    send = CancelRequest(extension, connection.pgconn_ptr).send
    return Backend.of(
        connection.fileno(),
        connection.get_backend_pid(),
        lambda _: send_in_thread(send),
        bool(connection.info.ssl_in_use),
        is_mine,
    )
