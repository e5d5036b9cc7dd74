"""SQLAlchemy's record and proxied connection, made fit for kills and for garbage collection in the hub."""

from __future__ import annotations

import contextlib
import sys
import weakref
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Any, cast

from gevent import getcurrent
from sqlalchemy.pool import Pool
from sqlalchemy.pool.base import _ConnectionFairy, _ConnectionRecord

from .. import drivers
from ..base_pool import BasePool
from ..config import SMART
from ..core.entry import CLOSED, IN_USE, Entry
from ..core.registry import look_for_fork, unforked
from ..drivers.abandoned_queries import AbandonedQuery
from ..drivers.base import Driver, State
from .compat import told_of_reset

# Frames between `Fairy.rollback` and SQLAlchemy's `close()`: seven, and some of an instrument's.
_DEEPEST_CLOSE = 12

# An enum's members are dear to look up.
CLEAN, UNKNOWN, BROKEN = State.CLEAN, State.UNKNOWN, State.BROKEN
IN_TRANSACTION = State.IN_TRANSACTION


class RecordPool(BasePool, Pool):
    """What records, their proxies and the core's handlers know of their pool.

    Attributes:
        _spares: records without a connection, kept for the next one.
    """

    _spares: list[Record]


def watch_errors(dialect: Any) -> None:
    """Has pools see the errors that SQLAlchemy asks a dialect about. Idempotent."""
    ask = getattr(dialect, "is_disconnect", None)
    if ask is not None and getattr(ask, "func", None) is not _is_disconnect:
        dialect.is_disconnect = partial(_is_disconnect, ask)


def _is_disconnect(
    ask: Callable[..., bool], error: BaseException, connection: Any, cursor: Any
) -> bool:
    if isinstance(connection, Fairy):
        record: Any = connection._connection_record
        if record is not None:
            connection._pool._saw(record.entry, record.dbapi_connection, error)
    return ask(error, connection, cursor)


class Record(_ConnectionRecord):
    """SQLAlchemy's record of one connection, with our entry beside it.

    Attributes:
        entry: the entry of which this record is the resource, while it is lent.
        abandoned: what the connection that it has lost may have left on the server.
        was_killed: it has lost it by a kill of its user, which says nothing of the server.
        driver: what is known of its connection's DBAPI.
        is_left: its rollback is still to be sent, behind who gives it back.
    """

    entry: Entry | None = None
    abandoned: AbandonedQuery | None = None
    was_killed = False
    is_left = False
    driver: Driver

    def __init__(self, pool: Pool, connect: bool = True) -> None:
        super().__init__(pool, connect)
        # A list does what SQLAlchemy does with its deque, which is 700 bytes larger.
        self.finalize_callback = cast(Any, [])

    def has_connected(self, driver: Driver) -> None:
        """It has a new connection; perhaps in the place of another, while it is lent."""
        self.driver = driver
        if self.entry is not None:
            self.entry.is_suspect = True  # its socket is another one: to be looked at on return

    def was_dropped(self, _fairy: object) -> None:
        """Its proxy was collected while it was lent: a callback of a weak reference.

        Garbage collection may run anywhere, in the hub too: a greenlet does what is to be done.
        """
        if sys.is_finalizing():
            return
        entry = self.entry
        if entry is not None and entry.state is IN_USE:
            self._pool.core.abandon(entry, self._give_back)

    def _give_back(self, entry: Entry) -> None:
        """Returns a connection whose proxy was collected, in the cleaner's greenlet."""
        if self.entry is not entry or entry.state is not IN_USE or self.fairy_ref is None:
            return
        if self.fairy_ref() is not None:
            return  # somebody else has it by now
        pool = self._pool
        fairy = Fairy(pool, self.dbapi_connection, self, pool._should_log_debug())
        self.fairy_ref = cast(Any, weakref.ref(fairy, self.was_dropped))
        fairy._checkin()

    def invalidate(self, e: BaseException | None = None, soft: bool = False) -> None:
        look_for_fork()
        self.was_killed = e is not None and not isinstance(e, Exception)
        if not soft and self.dbapi_connection is not None:
            # SQLAlchemy closes it here and now, and what it had begun could not be found any more.
            with contextlib.suppress(Exception):  # a driver's surprise
                self.abandoned = self._pool.core.handlers.abandoned(self)
        super().invalidate(e, soft)

    def checkin(self, _fairy_was_created: bool = True) -> None:
        try:
            super().checkin(_fairy_was_created)
        except BaseException:
            # A listener of the user raised, or was killed; the entry must come back all the same.
            if self.entry is not None and self.entry.state is IN_USE:
                self._pool._do_return_conn(self)
            raise

    @property
    def _pool(self) -> RecordPool:
        return cast("RecordPool", cast(Any, self)._ConnectionRecord__pool)


class _NoFinalizer:
    """SQLAlchemy 2.1 detaches a fairy's `weakref.finalize`; ours leaves that to its record."""

    def detach(self) -> None:
        pass


