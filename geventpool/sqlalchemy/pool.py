"""The pool class itself: what SQLAlchemy asks of a pool, and what the core asks of SQLAlchemy."""

from __future__ import annotations

import logging
import time
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import exc
from sqlalchemy.pool import Pool
from sqlalchemy.pool.base import reset_commit, reset_none, reset_rollback

from .. import drivers
from ..base_pool import FOR_ASYNCIO
from ..config import (
    SMART,
    PoolConfig,
    make_config,
    shows_settings,
    split_cap,
    without_not_given,
)
from ..core import stacks
from ..core.entry import IN_USE, Entry
from ..core.pool import ResourcePool
from ..errors import ConfigError, PoolTimeout
from ..profiles import profile_settings
from ..setting import NOT_GIVEN
from . import memory
from .errors import TWINS
from .handlers import RecordHandlers
from .proxy import Fairy, Record, RecordPool, watch_errors
from .target import target_of

if TYPE_CHECKING:
    from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection

stacks.MACHINERY.add("sqlalchemy")

_STYLES = {"rollback": reset_rollback, "commit": reset_commit, None: reset_none}
# `QueuePool`'s `timeout=0` does not wait for others, but it pings what is idle, and connects.
_LONGEST_CONNECT = 30.0
_NOTHING: dict[int, bool] = {}
_new: Callable[[type[Fairy]], Fairy] = object.__new__


class _Arguments:
    """Where `create_engine` finds the settings: it looks in the bases of a class with a `**settings`."""

    __init__ = PoolConfig.__init__


