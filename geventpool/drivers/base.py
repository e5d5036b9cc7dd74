"""What a driver's file tells a pool, and what is assumed of a DBAPI that has none."""

from __future__ import annotations

import contextlib
import enum
import os
import re
import select
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import gevent
from gevent.monkey import get_original
from gevent.socket import SHUT_WR, wait_read

_HANGUP = getattr(select, "POLLRDHUP", 0) | select.POLLHUP | select.POLLERR | select.POLLNVAL
# gevent's own `poll` would switch, and its own socket belongs to one hub.
_new_poll: Callable[[], select.poll] = get_original("select", "poll")
_Socket: Any = get_original("socket", "socket")
# gevent's own puts it off to the next turn of the loop, which may never come; and it may switch.
_close: Callable[[int], None] = get_original("os", "close")

# MySQL and MariaDB: too many connections, of all, of this user.
_TOO_MANY = (1040, 1203)
_USER_LIMIT = 1226  # also of queries per hour, for which no returned connection helps
# PostgreSQL; its errors of a connect reach psycopg and psycopg2 as text only.
_TOO_MANY_CONNECTIONS = "53300"
_TOO_MANY_TEXTS = (
    "too many clients already",
    "remaining connection slots are reserved",
    "too many connections for role",
    "too many connections for database",
    "no more connections allowed",  # PgBouncer
)

# MySQL and MariaDB: this server, or what it is to this session, does not take writes (any more).
_MYSQL_UNFIT = {
    1053,  # it shuts down
    1792,  # a transaction that is read only, as all are by the server's transaction_read_only
    1836,  # read-only mode
    1874,  # InnoDB in read-only mode, as in Aurora's readers
    3032,  # offline mode
    3100,  # group replication refuses the commit
}
_OPTION_PREVENTS = 1290  # of any option
_READ_ONLY_OPTION = re.compile("--(?:super[-_])?read[-_]only")
_UNKNOWN_COMMAND = 1047  # also of a Galera node outside of its cluster's majority
# PostgreSQL: admin_shutdown, crash_shutdown, cannot_connect_now.
_POSTGRESQL_UNFIT = ("57P01", "57P02", "57P03")
_READ_ONLY_TRANSACTION = "25006"


class State(enum.Enum):
    """What is known of a connection without asking the server."""

    CLEAN = "clean"
    """Usable, and the server has no transaction open for it."""

    IN_TRANSACTION = "in transaction"
    """Usable after a rollback."""

    UNKNOWN = "unknown"
    """Perhaps usable after a rollback: when in doubt, one is sent."""

    BROKEN = "broken"
    """Closed, or abandoned in the middle of an exchange: never to be used again."""


class Idle(enum.Enum):
    """What it means that an idle connection's socket has something to read."""

    DEAD = "dead"
    SUSPECT = "suspect"


G = TypeVar("G", bound="Ghost")