class Fairy(_ConnectionFairy):
    """SQLAlchemy's proxied connection, which sends nothing when it is collected."""

    __slots__ = ()

    _pool: RecordPool
    _finalizer = _NoFinalizer()  # type: ignore[assignment]

    def __init__(self, pool: RecordPool, connection: Any, record: Record, echo: Any) -> None:
        self._pool = pool
        self._counter = 0
        self.dbapi_connection = connection
        self._connection_record = record
        self._echo = echo

    def cursor(self, *args: Any, **kwargs: Any) -> Any:
        if not unforked:
            look_for_fork()  # it is the parent's
        record: Any = self._connection_record
        if record is not None:
            entry = record.entry
            if entry is not None and entry.owner is not getcurrent() and entry.owner is not None:
                # It was handed from one greenlet to another: who uses it, holds it.
                self._pool.core.take_over(entry)
        assert self.dbapi_connection is not None
        cursor = self.dbapi_connection.cursor(*args, **kwargs)
        listener = self._pool.core.listener
        return cursor if listener is None else listener.cursor_made(record, cursor)

    def commit(self) -> None:
        if not unforked:
            look_for_fork()
        listener = self._pool.core.listener
        record: Any = self._connection_record
        if listener is not None and record is not None:
            listener.transaction_ending(record.entry)
        connection: Any = self.dbapi_connection
        connection.commit()

    def rollback(self) -> None:
        if not unforked:
            look_for_fork()
        listener = self._pool.core.listener
        record: Any = self._connection_record
        if listener is not None and record is not None:
            listener.transaction_ending(record.entry)
        connection: Any = self.dbapi_connection
        if (
            record is not None
            and self._counter  # else `_checkin` has looked a moment ago
            and (_is_parents(record) or record.driver.state(connection) is BROKEN)
            and _is_given_back(self)
        ):
            # The pool will close it, and not first read what is left of an answer; or it is a parent's.
            return
        if (
            record is not None
            and self._pool.may_reset_behind(record.driver)
            and self._nobody_is_told(record)
            and (not self._counter or _is_closed(self))  # 0: it is `_checkin` that rolls back
        ):
            state = record.driver.state(connection)
            record.is_left = state is IN_TRANSACTION
            if record.is_left or state is CLEAN:
                return
        connection.rollback()

    def _nobody_is_told(self, record: Record) -> bool:
        """Has nobody to be told of its return, and is it done in the owner's thread?"""
        pool = self._pool
        return pool.core.is_here and not (
            self._echo
            or pool.dispatch.reset
            or pool.dispatch.checkin
            or record.finalize_callback
            or record._soft_invalidate_time > record.starttime
        )

    def _checkin(self, transaction_was_reset: bool = False) -> None:
        pool = self._pool
        record: Any = self._connection_record  # without a `cast`, which is a call
        connection: Any = self.dbapi_connection
        dispatch = pool.dispatch
        reset, checkin = dispatch.reset, dispatch.checkin
        nobody_is_told = not (
            connection is None
            or record is None
            or self._echo
            or reset.listeners  # their `__bool__`, for two frames less
            or reset.parent_listeners
            or checkin.listeners
            or checkin.parent_listeners
            or record.finalize_callback
            or record._soft_invalidate_time > record.starttime
            or pool.config.reset_on_return not in SMART
        )
        try:
            state = record.driver.state(connection) if nobody_is_told else None
        except Exception:  # the slow way sees it again, and closes the connection
            state = None
        if state is not CLEAN:
            self._checkin_unclean(state, transaction_was_reset)
            return
        # What SQLAlchemy would do, without what there is nothing to do for.
        nothing: Any = None
        self.dbapi_connection = self._connection_record = nothing
        record.fairy_ref = None
        pool.core.release(record.entry, is_clean=True)

    def _checkin_unclean(self, state: State | None, transaction_was_reset: bool) -> None:
        """Gives back what may have to be reset before. May switch greenlets.

        Args:
            state: what is known of the connection; `None`: somebody is to be told by SQLAlchemy's code.
            transaction_was_reset: as in `_checkin`.
        """
        if not unforked:
            look_for_fork()  # before anything is sent
        pool = self._pool
        nothing: Any = None
        record: Any = self._connection_record
        entry = None if record is None else record.entry
        if entry is not None:
            if _is_parents(record):
                self.dbapi_connection = self._connection_record = nothing
                return
            if entry.owner is not getcurrent():
                pool.core.take_over(entry)  # who gives it back, holds it meanwhile
        connection: Any = self.dbapi_connection
        if (
            entry is None
            or record.dbapi_connection is not connection
            or (state is not UNKNOWN and state is not IN_TRANSACTION)
        ):
            if record is not None and record.is_left:
                record.is_left = transaction_was_reset = False
            self._checkin_by_sqlalchemy(transaction_was_reset)
            return
        # What SQLAlchemy would do, again without what there is nothing to do for.
        try:
            if not transaction_was_reset and not record.is_left:
                pool._dialect.do_rollback(self)
                if not record.is_left:
                    _look_again(record, connection)
        except BaseException as error:
            self._checkin_failed(record, error)
            return
        self.dbapi_connection = self._connection_record = nothing
        record.fairy_ref = None
        if record.is_left:
            record.is_left = False
            pool.core.resets.behind(entry)
        elif record.dbapi_connection is connection:
            pool.core.release(entry, is_clean=True)
        else:  # it was invalidated
            pool._do_return_conn(record)

    def _checkin_by_sqlalchemy(self, transaction_was_reset: bool) -> None:
        """Gives it back as SQLAlchemy does, with its events. May switch greenlets."""
        record: Any = self._connection_record
        try:
            super()._checkin(transaction_was_reset)
        except BaseException:
            # 1.4 and the first of 2.0 close it, but leave it lent until its proxy is collected.
            if record is not None and record.in_use and record.fairy_ref() is self:
                nothing: Any = None
                self.dbapi_connection = self._connection_record = nothing
                record.checkin()
            raise

    def _checkin_failed(self, record: Record, error: BaseException) -> None:
        """Gives it back after an error of its rollback, as SQLAlchemy does."""
        self._pool.logger.error("Exception during reset or similar", exc_info=True)
        nothing: Any = None
        self.dbapi_connection = self._connection_record = nothing
        record._checkin_failed(error)
        if not isinstance(error, Exception):
            raise error

    def _reset(  # type: ignore[override]
        self, pool: Pool, transaction_was_reset: bool, **details: bool
    ) -> None:
        record: Any = self._connection_record
        connection = self.dbapi_connection
        driver = drivers.driver_for(connection) if record is None else record.driver
        open_state = driver.state(connection)
        if record is not None and open_state is BROKEN:
            pool.logger.info("Connection %s was abandoned in mid-query; closing it", connection)
            record.invalidate()
            return
        config = cast("RecordPool", pool).config
        if config.reset_on_return not in SMART or transaction_was_reset:
            super()._reset(pool, transaction_was_reset, **details)
            return
        if pool.dispatch.reset:
            pool.dispatch.reset(*told_of_reset(self, transaction_was_reset=False, **details))
            open_state = driver.state(connection)  # a listener may have begun a transaction
            if record is not None and open_state is BROKEN:  # or left it in the middle of an answer
                record.invalidate()
                return
        if open_state is CLEAN:
            if self._echo:
                pool.logger.debug("Connection %s reset, no transaction is open", connection)
            return
        if self._echo:
            pool.logger.debug("Connection %s rollback-on-return", connection)
        pool._dialect.do_rollback(self)
        if record is not None:
            _look_again(record, connection)


