"""psycopg 3: finds by itself that gevent has patched the program, if it is imported after that.

It waits for the server with `select.poll` then, which gevent emulates: an object, a watcher and a timer
for each wait. A pool's connections wait by the hub's own watcher instead, which takes about 30 % off the
CPU of a small query.

A connect is a generator that psycopg takes step by step, on a socket that the child of a fork has, too.
`tune` has the child's greenlet go no step further.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Generator
from typing import Any

import gevent
from gevent.socket import wait as wait_for

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
_IDLE, _ACTIVE, _IN_TRANSACTION, _IN_ERROR, _NO_CONNECTION = range(5)

_BAD = 1  # of libpq's ConnStatusType

_BY_DEFAULT = 5  # psycopg's own prepare_threshold
_NEVER = 2**31 - 1  # so often must a statement have been run before it is prepared unasked

CLEAN = State.CLEAN  # an enum's members are dear to look up


_waiting_by_hub: dict[type, type] = {}
_inherited: list[object] = []


class Psycopg(Driver):
    """psycopg 3.1 and later."""

    name = "psycopg"
    packages = ("psycopg",)
    database = "postgresql"
    tells_transactions = True
    resets_behind = True
    plans = "driver"
    socket = "pgconn.socket"

    # libpq's own properties are asked, because psycopg's are Python, and these two are called often.

    def tune(self) -> None:
        waiting: Any = sys.modules.get("psycopg.waiting")
        if waiting is not None and not getattr(waiting.wait_conn, "_is_watchful", False):
            waiting.wait_conn = _in_one_process(waiting.wait_conn)

    def adopt(self, connection: Any) -> None:
        self.tune()
        if connection.prepare_threshold == _BY_DEFAULT and _is_pooled(connection):
            connection.prepare_threshold = None
            say_that_nothing_is_prepared(connection.info.host, connection.info.port)
        kind = type(connection)
        if getattr(kind, "_waits_by_hub", False) or not _waits_by_gevents_poll():
            return
        if kind not in _waiting_by_hub:
            _waiting_by_hub[kind] = _wait_by_hub(kind)
        connection.__class__ = _waiting_by_hub[kind]

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
            if connection.lock.locked():
                return State.BROKEN  # a greenlet or a generator waits for notifications, for ever
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

    def server_id(self, connection: Any) -> int | None:
        return process_of(connection.pgconn.backend_pid)

    def has_own_session(self, connection: Any) -> bool:
        # What a pooler's clients may prepare after all, their user has said.
        return connection.prepare_threshold is not None or not _is_pooled(connection)

    def execute_prepared(self, connection: Any, cursor: Any, text: str, parameters: Any) -> Any:
        if connection.prepare_threshold is None:
            # It prepares nothing at all then. So it does what it is told, and nothing else.
            connection.prepare_threshold = _NEVER
        return cursor.execute(text, parameters, prepare=True)

    def abandoned(self, connection: Any) -> AbandonedQuery | None:
        if connection.closed or connection.pgconn.transaction_status != _ACTIVE:
            return None
        pgconn = connection.pgconn
        send = _cancel_request(pgconn)
        return Backend.of(
            pgconn.socket,
            pgconn.backend_pid,
            lambda _: send_in_thread(send),
            bool(pgconn.ssl_in_use),
            not connection.lock.locked(),
        )

    def leave_to_user(self, connection: Any) -> bool:
        # Its socket would be closed while libev watches it, which may abort the process.
        if connection.closed or not connection.lock.locked():
            return False
        hang_up(connection.pgconn.socket)
        gevent.spawn_raw(_close_when_free, connection)
        return True

    def server_is_full(self, error: BaseException) -> bool:
        return is_postgresql_full(error, getattr(error, "sqlstate", None))

    def is_unfit(self, connection: Any, error: BaseException) -> bool:
        return is_postgresql_unfit(
            getattr(error, "sqlstate", None),
            lambda: connection.read_only,
            lambda name: connection.info.parameter_status(name),
        )

    def blocks_hub(self, connection: Any) -> str | None:
        if not is_patched("select") or _name_of_wait() != "wait_c":
            return None
        return (
            "psycopg was imported before gevent.monkey.patch_all() and blocks the gevent hub during "
            "every query: patch first, at the very top of the program"
        )


def _is_pooled(connection: Any) -> bool:
    info = connection.info
    return is_pooler(info.backend_pid, info.host, info.port)


def _name_of_wait() -> str:
    wait = getattr(sys.modules.get("psycopg.waiting"), "wait", None)
    return getattr(wait, "__name__", "")


def _waits_by_gevents_poll() -> bool:
    return is_patched("select") and _name_of_wait() == "wait_poll"


class _Late(Exception):
    """Nothing has come on the socket for a while."""


_LOOK_AFTER = 1.0


def _wait_by_hub(kind: Any) -> type:
    """The same class, but it waits for its socket by the hub's own means."""

    def wait(self: Any, gen: Any, *arguments: Any, **keywords: Any) -> Any:
        hub = gevent.get_hub()
        if arguments or keywords or gevent.getcurrent() is hub:
            return kind.wait(self, gen, *arguments, **keywords)  # such as with a time-out
        try:
            return _run(hub, gen, self.pgconn)
        except StopIteration as end:
            return end.value

    namespace = {
        "__doc__": kind.__doc__,
        "__module__": kind.__module__,
        "__qualname__": kind.__qualname__,
        "_waits_by_hub": True,
        "wait": wait,
    }
    return type(kind.__name__, (kind,), namespace)


