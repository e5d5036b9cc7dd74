"""MariaDB Connector/Python: a C library that blocks the hub while it waits.

Its `open` asks the server, and its `socket` makes an object that closes the descriptor when it goes; so
neither is used. Its status flags are those before an error, so that they cannot rule out a transaction.
"""

from __future__ import annotations

from typing import Any

from .base import State, is_patched
from .mysqldb import MySQLdb


class MariaDB(MySQLdb):
    """MariaDB Connector/Python 1.1. It does not tell its transaction state."""

    name = "mariadb"
    packages = ("mariadb",)
    plans = None  # its placeholders are others

    def adopt(self, connection: Any) -> None:
        """Nothing has to be remembered: without a socket, it tells -1."""

    def fileno(self, connection: Any) -> int | None:
        if connection._closed:
            return None
        number: int = connection._get_socket()
        return number if number >= 0 else None

    def state(self, connection: Any) -> State:
        return State.BROKEN if self.fileno(connection) is None else State.UNKNOWN

    def server_id(self, connection: Any) -> int | None:
        return int(connection.connection_id)

    def blocks_hub(self, connection: Any) -> str | None:
        if not is_patched():
            return None
        return (
            "MariaDB Connector/Python blocks the gevent hub during every query, and with it all "
            "greenlets of the process: use PyMySQL instead (mariadb+pymysql://…)"
        )