def _look_again(record: Record, connection: Any) -> None:
    """Was it reset by a rollback? If not, it is invalidated, and so closed. May switch greenlets.

    In autocommit some drivers send nothing, whatever the user has begun by a statement; and another
    greenlet may have used the connection meanwhile.
    """
    state = record.driver.state(connection)
    if state is IN_TRANSACTION or state is BROKEN:
        record.invalidate()


def _is_parents(record: Record) -> bool:
    """The process has forked: its entry is closed, its connection is not. Never switches."""
    entry = record.entry
    return entry is not None and entry.state is CLOSED and record.dbapi_connection is not None


def _is_closed(fairy: Fairy) -> bool:
    """Is it SQLAlchemy's `close()` that rolls back, of whoever has it in hand? Never switches.

    That is `Connection.close`, or that of the session to which alone the connection belongs.
    """
    frame: FrameType | None = sys._getframe(2)
    for _ in range(_DEEPEST_CLOSE):
        if frame is None:
            return False
        if frame.f_code.co_name == "close":
            module, names = frame.f_globals.get("__name__"), frame.f_locals
            closed: Any = names.get("self")
            if module == "sqlalchemy.engine.base":
                if getattr(closed, "_dbapi_connection", None) is fairy:
                    return True
            elif module == "sqlalchemy.orm.session":
                connection: Any = names.get("connection")
                return (
                    names.get("autoclose") is True
                    and getattr(closed, "_parent", True) is None
                    and getattr(connection, "_dbapi_connection", None) is fairy
                )
        frame = frame.f_back
    return False


def _is_given_back(fairy: Fairy) -> bool:
    """Is SQLAlchemy about to give it back, and only rolls back on the way? Never switches.

    Then nobody goes on with it. Only the callers can tell, as `rollback()` is what a user may call, too.
    """
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        code, module = frame.f_code.co_name, frame.f_globals.get("__name__")
        if module == "sqlalchemy.engine.base" and code in ("close", "begin", "__exit__"):
            # `Connection.close`, or the `with` blocks of `Engine.begin`, which 1.4 has as an object
            names: Any = frame.f_locals
            closed = names.get("conn") if code == "begin" else names["self"]
            closed = getattr(closed, "conn", closed)
            if getattr(closed, "_dbapi_connection", None) is fairy:
                return True
        elif module == "sqlalchemy.orm.session" and code in ("close", "rollback"):
            transaction: Any = frame.f_locals.get("self")
            if getattr(transaction, "_parent", True) is None and any(
                connection._dbapi_connection is fairy and is_closed
                for connection, _, _, is_closed in transaction._connections.values()
            ):
                return True
        frame = frame.f_back
    return False
