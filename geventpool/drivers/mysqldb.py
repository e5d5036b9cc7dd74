"""mysqlclient (MySQLdb): a C library that blocks the hub while it waits.

When it loses its server in a query, it closes its socket, but tells its number ever after, which is soon
that of something else. So it is remembered which socket a pool's connection has.
"""

from __future__ import annotations

import os
from typing import Any, Literal
from weakref import WeakKeyDictionary

from gevent.socket import SHUT_RDWR

from .base import Driver, Idle, State, is_patched
from .sockets import hang_up

_sockets: WeakKeyDictionary[Any, object] = WeakKeyDictionary()


class MySQLdb(Driver):
    """mysqlclient 2.1 and later. It does not tell its transaction state."""

    name = "MySQLdb"
    packages = ("MySQLdb",)
    database = "mysql"
    plans: Literal["sql"] | None = "sql"

    def adopt(self, connection: Any) -> None:
        if connection.open:
            _sockets[connection] = _identity(connection.fileno())

    def fileno(self, connection: Any) -> int | None:
        if not connection.open:
            return None
        number: int = connection.fileno()
        is_its_own = _sockets.get(connection) in (None, _identity(number))
        return number if is_its_own else None

    def state(self, connection: Any) -> State:
        return State.UNKNOWN if connection.open else State.BROKEN

    def unsolicited(self, connection: Any, peeked: bytes) -> Idle:
        # A TLS record begins with its type, 20 to 23, and its version, 3; a packet of the plain
        # protocol with its length and a sequence number.
        looks_like_tls = len(peeked) > 1 and 20 <= peeked[0] <= 23 and peeked[1] == 3
        return Idle.SUSPECT if looks_like_tls else Idle.DEAD

    def ping(self, connection: Any) -> bool:
        try:
            connection.ping()
        except Exception:
            return False
        return True

    def server_id(self, connection: Any) -> int | None:
        return int(connection.thread_id())

    def cannot_be_reset(self, connection: Any) -> None:
        # An unbuffered result that is dropped before the connection is closed would be read to its end,
        # and nothing else would run meanwhile.
        number = self.fileno(connection)
        if number is not None:
            hang_up(number, SHUT_RDWR)

    def blocks_hub(self, connection: Any) -> str | None:
        if not is_patched():
            return None
        return (
            "mysqlclient (MySQLdb) blocks the gevent hub during every query, and with it all greenlets "
            "of the process: use PyMySQL instead (mysql+pymysql://…)"
        )


def _identity(fileno: int) -> object:
    """Of whatever has this number now; `False`: nothing has."""
    try:
        found = os.fstat(fileno)
    except (OSError, TypeError):  # it has no number
        return False
    return found.st_dev, found.st_ino
