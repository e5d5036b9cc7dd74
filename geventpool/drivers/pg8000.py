"""pg8000: pure Python, cooperative by monkey-patching.

Its transaction state is that of the last ReadyForQuery message, and it does not notice when a query is
abandoned half-way, or when two greenlets use it at once. A connection that the pool opens therefore keeps
account of whose answer is due.

Unless it is given a context or told to do without TLS, it makes a default context for each connect, also
for a server that has no TLS. That reads the system's certificates and costs about 17 ms of CPU in which
the whole worker stands still; then it switches off their use. `tune` has such a context made once, and
only when a server has TLS.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import struct
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from gevent import socket

from .abandoned_queries import AbandonedQuery
from .base import Driver, Idle, State
from .exchange import Exchange, is_open
from .postgresql import (
    Backend,
    is_postgresql_full,
    is_postgresql_unfit,
    postgresql_unsolicited,
    process_of,
)
from .sockets import is_tls, move_socket, python_fileno

if TYPE_CHECKING:
    import ssl

_STATES = {b"I": State.CLEAN, b"T": State.IN_TRANSACTION, b"E": State.IN_TRANSACTION}

# The protocol's SSLRequest: its length, and the code that stands for it.
_SSL_REQUEST = struct.pack("!ii", 8, 80877103)
# Its CancelRequest: length, code, and what BackendKeyData told: the process and a secret.
_CANCEL_REQUEST = struct.pack("!ii", 16, 80877102)
_SOCKET_ARGUMENTS = [
    "unix_sock",
    "orig_sock",
    "host",
    "port",
    "timeout",
    "source_address",
    "tcp_keepalive",
    "orig_ssl_context",
]

# The methods that send something and wait for the answer.
_QUESTIONS = (
    "execute_simple",
    "execute_unnamed",
    "execute_named",
    "prepare_statement",
    "close_prepared_statement",
)

_accountants: dict[type, type] = {}


class Pg8000(Driver):
    """pg8000 1.29 and later."""

    name = "pg8000"
    packages = ("pg8000",)
    database = "postgresql"
    tells_transactions = True
    resets_behind = True
    socket = "_usock._sock"  # as with PyMySQL

    def tune(self) -> None:
        core = sys.modules.get("pg8000.core")
        if core is not None:
            share_tls_context(core)

    def adopt(self, connection: Any) -> None:
        kind = type(connection)
        if getattr(kind, "_is_accountant", False):
            return
        if kind not in _accountants:
            self.tune()
            _accountants[kind] = _accountant(kind) if hasattr(kind, "handle_messages") else kind
        connection._exchange = Exchange()
        connection.__class__ = _accountants[kind]

    def fileno(self, connection: Any) -> int | None:
        return python_fileno(connection._usock)

    def state(self, connection: Any) -> State:
        if python_fileno(connection._usock) is None or is_open(connection):
            return State.BROKEN
        if not getattr(type(connection), "_is_accountant", False):
            return State.UNKNOWN
        status = connection._transaction_status
        return State.UNKNOWN if status is None else _STATES.get(bytes(status), State.UNKNOWN)

    def unsolicited(self, connection: Any, peeked: bytes) -> Idle:
        return postgresql_unsolicited(peeked, is_tls(connection._usock))

    def ping(self, connection: Any) -> bool:
        try:
            connection.execute_simple("SELECT 1")
        except Exception:
            return False
        return True

    def server_id(self, connection: Any) -> int | None:
        return process_of(_number_of(connection._backend_key_data))

    def abandoned(self, connection: Any) -> AbandonedQuery | None:
        sock, key = connection._usock, connection._backend_key_data
        if sock is None or not is_open(connection):
            return None
        try:
            family, address = sock.family, sock.getpeername()
        except OSError:
            return None  # the server has let go
        return Backend.of(
            python_fileno(sock),
            _number_of(key),
            functools.partial(_cancel, family, address, key),
            is_tls(sock),
            True,
        )

    def server_is_full(self, error: BaseException) -> bool:
        return is_postgresql_full(error, _sqlstate_of(error))

    def is_unfit(self, connection: Any, error: BaseException) -> bool:
        reported = dict(connection.parameter_statuses)
        return is_postgresql_unfit(_sqlstate_of(error), lambda: False, reported.get)

    def move(self, connection: Any) -> None:
        move_socket(connection._usock)


def _number_of(key: bytes | None) -> int:
    return int.from_bytes((key or b"")[:4], "big", signed=True)


def _sqlstate_of(error: BaseException) -> object:
    fields = error.args[0] if error.args else None
    return fields.get("C") if isinstance(fields, dict) else None


def _cancel(family: int, address: Any, key: bytes | None, _connect: object) -> None:
    """Has the server stop what the connection with this key does. Switches greenlets."""
    if key is None or len(key) != 8:
        raise RuntimeError("the server has given the connection no key to cancel its queries with")
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        sock.connect(address)
        sock.sendall(_CANCEL_REQUEST + key)
        with contextlib.suppress(ConnectionResetError):
            sock.recv(1)  # nothing comes: the server hangs up when it has passed the request on


def _accountant(kind: Any) -> type:
    """The same class, but it knows whether it has read to the end of an answer."""

    def handle_messages(self: Any, context: Any) -> Any:
        exchange: Exchange = self._exchange
        has_begun = exchange.join()
        try:
            kind.handle_messages(self, context)
        except BaseException as error:
            # The database's own errors are raised after the answer was read to its end.
            if error is context.error:
                exchange.end()
            raise
        if has_begun:
            exchange.end()

    namespace = {
        "__doc__": kind.__doc__,
        "__module__": kind.__module__,
        "__qualname__": kind.__qualname__,
        "_is_accountant": True,
        "handle_messages": handle_messages,
    }
    for name in _QUESTIONS:
        if hasattr(kind, name):
            namespace[name] = _asks(getattr(kind, name))
    return type(kind.__name__, (kind,), namespace)


def _asks(method: Callable[..., Any]) -> Callable[..., Any]:
    """The same method, which asks; if it does not read to the answer's end, the connection is spoiled."""

    @functools.wraps(method)
    def ask(self: Any, *arguments: Any, **keywords: Any) -> Any:
        exchange: Exchange = self._exchange
        exchange.begin()
        try:
            value = method(self, *arguments, **keywords)
        except BaseException:
            if exchange.is_open:
                exchange.spoil()
            raise
        exchange.end()
        return value

    return ask


