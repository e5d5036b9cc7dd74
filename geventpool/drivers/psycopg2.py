"""psycopg2: a C library that cooperates through a wait callback, which psycogreen sets."""

from __future__ import annotations

import sys
from typing import Any

from .base import Driver, Idle, State, is_patched, postgresql_unsolicited

# libpq's PGTransactionStatusType
_IDLE, _ACTIVE, _IN_TRANSACTION, _IN_ERROR = 0, 1, 2, 3

# psycopg2.extensions.STATUS_READY: the next statement outside autocommit begins a transaction.
_READY = 1


class Psycopg2(Driver):
    """psycopg2 2.8 and later. Outside a transaction its rollback costs no round trip anyway."""

    name = "psycopg2"

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

    def blocks_hub(self, connection: Any) -> str | None:
        if not is_patched() or sys.modules["psycopg2.extensions"].get_wait_callback() is not None:
            return None
        return (
            "psycopg2 blocks the gevent hub during every query, and with it all greenlets of the "
            "process: call psycogreen.gevent.patch_psycopg() at the start, or use psycopg 3 "
            "(postgresql+psycopg://…)"
        )
