"""sqlite3: a library in the process. No socket, nothing to lose, and it blocks the hub."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .base import Driver, State, is_patched


class Sqlite3(Driver):
    """The standard library's sqlite3."""

    name = "sqlite3"
    database = "sqlite"
    tells_transactions = True
    needs_ping = False

    def state(self, connection: Any) -> State:
        try:
            return State.IN_TRANSACTION if connection.in_transaction else State.CLEAN
        except Exception:  # ProgrammingError: it is closed
            return State.BROKEN

    def is_in_memory(self, connection: Any) -> bool:
        # A temporary file, which belongs to its connection, has no name either.
        return _file_of(connection) in ("", b"")

    def is_shared(self, connection: Any, connect: Callable[[], Any]) -> bool:
        if connection.in_transaction:
            return False  # one connection is never wrong
        other = connect()
        try:
            # SQLite does not tell what is shared, but of those who share one only one can write.
            for one in (connection, other):
                one.execute("BEGIN IMMEDIATE")
        except Exception as error:
            return "locked" in str(error)
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            other.close()
        return False

    def blocks_hub(self, connection: Any) -> str | None:
        if not is_patched() or not _file_of(connection):
            return None
        return (
            "sqlite3 blocks the gevent hub while it works, and all greenlets of the process while it "
            "waits for another's lock: fine for development and tests; for a server under load use "
            "PostgreSQL or MySQL"
        )


def _file_of(connection: Any) -> object:
    try:
        cursor = connection.cursor()
        cursor.row_factory = None  # the user's rows may be anything
        return next((row[2] for row in cursor.execute("PRAGMA database_list") if row[0] == 0), None)
    except Exception:
        return None