class Ghost:
    """What a connection that was left in mid-query may still have at work on the server.

    It outlives the driver's connection: it has a descriptor of its own for the same socket.

    Args:
        fileno: the connection's socket.
        server_id: the server's number of the connection, for messages.
        cancel: asks the server to stop; is given what opens another connection. A subclass may have a
            method of its own for it.

    Attributes:
        server_id: as above.
        needs_connection: it is cancelled through another connection; a pool's own will do.
    """

    __slots__ = ("__weakref__", "_cancel", "_fd", "server_id")
    needs_connection = False

    def __init__(
        self,
        fileno: int,
        server_id: int | None,
        cancel: Callable[[Callable[[], Any]], object] | None = None,
    ) -> None:
        self._fd = -1
        self._cancel = cancel
        self.server_id = server_id
        with contextlib.suppress(OSError):
            # Without one more descriptor it can cancel, but not see it done.
            self._fd = os.dup(fileno)

    @classmethod
    def of(cls: type[G], fileno: int | None, *more: Any) -> G | None:
        """One for a socket, unless that is closed, or the server has let go already.

        Args:
            fileno: the socket.
            *more: as for the class.
        """
        if fileno is None or fileno < 0 or has_hung_up(fileno):
            return None
        return cls(fileno, *more)

    def __repr__(self) -> str:
        return f"<Ghost of server connection {self.server_id}>"

    def __del__(self) -> None:
        self.close()

    @property
    def is_over(self) -> bool:
        """The server has let go. Never switches."""
        return self._fd >= 0 and has_hung_up(self._fd)

    def cancel(self, connect: Callable[[], Any]) -> None:
        """Asks the server to stop, unless it has let go already. May switch greenlets.

        Args:
            connect: opens a fresh connection of the same kind. It is closed here, if it is needed.

        Raises:
            Exception: what stood against it: the user's rights, the network.
        """
        if self._cancel is not None and not self.is_over:
            self._cancel(connect)

    @staticmethod
    def cancel_all(ghosts: Sequence[Any], connection: Any) -> list[Exception]:
        """Asks the server to stop all of them, if they need a connection. May switch greenlets.

        Args:
            ghosts: of this class.
            connection: what to ask through; it is as good as before if nothing is raised.

        Returns:
            What stood against some of them.

        Raises:
            Exception: the connection is lost.
        """
        raise NotImplementedError

    def wait(self, seconds: float) -> bool:
        """Hangs up and waits until the server has, too. May switch greenlets.

        To be called when the driver's connection is closed.

        Args:
            seconds: no longer than that.

        Returns:
            False: the server still works, or it could not be seen to stop.
        """
        if self._fd < 0:
            return False
        hang_up(self._fd)
        deadline = time.monotonic() + seconds
        while not self._has_ended():
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            try:
                wait_read(self._fd, timeout=left)
            except TimeoutError:
                return False
        return True

    def close(self) -> None:
        """Closes the descriptor. Idempotent. Never switches."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            _close(fd)

    def _has_ended(self) -> bool:
        # It may have to be rid of its answer before it looks at anything else.
        try:
            return not os.read(self._fd, 65536)
        except BlockingIOError:
            return False
        except OSError:
            return True


class Driver:
    """A DBAPI; what is not said otherwise holds of one of which nothing is known.

    Attributes:
        name: its module's name.
        needs_ping: False if nothing can come between us and the database.
        socket: where a connection's attributes tell which socket it has: something that is equal only to
            itself, for as long as it is open; `None`: only `fileno` tells.
    """

    name = "unknown"
    needs_ping = True
    socket: str | None = None

    def tune(self) -> None:
        """Cures what stalls the hub in a connect. Idempotent."""

    def adopt(self, connection: Any) -> None:
        """Called once for a connection that was just opened, before anybody uses it."""

    def fileno(self, connection: Any) -> int | None:
        """The socket to watch while it is idle; `None`: it cannot be watched, or is closed."""
        return None

    def on_reconnect(self, connection: Any, tell: Callable[[], object]) -> None:
        """Has `tell` called whenever the connection has got another socket by itself, if it ever does."""

    def state(self, connection: Any) -> State:
        """What is known of it. No I/O, never switches."""
        return State.UNKNOWN

    def is_cut_by(self, connection: Any, error: BaseException) -> bool:
        """May this error have left it in the middle of an exchange, which `state` cannot tell?"""
        return False

    def unsolicited(self, connection: Any, peeked: bytes) -> Idle:
        """What the first bytes that an idle connection received unasked mean. Never switches."""
        return Idle.SUSPECT

    def ping(self, connection: Any) -> bool:
        """One round trip that leaves no transaction open. May switch greenlets.

        Returns:
            False: it is dead. What is no `Exception` passes through.
        """
        try:
            cursor = connection.cursor()
            cursor.execute("SELECT 1")
            cursor.fetchall()
            cursor.close()
            connection.rollback()
        except Exception:
            return False
        return True

    def ghost(self, connection: Any) -> Ghost | None:
        """What the server may still do for a connection that is about to be closed. Never switches.

        Returns:
            None: nothing, as far as can be told. Otherwise to be closed by the caller.
        """
        return None

    def leave_to_user(self, connection: Any) -> bool:
        """Hangs up instead of closing it, if another greenlet waits on it still. Never switches.

        For drivers that cannot bear to be closed then. That greenlet gets an error in due time.

        Returns:
            False: it is to be closed.
        """
        return False

    def is_full(self, error: BaseException) -> bool:
        """Has a connect failed because the server has no room for one more connection?"""
        return False

    def is_unfit(self, connection: Any, error: BaseException) -> bool:
        """Does an error of a connection say that its server is no longer the one to write to?

        Such as a primary that was demoted or shuts down. Not if it is the user who wants to read only,
        as far as that can be told. No I/O, never switches.
        """
        return is_mysql_unfit(
            error, getattr(error, "errno", None)
        )  # as MySQL's other DBAPIs have it

    def move(self, connection: Any) -> None:
        """Makes a connection that another native thread has used usable by the hub of this one.

        Nobody uses it meanwhile. Never switches.
        """

    def is_in_memory(self, connection: Any) -> bool:
        """Is its database in the process's memory, so that it ends with its last connection?"""
        return False

    def is_shared(self, connection: Any, connect: Callable[[], Any]) -> bool:
        """Of one in memory: do two connections see the same database, and not each its own?

        Args:
            connection: was just opened, and nobody has used it.
            connect: opens another one, which is closed here.
        """
        return False

    def blocks_hub(self, connection: Any) -> str | None:
        """If this connection blocks the hub of a monkey-patched program: the cure, in a sentence."""
        return None


