"""PyMySQL: pure Python, cooperative by monkey-patching; tells its transaction state and its socket.

Three things are added to it. A connection that the pool opens thinks of itself as in a transaction until a
reply says otherwise, because an error packet carries no status flags and a kill leaves no reply at all;
and it knows when it was left in the middle of a packet or of an answer, used by two greenlets at once, or
left with settings for a transaction that has not begun. It keeps hold of its socket when a kill makes
PyMySQL close it before an answer has come, so that the server's work can be ended. And `tune` makes one
TLS context for equal settings: PyMySQL builds one for each connect, which reads the system's certificates
and costs about 17 ms of CPU in which the whole worker stands still.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any

from .abandoned_queries import AbandonedQuery
from .base import Driver, Idle, State
from .contexts import share_tls_contexts
from .exchange import NOBODY, SOMEBODY, SPOILED, Exchange, is_open
from .mysql import ends_transaction, sets_for_the_next
from .mysql_kill import Thread
from .sockets import hang_up, is_tls, move_socket, python_fileno, python_fileno_of

_IN_TRANSACTION = 0x0001  # SERVER_STATUS_IN_TRANS
_MORE_RESULTS = 0x0008  # SERVER_MORE_RESULTS_EXISTS

_OUT_OF_SYNC = 2014  # CR_COMMANDS_OUT_OF_SYNC

CLEAN = State.CLEAN  # an enum's members are dear to look up

_pessimists: dict[type, type] = {}


class PyMySQL(Driver):
    """PyMySQL 1.0 and later."""

    name = "pymysql"
    packages = ("pymysql",)
    database = "mysql"
    tells_transactions = True
    resets_behind = True
    plans = "sql"
    socket = "_sock._sock"  # gevent's socket has another one there when it is closed

    def tune(self) -> None:
        connections = sys.modules.get("pymysql.connections")
        if connections is not None:
            share_tls_contexts(connections.Connection)

    def adopt(self, connection: Any) -> None:
        kind = type(connection)
        if getattr(kind, "_is_pessimist", False):
            return
        if kind not in _pessimists:
            self.tune()
            quieten_cursors(sys.modules["pymysql.cursors"].SSCursor)
            _pessimists[kind] = _pessimist(kind) if hasattr(kind, "_read_query_result") else kind
        connection._exchange = Exchange()
        connection.__class__ = _pessimists[kind]
        if connection._sock is not None:
            # Whoever opened it may have used it, and PyMySQL does not keep the flags of a SELECT.
            connection.server_status |= _IN_TRANSACTION

    def fileno(self, connection: Any) -> int | None:
        return python_fileno(connection._sock)

    def on_reconnect(self, connection: Any, tell: Callable[[], object]) -> None:
        if getattr(connection, "_is_pessimist", False):
            connection._on_reconnect = tell

    def state(self, connection: Any) -> State:
        # Known to be clean until it is told to do something, or closed, or connects again.
        fileno = getattr(connection, "_clean_fileno", None)
        if fileno is not None and fileno() >= 0:
            return CLEAN
        state = self._look_at(connection)
        if state is CLEAN and getattr(connection, "_is_pessimist", False):
            connection._clean_fileno = python_fileno_of(connection._sock)
        return state

    def _look_at(self, connection: Any) -> State:
        if python_fileno(connection._sock) is None or is_open(connection):
            return State.BROKEN
        result = connection._result
        if result is not None and result.unbuffered_active:
            return (
                State.BROKEN
            )  # to read the rest could take any time, and stalls the hub meanwhile
        if not getattr(type(connection), "_is_pessimist", False) or (
            result is not None and result.has_next
        ):
            return State.UNKNOWN
        if connection.server_status & (_IN_TRANSACTION | _MORE_RESULTS):
            return State.IN_TRANSACTION
        return State.UNKNOWN if connection._is_set_for_the_next else CLEAN

    def unsolicited(self, connection: Any, peeked: bytes) -> Idle:
        # The protocol knows no unasked-for packet but the error before a server closes.
        return Idle.SUSPECT if is_tls(connection._sock) else Idle.DEAD

    def ping(self, connection: Any) -> bool:
        try:
            connection.ping(reconnect=False)
        except Exception:
            return False
        return True

    def server_id(self, connection: Any) -> int | None:
        return int(connection.thread_id())

    def abandoned(self, connection: Any) -> AbandonedQuery | None:
        kept: AbandonedQuery | None = connection.__dict__.pop("_abandoned", None)
        if kept is not None:
            return None if kept.is_over else kept
        result = connection._result
        owes_a_read = is_open(connection) or (
            result is not None and (result.unbuffered_active or result.has_next)
        )
        return _abandoned_of(connection) if owes_a_read else None

    def move(self, connection: Any) -> None:
        move_socket(connection._sock)


def _abandoned_of(connection: Any) -> AbandonedQuery | None:
    """What is left of it when its socket will be closed."""
    sock = connection._sock
    try:
        number = connection.server_thread_id[0]
        ours, theirs = sock.getsockname(), sock.getpeername()
    except (AttributeError, OSError):
        return None  # it was never open, or is closed already
    return Thread.of(python_fileno(sock), number, ours, theirs)


def _pessimist(kind: Any) -> type:
    """The same class, but in a transaction until the server says otherwise."""

    def _execute_command(self: Any, command: Any, sql: Any) -> Any:
        exchange: Exchange = self._exchange
        exchange.begin()
        try:
            # It may first read what is left of the answer before.
            kind._execute_command(self, command, sql)
        except Exception:
            exchange.end()  # nothing was sent; or half of it, and the socket is closed
            raise
        finally:
            self.server_status |= _IN_TRANSACTION
            query = sql.encode("utf-8", "replace") if type(sql) is str else sql
            if sets_for_the_next(query, self.client_flag):
                self._is_set_for_the_next = True
            elif self._is_set_for_the_next and ends_transaction(query):
                self._is_set_for_the_next = False
        if not exchange.by:
            exchange.join()  # its answer is due, though the one before was read to its end meanwhile

    def _write_bytes(self: Any, data: Any) -> None:
        # Sending may switch greenlets, and whoever looks then must see that it is busy.
        exchange: Exchange = self._exchange
        has_begun = not exchange.by and exchange.join()
        self._clean_fileno = None
        try:
            kind._write_bytes(self, data)
        except BaseException:
            # Perhaps half a packet: whatever is sent next, the server takes for the other half. It
            # waits for that, and not we for it: nothing is to be ended.
            self._force_close()
            self.__dict__.pop("_abandoned", None)
            raise
        if has_begun:
            exchange.end()

    def _force_close(self: Any) -> None:
        self._clean_fileno = None
        sock, is_asked_to = self._sock, getattr(self, "_closed", False)
        if sock is not None and not is_asked_to:
            # Something was to be read, and a kill or a time-out came instead.
            self._abandoned = _abandoned_of(self)
        try:
            kind._force_close(self)
        except RuntimeError:
            # Another greenlet is reading. It goes on, unless somebody has asked for the end.
            self._exchange.spoil()
            if not is_asked_to:
                raise
            hang_up(sock.fileno())
            sock.close()  # as soon as nobody reads from it
            self._sock = self._rfile = None
        self._exchange.forget()
        if self._result is not None:
            self._result.unbuffered_active = False  # nobody is to read on

    def connect(self: Any, *arguments: Any, **named: Any) -> None:
        kind.connect(self, *arguments, **named)
        if self._on_reconnect is not None:
            self._on_reconnect()

    namespace = {
        "__doc__": kind.__doc__,
        "__module__": kind.__module__,
        "__qualname__": kind.__qualname__,
        "connect": connect,
        "_execute_command": _execute_command,
        "_force_close": _force_close,
        "_clean_fileno": None,
        "_is_pessimist": True,
        "_is_set_for_the_next": False,
        "_on_reconnect": None,
        "_read_query_result": _reader(kind),
        "_write_bytes": _write_bytes,
    }
    for name in ("_get_server_information", "_request_authentication", "_read_ok_packet"):
        namespace[name] = _reads_an_answer(getattr(kind, name))
    for name in ("set_character_set", "show_warnings"):
        namespace[name] = _reads_an_answer(getattr(kind, name), is_asked_before=False)
    return type(kind.__name__, (kind,), namespace)


def _reads_an_answer(read: Callable[..., Any], is_asked_before: bool = True) -> Callable[..., Any]:
    """The same method, at whose end the answer was read to its end, or the connection is spoiled.

    Args:
        read: the method.
        is_asked_before: it does not send the question itself.
    """

    @functools.wraps(read)
    def read_an_answer(self: Any, *arguments: Any, **keywords: Any) -> Any:
        if is_asked_before:
            self._exchange.join()
        try:
            value = read(self, *arguments, **keywords)
        except BaseException as error:
            _leave(self, error)
            raise
        self._exchange.end()
        return value

    return read_an_answer


def _leave(connection: Any, error: BaseException) -> None:
    """An answer ends with an error. Never switches."""
    exchange: Exchange = connection._exchange
    if not isinstance(error, connection.Error):
        if exchange.is_open and connection._sock is not None:
            exchange.spoil()
    # The server's errors are whole answers, and after most of PyMySQL's own the socket is closed.
    elif error.args and error.args[0] == _OUT_OF_SYNC:
        exchange.spoil()
    else:
        exchange.end()


def _reader(kind: Any) -> Callable[..., Any]:
    """`_read_query_result`, but it keeps the flags of a SELECT, and notices if it is left half-way."""
    original: Any = sys.modules["pymysql.connections"].Connection
    result_class = _result_class()
    # Not if somebody has put a method of his own in its place.
    is_usual = kind._read_query_result is original._read_query_result

    def _read_query_result(self: Any, unbuffered: bool = False) -> Any:
        self._exchange.join()
        self.server_status |= _IN_TRANSACTION
        try:
            if not is_usual:
                affected_rows = kind._read_query_result(self, unbuffered)
            else:
                self._result = None
                result = result_class(self)
                (result.init_unbuffered_query if unbuffered else result.read)()
                self._result = result
                if result.server_status is not None:
                    self.server_status = result.server_status
                affected_rows = result.affected_rows
        except BaseException as error:
            _leave(self, error)
            raise
        self._exchange.end()
        return affected_rows

    return _read_query_result


def _result_class() -> Any:
    """PyMySQL's own, but it keeps the status flags behind the last row, and its finalizer is quiet."""
    original: Any = sys.modules["pymysql.connections"].MySQLResult
    eof_packet: Any = sys.modules["pymysql.protocol"].EOFPacketWrapper
    read_row = original._read_rowdata_packet_unbuffered

    def _check_packet_is_eof(self: Any, packet: Any) -> bool:
        # Called for each row, therefore written out and not handed on.
        if not packet.is_eof_packet():
            return False
        eof = eof_packet(packet)
        self.warning_count = eof.warning_count
        self.has_next = eof.has_next
        self.server_status = eof.server_status
        return True

    def _read_rowdata_packet_unbuffered(self: Any) -> Any:
        # Called for each row. Between two rows nobody is in the middle of a packet.
        if not self.unbuffered_active:
            return None
        exchange: Exchange = self.connection._exchange
        exchange.by = SPOILED if exchange.by else SOMEBODY
        try:
            return read_row(self)
        finally:
            if exchange.by == SOMEBODY:
                exchange.by = NOBODY

    def _finish_unbuffered_query(self: Any) -> None:
        if not self.unbuffered_active:
            return
        exchange: Exchange = self.connection._exchange
        has_begun = exchange.join()
        try:
            original._finish_unbuffered_query(self)
        finally:
            if has_begun:
                exchange.end()

    def __del__(self: Any) -> None:  # noqa: N807
        # PyMySQL's would read to the end. A finalizer may run in the hub, or swallow a kill.
        if self.unbuffered_active and self.connection is not None:
            self.connection._clean_fileno = None
            self.connection._exchange.spoil()

    return type(
        "MySQLResult",
        (original,),
        {
            "_check_packet_is_eof": _check_packet_is_eof,
            "_finish_unbuffered_query": _finish_unbuffered_query,
            "_read_rowdata_packet_unbuffered": _read_rowdata_packet_unbuffered,
            "__del__": __del__,
        },
    )


def quieten_cursors(cursor_class: Any) -> None:
    """Has an unbuffered cursor that is dropped half-read send and read nothing. Idempotent.

    What is left of its answer is read when the connection is next used, or rolled back on return.
    """
    finish = cursor_class.__del__
    if getattr(finish, "_is_quiet", False):
        return

    @functools.wraps(finish)
    def __del__(self: Any) -> None:  # noqa: N807
        connection = self.connection
        if not getattr(type(connection), "_is_pessimist", False):
            finish(self)

    quiet: Any = __del__
    quiet._is_quiet = True
    cursor_class.__del__ = quiet
