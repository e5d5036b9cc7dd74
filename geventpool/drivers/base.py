"""What a driver's file tells a pool, and what is assumed of a DBAPI that has none."""

from __future__ import annotations

import enum
import sys
from collections.abc import Callable
from typing import Any, Literal

from .abandoned_queries import AbandonedQuery
from .mysql import is_mysql_full, is_mysql_unfit


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


class Driver:
    """A DBAPI; what is not said otherwise holds of one of which nothing is known.

    Attributes:
        name: its module's name.
        packages: those whose frames in a stack are the driver's, not the program's.
        database: what its SQL is for, as SQLAlchemy names it, such as `"postgresql"`; `None`: not known.
        tells_transactions: False: it is never told whether a transaction is open.
        plans: who prepares statements: `"sql"`: we, by statements of the database's; `"driver"`: it does
            by itself (`execute_prepared`); `None`: nobody.
        resets_behind: a greenlet other than the holder's may run its rollback, which cooperates, and the
            state tells surely that this is all that there is to do.
        needs_ping: False if nothing can come between us and the database.
        socket: where a connection's attributes tell which socket it has: something that is equal only to
            itself, for as long as it is open; `None`: only `fileno` tells.
    """

    name = "unknown"
    packages: tuple[str, ...] = ()
    database: str | None = None
    tells_transactions = False
    plans: Literal["sql", "driver"] | None = None
    resets_behind = False
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

    def server_id(self, connection: Any) -> int | None:
        """The server's own number of it, as its list of sessions shows it; `None`: not known. No I/O."""
        return None

    def has_own_session(self, connection: Any) -> bool:
        """Does it keep the server's session, and so the plans that were prepared in it? No I/O.

        May switch greenlets, to log.

        Returns:
            False: a pooler in between may give each transaction another one.
        """
        return True

    def execute_prepared(self, connection: Any, cursor: Any, text: str, parameters: Any) -> Any:
        """Runs a statement that the driver is to prepare by itself. May switch greenlets."""
        raise NotImplementedError

    def abandoned(self, connection: Any) -> AbandonedQuery | None:
        """What the server may still do for a connection that is about to be closed. Never switches.

        Returns:
            None: nothing, as far as can be told. Otherwise to be closed by the caller.
        """
        return None

    def cannot_be_reset(self, connection: Any) -> None:
        """Its rollback on return has failed; it will be closed in a moment. Never switches."""

    def leave_to_user(self, connection: Any) -> bool:
        """Hangs up instead of closing it, if another greenlet waits on it still. Never switches.

        For drivers that cannot bear to be closed then. That greenlet gets an error in due time.

        Returns:
            False: it is to be closed.
        """
        return False

    def server_is_full(self, error: BaseException) -> bool:
        """Has a connect failed because the server has no room for one more connection?"""
        return self.database == "mysql" and is_mysql_full(error)

    def is_unfit(self, connection: Any, error: BaseException) -> bool:
        """Does an error of a connection say that its server is no longer the one to write to?

        Such as a primary that was demoted or shuts down. Not if it is the user who wants to read only,
        as far as that can be told. No I/O, never switches.
        """
        return is_mysql_unfit(error)  # another DBAPI's codes are others

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
