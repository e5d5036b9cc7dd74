"""mysql-connector-python: in pure Python cooperative by monkey-patching; its C extension blocks the hub.

The class of a connection that the pool opens keeps account of exchanges, as that of an unknown DBAPI does
(`unknown.py`). Pure Python is also watched while it is idle, its abandoned queries are cancelled, and a
reply tells whether a transaction is open. An error has no status flags, so what was told before counts
only until the next command is sent. Of the C extension neither the socket nor the flags can be seen.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from .abandoned_queries import AbandonedQuery
from .base import Driver, Idle, State, is_patched
from .exchange import Exchange
from .mysql import ends_transaction, sets_for_the_next
from .mysql_kill import Thread
from .sockets import is_tls, move_socket, python_fileno
from .unknown import is_watched, watch

_QUERY = 3  # COM_QUERY
_ATTRIBUTES = b"\x00\x01"  # may stand before a query: their number, and the number of their sets

_accountable: dict[type, type] = {}


class MySQLConnector(Driver):
    """mysql-connector-python 8.0 and later."""

    name = "mysql.connector"
    packages = ("mysql",)
    database = "mysql"
    tells_transactions = True
    resets_behind = True
    socket = "_socket.sock._sock"  # gevent's socket has another one there when it is closed

    def adopt(self, connection: Any) -> None:
        kind = type(connection)
        if is_watched(kind):
            return
        if not hasattr(kind, "cmd_query"):
            raise TypeError("it is one of mysql.connector's own pool")
        if hasattr(kind, "_handle_server_status"):
            if kind not in _accountable:
                _accountable[kind] = _accountable_class(kind)
            connection.__class__ = _accountable[kind]
        if not watch(connection, Exchange()):
            raise TypeError("its class cannot be watched")

    def fileno(self, connection: Any) -> int | None:
        return python_fileno(_socket_of(connection))

    def on_reconnect(self, connection: Any, tell: Callable[[], object]) -> None:
        connection._on_reconnect = tell

    def state(self, connection: Any) -> State:
        exchange: Exchange | None = getattr(connection, "_geventpool_exchange", None)
        if exchange is not None and exchange.by:
            return State.BROKEN
        if _is_blocking(connection):
            return State.BROKEN if connection._cmysql is None else State.UNKNOWN
        if self.fileno(connection) is None or _owes_a_read(connection):
            return State.BROKEN
        if not getattr(connection, "_is_told", False):
            return State.UNKNOWN
        if connection._in_transaction:
            return State.IN_TRANSACTION
        return State.UNKNOWN if connection._is_set_for_the_next else State.CLEAN

    def is_cut_by(self, connection: Any, error: BaseException) -> bool:
        sees_all = getattr(connection, "_geventpool_sees_all", False)
        return not (sees_all or isinstance(error, Exception))

    def unsolicited(self, connection: Any, peeked: bytes) -> Idle:
        # The protocol knows no unasked-for packet but the error before a server closes.
        return Idle.SUSPECT if is_tls(_socket_of(connection)) else Idle.DEAD

    def ping(self, connection: Any) -> bool:
        try:
            connection.ping(reconnect=False)
        except Exception:
            return False
        return True

    def server_id(self, connection: Any) -> int | None:
        number: int | None = connection.connection_id
        return number

    def abandoned(self, connection: Any) -> AbandonedQuery | None:
        sock = _socket_of(connection)
        if python_fileno(sock) is None or self.state(connection) is not State.BROKEN:
            return None
        connection._unread_result = False  # or closing it may first read what is left
        try:
            ours, theirs = sock.getsockname(), sock.getpeername()
        except OSError:
            return None  # the server has gone
        return ConnectorThread.of(python_fileno(sock), connection.connection_id, ours, theirs)

    def move(self, connection: Any) -> None:
        move_socket(_socket_of(connection))

    def blocks_hub(self, connection: Any) -> str | None:
        if not (is_patched() and _is_blocking(connection)):
            return None
        return (
            "the C extension of mysql-connector-python blocks the gevent hub during every query, and "
            "with it all greenlets of the process: connect with use_pure=True"
        )


class ConnectorThread(Thread):
    """A thread of the server's, killed through a connection of mysql-connector-python."""

    __slots__ = ()

    @staticmethod
    def ask_through(connection: Any) -> tuple[Any, Any]:
        """A cursor that reads a result to its end, whatever the connection's own."""
        kind = sys.modules["mysql.connector.cursor"].MySQLCursorBuffered
        return connection.cursor(cursor_class=kind), _socket_of(connection)


def _is_blocking(connection: Any) -> bool:
    return hasattr(connection, "_cmysql")


def _socket_of(connection: Any) -> Any:
    return getattr(getattr(connection, "_socket", None), "sock", None)


def _owes_a_read(connection: Any) -> bool:
    """Is anything left of its results? It could take any time to read, and stalls the hub meanwhile.

    Before the next of several results it would even be taken for the answer to a rollback.
    """
    return bool(connection.unread_result or connection._have_next_result)


def _accountable_class(kind: Any) -> type:
    """The same class, but it knows whether the server has told of transactions since the last command."""

    def _send_cmd(
        self: Any, command: int, argument: Any = None, *arguments: Any, **keywords: Any
    ) -> Any:
        self._is_told = False
        if command == _QUERY:
            query = bytes(argument or b"").removeprefix(_ATTRIBUTES)
            if sets_for_the_next(query, self._client_flags):
                self._is_set_for_the_next = True
            elif self._is_set_for_the_next and ends_transaction(query):
                self._is_set_for_the_next = False
        return kind._send_cmd(self, command, argument, *arguments, **keywords)

    def _handle_server_status(self: Any, flags: int) -> None:
        kind._handle_server_status(self, flags)
        self._is_told = True

    def _handle_result(self: Any, *arguments: Any, **keywords: Any) -> Any:
        value = kind._handle_result(self, *arguments, **keywords)
        if self.unread_result:
            self._is_told = False  # what stands before the rows is not what stands behind them
        return value

    def _handle_binary_result(self: Any, *arguments: Any, **keywords: Any) -> Any:
        value = kind._handle_binary_result(self, *arguments, **keywords)
        self._is_told &= isinstance(value, dict)
        return value

    def _open_connection(self: Any) -> None:
        kind._open_connection(self)
        self._is_told = False
        if self._on_reconnect is not None:
            self._on_reconnect()

    namespace = {
        "__doc__": kind.__doc__,
        "__module__": kind.__module__,
        "__qualname__": kind.__qualname__,
        "_handle_binary_result": _handle_binary_result,
        "_handle_result": _handle_result,
        "_handle_server_status": _handle_server_status,
        "_is_set_for_the_next": False,
        "_is_told": False,
        "_on_reconnect": None,
        "_open_connection": _open_connection,
        "_send_cmd": _send_cmd,
    }
    accountable: type = type(kind)(kind.__name__, (kind,), namespace)
    return accountable