def is_patched(module: str = "socket") -> bool:
    """Has gevent monkey-patched this module of the program?"""
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched(module))


def python_fileno(sock: Any) -> int | None:
    """The number of a Python socket; `None` if it is closed or there is none."""
    if sock is None:
        return None
    number = python_fileno_of(sock)()
    return number if number >= 0 else None


def python_fileno_of(sock: Any) -> Callable[[], int]:
    """What tells a Python socket's number, without gevent's own call around it; below 0: closed."""
    inner: Callable[[], int] | None = getattr(getattr(sock, "_sock", None), "fileno", None)
    return sock.fileno if inner is None else inner


def has_hung_up(fileno: int) -> bool:
    """Has the peer closed its side, whatever it has said before? Never switches."""
    poll = _new_poll()
    poll.register(fileno, getattr(select, "POLLRDHUP", 0))
    ready = poll.poll(0)
    return bool(ready) and bool(ready[0][1] & _HANGUP)


def hang_up(fileno: int) -> None:
    """Tells the peer that nothing more will be said on this socket. Never switches."""
    sock = _Socket(fileno=fileno)
    try:
        sock.setblocking(False)
        sock.shutdown(SHUT_WR)
    except OSError:
        pass  # the peer was first
    finally:
        sock.detach()


def move_socket(sock: Any) -> None:
    """Rebinds one of gevent's sockets, plain or TLS, to the calling thread's hub. Never switches.

    Whatever else it is, or if it is not built as expected, it is left alone.
    """
    if not hasattr(sock, "hub"):
        return  # before this thread is given a hub: what forks without gevent's knowledge has better none
    hub = gevent.get_hub()
    try:
        if sock.hub is hub or sock._read_event is None or sock._write_event is None:
            return
        fileno = sock.fileno()
        if fileno < 0:
            return
        # The old ones, which nobody waits for, go with their last reference: they are another thread's.
        events = hub.loop.io(fileno, 1), hub.loop.io(fileno, 2)
    except AttributeError:
        return
    sock.hub = hub
    sock._read_event, sock._write_event = events


def is_tls(sock: Any) -> bool:
    """Is it a Python socket that speaks TLS (whose alerts and tickets look like any data)?"""
    return hasattr(sock, "do_handshake")


def postgresql_unsolicited(peeked: bytes, is_encrypted: bool) -> Idle:
    """An idle PostgreSQL connection is sent an error only before it is closed; notices, parameters
    and notifications come at any time (PostgreSQL: Frontend/Backend Protocol, Asynchronous Operations).
    """
    return Idle.DEAD if peeked[:1] == b"E" and not is_encrypted else Idle.SUSPECT


def is_mysql_full(error: BaseException) -> bool:
    """Does MySQL or MariaDB refuse a connection because there are too many?"""
    code = mysql_code(error)
    return code in _TOO_MANY or (code == _USER_LIMIT and "max_user_connections" in str(error))


def is_postgresql_full(error: BaseException, sqlstate: object) -> bool:
    """Does PostgreSQL refuse a connection because there are too many?

    Args:
        error: what the connect raised.
        sqlstate: its code, where the driver tells it.
    """
    if sqlstate is not None:
        return sqlstate == _TOO_MANY_CONNECTIONS
    text = str(error)
    return any(words in text for words in _TOO_MANY_TEXTS)


def mysql_code(error: BaseException) -> object:
    """An error's code, where PyMySQL and mysqlclient have it."""
    return error.args[0] if error.args else None


def is_mysql_unfit(error: BaseException, code: object) -> bool:
    """Does MySQL or MariaDB say that it is not the one to write to (any more)?"""
    return (
        code in _MYSQL_UNFIT
        or (code == _OPTION_PREVENTS and _READ_ONLY_OPTION.search(str(error)) is not None)
        or (code == _UNKNOWN_COMMAND and "WSREP" in str(error))
    )


def is_postgresql_unfit(
    sqlstate: object, is_chosen: Callable[[], object], reported: Callable[[str], str | None]
) -> bool:
    """Does PostgreSQL say that it is not the one to write to (any more)?

    A write is refused in a standby, where all is read only by default, and where the user has made his
    transaction so. Since release 14 a server reports the first two to each session.

    Args:
        sqlstate: the error's code.
        is_chosen: has the user told the driver that he wants to read only?
        reported: what the server has reported of a parameter; `None`: nothing.
    """
    if sqlstate != _READ_ONLY_TRANSACTION:
        return sqlstate in _POSTGRESQL_UNFIT
    return not is_chosen() and any(
        reported(name) != "off" for name in ("in_hot_standby", "default_transaction_read_only")
    )