def share_tls_context(core: Any) -> None:
    """Has connections that ask for pg8000's default TLS settings share one context. Idempotent.

    Where anything is not as expected, pg8000 does it as ever.

    Args:
        core: the module `pg8000.core`.
    """
    make = getattr(core, "_make_socket", None)
    if make is None or isinstance(make, _SocketMaker):
        return
    if [*inspect.signature(make).parameters] == _SOCKET_ARGUMENTS:
        core._make_socket = _SocketMaker(core, make)


class _SocketMaker:
    """Stands in for pg8000's `_make_socket`.

    What the settings mean is left to pg8000: the first socket is made by it alone, and the context that
    is kept is one that it has made.
    """

    def __init__(self, core: Any, make: Callable[..., Any]) -> None:
        functools.update_wrapper(self, make)
        self._core = core
        self._make = make
        self._is_first = True
        self._contexts: dict[object, ssl.SSLContext] = {}

    def __call__(self, *arguments: Any) -> Any:
        *address, wanted = arguments
        if address[1] is not None or (wanted is not None and wanted is not True):
            return self._make(*arguments)  # with a socket or a context of the user's own
        if self._is_first:
            sock = self._make_and_keep(arguments)
            self._is_first = False
            return sock
        sock = self._make(*address, False)
        try:
            sock.sendall(_SSL_REQUEST)
            has_tls = sock.recv(1) == b"S"
            if has_tls and wanted in self._contexts:
                return self._contexts[wanted].wrap_socket(sock, server_hostname=address[2])
            if wanted and not has_tls:
                raise self._core.InterfaceError("Server refuses SSL")
        except BaseException:
            sock.close()
            raise
        if not has_tls:
            return sock
        sock.close()
        return self._make_and_keep(arguments)

    def _make_and_keep(self, arguments: tuple[Any, ...]) -> Any:
        sock = self._make(*arguments)
        if is_tls(sock):
            self._contexts[arguments[-1]] = sock.context
        elif not hasattr(sock, "sendall"):
            self._core._make_socket = self._make  # of another release: it returns something else
        return sock
