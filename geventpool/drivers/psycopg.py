"""psycopg 3: finds by itself that gevent has patched the program, if it is imported after that."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from .base import (
    Driver,
    Ghost,
    Idle,
    State,
    ghost_of,
    is_patched,
    is_postgresql_full,
    postgresql_unsolicited,
)
from .libpq import CancelRequest, send_in_thread

# libpq's PGTransactionStatusType
_IDLE, _ACTIVE, _IN_TRANSACTION, _IN_ERROR, _NO_CONNECTION = range(5)

_BAD = 1  # of libpq's ConnStatusType

CLEAN = State.CLEAN  # an enum's members are dear to look up


class Psycopg(Driver):
    """psycopg 3.1 and later."""

    name = "psycopg"
    socket = "pgconn.socket"

    # libpq's own properties are asked, because psycopg's are Python, and these two are called often.

    def fileno(self, connection: Any) -> int | None:
        pgconn = connection.pgconn
        if pgconn.status == _BAD:
            return None
        number: int = pgconn.socket
        return number if number >= 0 else None

    def state(self, connection: Any) -> State:
        pgconn = connection.pgconn
        status = pgconn.transaction_status
        if status == _IDLE:
            # Inside `tpc_begin()` or a `transaction()` block the server may know nothing (more) of it,
            # but the next borrower could neither commit nor roll back. The rollback that this asks for
            # fails, too, and so the connection is closed.
            is_dubious = (
                pgconn.pipeline_status
                or getattr(connection, "_tpc", None)
                or getattr(connection, "_num_transactions", 0)
            )
            return State.UNKNOWN if is_dubious else CLEAN
        if status == _NO_CONNECTION:
            return State.BROKEN
        if pgconn.pipeline_status:
            return State.UNKNOWN
        if status in (_IN_TRANSACTION, _IN_ERROR):
            return State.IN_TRANSACTION
        return State.BROKEN  # active: a query was abandoned

    def unsolicited(self, connection: Any, peeked: bytes) -> Idle:
        return postgresql_unsolicited(peeked, bool(connection.pgconn.ssl_in_use))

    def ping(self, connection: Any) -> bool:
        try:
            was = connection.autocommit
            connection.autocommit = True  # costs no round trip, and opens no transaction
            # psycopg prepares what it sees often, in a round trip more.
            connection.cursor(row_factory=_no_rows).execute("SELECT 1", prepare=False)
            connection.autocommit = was
        except Exception:
            return False
        return True

    def ghost(self, connection: Any) -> Ghost | None:
        if connection.closed or connection.pgconn.transaction_status != _ACTIVE:
            return None
        pgconn = connection.pgconn
        send = _cancel_request(pgconn)
        return ghost_of(pgconn.socket, pgconn.backend_pid, lambda _: send_in_thread(send))

    def is_full(self, error: BaseException) -> bool:
        return is_postgresql_full(error, getattr(error, "sqlstate", None))

    def blocks_hub(self, connection: Any) -> str | None:
        wait = getattr(sys.modules.get("psycopg.waiting"), "wait", None)
        if not is_patched("select") or getattr(wait, "__name__", "") != "wait_c":
            return None
        return (
            "psycopg was imported before gevent.monkey.patch_all() and blocks the gevent hub during "
            "every query: patch first, at the very top of the program"
        )


def _cancel_request(pgconn: Any) -> Callable[[], None]:
    """Sends a cancel request, blocking its thread alone, also when the connection is closed."""
    module = sys.modules[type(pgconn).__module__]
    if getattr(module, "__impl__", "") == "python":
        # psycopg calls libpq by ctypes then, which lets go of the interpreter's lock.
        cancel: Callable[[], None] = pgconn.get_cancel().cancel
        return cancel
    return CancelRequest(str(module.__file__), pgconn.pgconn_ptr).send


def _no_rows(cursor: Any) -> Any:
    """A row factory in the place of the user's, which may expect rows of his own queries."""
    return tuple