@shows_settings
class GeventPool(RecordPool, _Arguments):
    """A `sqlalchemy.pool.Pool` that sizes itself, for programs on gevent.

    Without arguments there is nothing to tune. All arguments of `QueuePool` are taken, with their
    meaning: `pool_size + max_overflow` is the hard cap. How many connections are kept *idle* is the
    sizing's decision.

    Args:
        creator: opens a DBAPI connection; `create_engine` gives it.
        echo: as in `QueuePool`.
        logging_name: as in `QueuePool`.
        events: as in `QueuePool`.
        dialect: as in `QueuePool`.
        **settings: each with its meaning.

    Raises:
        ConfigError: an argument cannot be used.
    """

    _is_asyncio = False

    def __init__(
        self,
        creator: Callable[..., Any],
        # The next four are in QueuePool's order.
        pool_size: int | None = None,
        max_overflow: int | None = None,
        timeout: float | str | None = NOT_GIVEN,
        use_lifo: bool | None = NOT_GIVEN,
        # Not keyword-only, because create_engine finds the arguments that it may pass on by reading
        # the positional ones.
        profile: str | None = None,
        echo: Any = None,
        logging_name: str | None = None,
        events: Any = None,
        dialect: Any = None,
        _dispatch: Any = None,
        **settings: Any,
    ) -> None:
        if getattr(dialect, "is_async", False):
            raise ConfigError("url", f"{dialect.name}+{dialect.driver}://", FOR_ASYNCIO)
        settings |= {"profile": profile, "pool_size": pool_size, "max_overflow": max_overflow}
        self._given = without_not_given({**settings, "timeout": timeout, "use_lifo": use_lifo})
        self.config = config = make_config(**self._given)
        if echo is None and profile is not None:
            echo = profile_settings(profile).get("echo")
        Pool.__init__(
            self,
            creator,
            recycle=cast(int, config.recycle),
            echo=echo,
            logging_name=logging_name,
            reset_on_return=_sqlalchemys(config),
            events=events,
            dialect=dialect,
            # The core pings, and only where the socket cannot tell.
            pre_ping=False,
            _dispatch=_dispatch,
        )
        memory.expect(self, dialect)
        self._is_disposed = False
        self._spares = []
        if dialect is not None and getattr(dialect, "dbapi", None) is not None:
            drivers.tune(getattr(dialect.dbapi, "__name__", ""))
        name = logging_name or getattr(dialect, "name", None) or "pool"
        self.core = ResourcePool(RecordHandlers(self), config.policy(), config, name=str(name))

    # What `Pool` asks of its subclasses.

    def connect(self) -> PoolProxiedConnection:
        """Lends a connection. Never switches greenlets when one is idle.

        Raises:
            GeventPoolTimeout: none came in time; a `sqlalchemy.exc.TimeoutError`.
            PoolClosed: the pool is closed.
            Exception: what the driver raised when it could not connect.
        """
        timeout = self.config.timeout
        if timeout == 0 and self.core.ledger.idle:
            timeout = _LONGEST_CONNECT
        try:
            entry = self.core.acquire(timeout)
        except PoolTimeout as error:
            entry = self._connect_late(error)
        record: Any = entry.resource
        record.entry = entry
        if (
            self._recycle > 0
            or record.dbapi_connection is None
            or self._invalidate_time > record.starttime
            or record._soft_invalidate_time > record.starttime
        ):
            record = self._refresh(record)
        fairy = _new(Fairy)  # with what its `__init__` does, which would be one more call
        fairy._pool = self
        fairy._counter = 0
        fairy.dbapi_connection = record.dbapi_connection
        fairy._connection_record = record
        logger = self.logger
        # As `Logger.isEnabledFor`, which remembers here what it said, for one frame less.
        is_debug = getattr(logger, "_cache", _NOTHING).get(logging.DEBUG)
        if is_debug is None:
            is_debug = logger.isEnabledFor(logging.DEBUG)
        fairy._echo = is_debug
        record.fairy_ref = weakref.ref(fairy, record.was_dropped)
        if is_debug:
            self.logger.debug("Connection %r checked out from pool", fairy.dbapi_connection)
        told = self.dispatch.checkout
        if told.listeners or told.parent_listeners:  # its `__bool__`, for one frame less
            return Fairy._checkout(self, fairy=fairy)
        fairy._counter = 1
        return fairy

    def recreate(self) -> GeventPool:
        """A new, empty pool with the same settings and listeners."""
        self.logger.info("Pool recreating")
        new = self.__class__(
            self._creator,
            **self._given,
            echo=self.echo,
            logging_name=self._orig_logging_name,
            dialect=self._dialect,
            _dispatch=self.dispatch,
        )
        # As before, once somebody uses it: recreating connects to nothing.
        new.core.is_warm = self.core.is_warm
        if self._is_disposed:  # again, because somebody may have asked while that was logged
            self.core.dispose()
        return new

    def configure(self, **settings: Any) -> None:
        """Changes settings while the pool runs. Never switches greenlets.

        Raises:
            ConfigError: nothing has been changed then.
        """
        super().configure(**settings)
        self._recycle = cast(int, self.config.recycle)
        self._reset_on_return = _STYLES[_sqlalchemys(self.config)]

    def dispose(self) -> None:
        """Closes what is idle, and what is in use when it comes back. May switch greenlets.

        Those in line are served before. Whoever asks the pool itself again finds it as it was.
        """
        self._is_disposed = True
        self._spares.clear()
        self.core.dispose()
        self.logger.info("Pool disposed. %s", self.status())

    def status(self) -> str:
        """`QueuePool`'s line, and our figures."""
        return (
            f"Pool size: {self.size()}  Connections in pool: {self.checkedin()} "
            f"Current Overflow: {self.overflow()} Current Checked out connections: "
            f"{self.checkedout()}  {self.core.status()}"
        )

    def size(self) -> int:
        """`pool_size`; the hard cap if it was not given; 0 for no cap."""
        return split_cap(self.config, self._given.get("pool_size"))[0]

    @property
    def target(self) -> tuple[object, ...] | None:
        """Its server, database and account, if `create_engine` has made it."""
        return target_of(self._creator, self._dialect)

    def timeout(self) -> float | None:
        """Seconds that a caller waits at most."""
        return self.config.timeout

    def checkedin(self) -> int:
        """Places in the pool that nobody uses; like `QueuePool`, also such as have lost their
        connection and are about to reconnect.
        """
        ledger = self.core.ledger
        resetting = len(self.core.resetting)
        return len(ledger.idle) + ledger.closing + resetting + len(self._spares)

    def checkedout(self) -> int:
        """Connections in use; like `QueuePool`, none that was given back, if it is still reset."""
        return self.core.ledger.in_use - len(self.core.resetting)

    def overflow(self) -> int:
        """How far the pool is above `size()`; below 0: how many could be opened before that."""
        size = self.size()
        return self.core.ledger.size + len(self._spares) - size if size else 0

    def _connect_late(self, error: PoolTimeout) -> Entry:
        """Nothing was there in time; with `timeout=0` it is connected if there is room."""
        ledger = self.core.ledger
        if (
            type(error) is PoolTimeout
            and self.config.timeout == 0
            and len(self.core.line.callers) < ledger.cap.limit - ledger.in_use
        ):
            try:
                return self.core.acquire(_LONGEST_CONNECT, False)
            except PoolTimeout as later:
                error = later
        if isinstance(error, exc.TimeoutError):
            raise error  # another engine's, which the creator has asked
        raise TWINS[type(error)](str(error), error.why, code="3o7r") from None

    def _refresh(self, record: Record) -> Record:
        """It may be too old, or have been invalidated while it was idle or being opened.

        SQLAlchemy would reconnect here, in the caller; through the core this keeps the opener's pace.
        """
        for _ in range(2):
            recycle = self._recycle
            if not (
                record._is_hard_or_soft_invalidated()
                or (recycle > 0 and time.time() - record.starttime > recycle)
            ):
                return record
            self.core.discard(cast(Entry, record.entry), "expired")
            try:
                entry = self.core.acquire(self.config.timeout, False)
            except PoolTimeout as error:
                entry = self._connect_late(error)
            record = entry.resource
            record.entry = entry
        try:
            record.get_connection()
        except BaseException as error:
            record._checkin_failed(error, _fairy_was_created=False)
            raise
        return record

    def _do_return_conn(self, record: Any) -> None:
        entry: Entry | None = record.entry
        if entry is None or entry.state is not IN_USE:
            return
        if record.abandoned is not None:
            self.core.discard(entry, "abandoned")
        elif record.dbapi_connection is None:
            self._spares.append(record)
            self.core.forget(entry, "abandoned" if record.was_killed else "invalidated")
        elif record._is_hard_or_soft_invalidated():
            self.core.discard(entry, "invalidated")
        else:
            self.core.release(entry)

    def _do_get(self) -> ConnectionPoolEntry:
        """For SQLAlchemy's own way to check out, which `connect` takes the place of."""
        entry = self.core.acquire(self.config.timeout)
        record: Record = entry.resource
        record.entry = entry
        return record

    def _invalidate(
        self,
        connection: PoolProxiedConnection,
        exception: BaseException | None = None,
        _checkin: bool = True,
    ) -> None:
        before = self._invalidate_time
        try:
            super()._invalidate(connection, exception, _checkin)
        finally:
            if self._invalidate_time != before:
                self.core.expire_all()

    def _adopt(self, connection: Any, connect: Callable[[], Any]) -> None:
        super()._adopt(connection, connect)
        self._recycle = cast(int, self.config.recycle)
        memory.settle(self)

    def _close_connection(self, connection: Any, *, terminate: bool = False) -> None:
        if not drivers.driver_for(connection).leave_to_user(connection):
            super()._close_connection(connection, terminate=terminate)

    # What the core asks of us.

    def _should_wrap_creator(self, creator: Any) -> Any:
        invoke = super()._should_wrap_creator(creator)

        def invoke_and_adopt(record: ConnectionPoolEntry) -> Any:
            connection = self._connected(lambda: invoke(record))
            self._adopt(connection, lambda: invoke(cast(Any, None)))
            watch_errors(self._dialect)
            if record is not None:  # else it is opened beside the pool
                cast(Record, record).has_connected(drivers.driver_for(connection))
            return connection

        return invoke_and_adopt


def _sqlalchemys(config: PoolConfig) -> Any:
    """What SQLAlchemy's own code is to do on return: where it would roll back, we may know better."""
    return "rollback" if config.reset_on_return in SMART else config.reset_on_return
