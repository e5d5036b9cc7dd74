"""psycopg 3: finds by itself that gevent has patched the program, if it is imported after that."""

from __future__ import annotations

import sys
from typing import Any

from .base import Driver, Idle, State, is_patched, postgresql_unsolicited

# libpq's PGTransactionStatusType
_IDLE, _ACTIVE, _IN_TRANSACTION, _IN_ERROR = 0, 1, 2, 3


class Psycopg(Driver):
    """psycopg 3.1 and later."""

    name = "psycopg"

    def fileno(self, connection: Any) -> int | None:
        if connection.closed:
            return None
        number: int = connection.pgconn.socket
        return number if number >= 0 else None

    def state(self, connection: Any) -> State:
        if connection.closed:
            return State.BROKEN
        pgconn = connection.pgconn
        if pgconn.pipeline_status:
            return State.UNKNOWN
        status = pgconn.transaction_status
        if status == _IDLE:
            return State.CLEAN
        if status in (_IN_TRANSACTION, _IN_ERROR):
            return State.IN_TRANSACTION
        return State.BROKEN  # active: a query was abandoned; unknown: the connection is bad

    def unsolicited(self, connection: Any, peeked: bytes) -> Idle:
        return postgresql_unsolicited(peeked, bool(connection.pgconn.ssl_in_use))

    def ping(self, connection: Any) -> bool:
        try:
            was = connection.autocommit
            connection.autocommit = True  # costs no round trip, and opens no transaction
            # psycopg prepares what it sees often, in a round trip more.
            connection.execute("SELECT 1", prepare=False)
            connection.autocommit = was
        except Exception:
            return False
        return True

    def blocks_hub(self, connection: Any) -> str | None:
        wait = getattr(sys.modules.get("psycopg.waiting"), "wait", None)
        if not is_patched("select") or getattr(wait, "__name__", "") != "wait_c":
            return None
        return (
            "psycopg was imported before gevent.monkey.patch_all() and blocks the gevent hub during "
            "every query: patch first, at the very top of the program"
        )