def _run(hub: Any, gen: Any, pgconn: Any) -> None:
    """Waits as often as one of psycopg's generators wants. Switches greenlets.

    Raises:
        StopIteration: with its result.
        BaseException: what it raised, or what was thrown into the greenlet.
    """
    fileno = pgconn.socket
    events = int(next(gen))  # libev's are the same: 1 to read, 2 to write
    watcher = hub.loop.io(fileno, events)
    try:
        while True:
            try:
                wait_for(watcher, _LOOK_AFTER, _Late)
                ready = events
            except _Late:
                ready = 0
                if pgconn.socket != fileno:
                    raise sys.modules["psycopg"].OperationalError(
                        "the connection was closed by another greenlet"
                    ) from None
            wanted = int(gen.send(ready))
            if wanted != events:
                events = watcher.events = wanted
    finally:
        watcher.close()


def _in_one_process(wait_conn: Any) -> Any:
    """Waits for a connect, but in the child of a fork takes no step more on its parent's socket."""

    @functools.wraps(wait_conn)
    def wait(gen: Any, *arguments: Any, **keywords: Any) -> Any:
        return wait_conn(_steps_in_one_process(gen), *arguments, **keywords)

    watchful: Any = wait
    watchful._is_watchful = True
    return wait


def _steps_in_one_process(gen: Any) -> Generator[Any, Any, Any]:
    process = os.getpid()  # no hook of a fork's: not every one is Python's
    try:
        wanted = next(gen)
        while True:
            ready = yield wanted
            if os.getpid() != process:
                raise sys.modules["psycopg"].OperationalError(
                    "this connect belongs to the parent of this process"
                )
            wanted = gen.send(ready)
    except StopIteration as end:
        return end.value
    finally:
        if os.getpid() != process:
            _inherited.append(gen)  # its end might say good-bye on its parent's socket


def _cancel_request(pgconn: Any) -> Callable[[], None]:
    """Sends a cancel request, blocking its thread alone, also when the connection is closed."""
    module = sys.modules[type(pgconn).__module__]
    if getattr(module, "__impl__", "") == "python":
        # psycopg calls libpq by ctypes then, which lets go of the interpreter's lock.
        cancel: Callable[[], None] = pgconn.get_cancel().cancel
        return cancel
    return CancelRequest(str(module.__file__), pgconn.pgconn_ptr).send


def _close_when_free(connection: Any) -> None:
    with connection.lock:
        connection.close()


def _no_rows(cursor: Any) -> Any:
    """A row factory in the place of the user's, which may expect rows of his own queries."""
    return tuple
