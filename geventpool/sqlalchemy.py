"""GeventPool for SQLAlchemy 2.0 and 2.1: a drop-in for `QueuePool`.

    engine = create_engine("mysql+pymysql://shop@127.0.0.1/shop", poolclass=GeventPool)

or by the URL alone: `mysql+pymysql://…/shop?plugin=geventpool&geventpool_profile=production`; or for an
engine that exists: `geventpool.sqlalchemy.wrap(engine)`.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable
from typing import Any, cast

from sqlalchemy import URL, CreateEnginePlugin, Engine, exc
from sqlalchemy.pool import ConnectionPoolEntry, Pool, PoolProxiedConnection, PoolResetState
from sqlalchemy.pool.base import (
    _AdhocProxiedConnection,
    _ConnDialect,
    _ConnectionFairy,
    _ConnectionRecord,
    reset_commit,
    reset_rollback,
)

from . import drivers
from .config import make_config, profile_settings, split_cap
from .core.entry import CLOSED, IN_USE, Entry
from .drivers.base import State
from .errors import ConfigError, PoolTimeout
from .pool import ConnectionHandlers, Door, adopt, make_core

_PREFIX = "geventpool_"
_REPLACED = ("expired", "dead", "invalidated", "check interrupted")


class GeventPoolTimeout(PoolTimeout, exc.TimeoutError):
    """No connection in time; caught by `except sqlalchemy.exc.TimeoutError` too."""


class _Record(_ConnectionRecord):
    """SQLAlchemy's record of one connection, with our entry beside it.

    Attributes:
        entry: the entry of which this record is the resource, while it is lent.
    """

    entry: Entry[_Record] | None = None

    def checkin(self, _fairy_was_created: bool = True) -> None:
        try:
            super().checkin(_fairy_was_created)
        except BaseException:
            # A listener of the user raised, or was killed; the entry must come back all the same.
            if self.entry is not None and self.entry.state is IN_USE:
                self._pool._do_return_conn(self)
            raise

    @property
    def _pool(self) -> GeventPool:
        return cast(GeventPool, self._ConnectionRecord__pool)


class _NoFinalizer:
    """SQLAlchemy 2.1 detaches a fairy's `weakref.finalize`; ours has `__del__` instead."""

    def detach(self) -> None:
        pass


class _Fairy(_ConnectionFairy):
    """SQLAlchemy's proxied connection, which sends nothing when it is collected."""

    __slots__ = ()

    _finalizer = _NoFinalizer()  # type: ignore[assignment]

    def __init__(self, pool: GeventPool, connection: Any, record: _Record, echo: Any) -> None:
        self._pool = pool
        self._counter = 0
        self.dbapi_connection = connection
        self._connection_record = record
        self._echo = echo

    def __del__(self) -> None:
        # Garbage collection may run anywhere, in the hub too: the cleaner does what is to be done.
        record = self._connection_record
        if record is not None and not sys.is_finalizing():
            cast(GeventPool, self._pool)._abandon(cast(_Record, record))

    def _reset(
        self, pool: Pool, transaction_was_reset: bool, terminate_only: bool, asyncio_safe: bool
    ) -> None:
        style = pool._reset_on_return
        if not cast(GeventPool, pool)._is_smart or transaction_was_reset:
            super()._reset(pool, transaction_was_reset, terminate_only, asyncio_safe)
            return
        connection = self.dbapi_connection
        if pool.dispatch.reset:
            state = PoolResetState(
                transaction_was_reset=False, terminate_only=terminate_only, asyncio_safe=asyncio_safe
            )
            pool.dispatch.reset(connection, self._connection_record, state)
        # Asked only now, because a listener may have begun a transaction.
        open_state = drivers.driver_for(connection).state(connection)
        if open_state is State.CLEAN:
            if self._echo:
                pool.logger.debug("Connection %s reset, no transaction is open", connection)
        elif open_state is State.BROKEN and self._connection_record is not None:
            pool.logger.info("Connection %s was abandoned in mid-query; closing it", connection)
            self._connection_record.invalidate()
        elif style is reset_rollback:
            if self._echo:
                pool.logger.debug("Connection %s rollback-on-return", connection)
            pool._dialect.do_rollback(self)
        elif style is reset_commit:
            raise AssertionError("bug: a commit is not smart")


class _RecordHandlers(ConnectionHandlers):
    """How the core treats a record: as its connection, through SQLAlchemy's events and dialect."""

    def __init__(self, pool: GeventPool) -> None:
        super().__init__(pool, pool._open_record)
        self._pool = pool

    def close(self, record: Any, cause: str) -> None:
        # Like QueuePool: what takes the place of a connection that is no good keeps its record, and
        # so its `record_info`; the record of a surplus connection goes with it.
        try:
            record.close()
        finally:
            if cause in _REPLACED:
                self._pool._spares.append(record)

    def check(self, record: Any) -> bool:
        return self._pool._ping(record)

    def must_check(self, record: Any, idle_for: float, is_watched: bool) -> bool:
        return super().must_check(record.dbapi_connection, idle_for, is_watched)

    def is_reset_needed(self, record: Any) -> bool:
        return False  # the fairy has done it, between SQLAlchemy's events

    def fileno(self, record: Any) -> int | None:
        return None if record.dbapi_connection is None else super().fileno(record.dbapi_connection)

    def is_farewell(self, record: Any, peeked: bytes) -> bool:
        return super().is_farewell(record.dbapi_connection, peeked)


class GeventPool(Door, Pool):
    """A `sqlalchemy.pool.Pool` that sizes itself, for programs on gevent.

    Without arguments there is nothing to tune. All arguments of `QueuePool` are taken, with their
    meaning: `pool_size + max_overflow` is the hard cap. How many connections are kept *idle* is the
    sizing's decision.

    Args:
        creator: opens a DBAPI connection; `create_engine` gives it.
        pool_size: with `max_overflow` the hard cap; 0: none.
        max_overflow: added to `pool_size`; -1: no cap. 10 if only `pool_size` is given.
        timeout: seconds to wait for a connection, connecting included; 0: do not wait; `None`: for
            ever. 30 by default.
        use_lifo: lend the connection that was returned last. `False` keeps all of them in turn, and
            so from ever being surplus.
        max_size: the hard cap itself.
        min_idle: never close idle connections below this size; `warm_up` opens as many ahead.
        sizing: `"adaptive"`, `"poisson"`, `"fixed"` or a policy of `geventpool.sizing`.
        breakeven: seconds of idling that one connect is worth.
        ping_after: a connection idle for more seconds is pinged before it is lent.
        cleaner: close idle connections by a hub timer.
        profile: a name of `geventpool.config.PROFILES`; other arguments win over it.
        recycle: as in `QueuePool`.
        echo: as in `QueuePool`.
        logging_name: as in `QueuePool`.
        reset_on_return: `"smart"` (default), or as in `QueuePool`.
        events: as in `QueuePool`.
        dialect: as in `QueuePool`.
        pre_ping: as in `QueuePool`, but without a round trip where the hub watches the socket.

    Raises:
        ConfigError: an argument cannot be used.
    """

    _is_asyncio = False

    def __init__(
        self,
        creator: Callable[..., Any],
        pool_size: int | None = None,
        max_overflow: int | None = None,
        timeout: float | None | str = "unsaid",
        use_lifo: bool | None = None,
        # Not keyword-only, because create_engine finds the arguments that it may pass on by reading
        # the positional ones.
        max_size: float | None = None,
        min_idle: int | None = None,
        sizing: Any = None,
        breakeven: float | None = None,
        ping_after: float | None = None,
        cleaner: bool | None = None,
        profile: str | None = None,
        recycle: float | None = None,
        echo: Any = None,
        logging_name: str | None = None,
        reset_on_return: Any = "smart",
        events: Any = None,
        dialect: Any = None,
        pre_ping: bool | None = None,
        _dispatch: Any = None,
    ) -> None:
        settings = {
            "use_lifo": use_lifo,
            "min_idle": min_idle,
            "sizing": sizing,
            "breakeven": breakeven,
            "ping_after": ping_after,
            "cleaner": cleaner,
            "recycle": recycle,
            "pre_ping": pre_ping,
        }
        settings = {name: value for name, value in settings.items() if value is not None}
        if timeout != "unsaid":
            settings["timeout"] = timeout
        self.config = config = make_config(
            profile=profile,
            pool_size=pool_size,
            max_overflow=max_overflow,
            max_size=max_size,
            reset_on_return=_reset_name(reset_on_return),
            **settings,
        )
        if echo is None and profile is not None:
            echo = profile_settings(profile).get("echo")
        self._is_smart = config.reset_on_return == "smart"
        self._pool_size = pool_size
        Pool.__init__(
            self,
            creator,
            recycle=cast(int, config.recycle),
            echo=echo,
            logging_name=logging_name,
            reset_on_return=cast(Any, "rollback" if self._is_smart else config.reset_on_return),
            events=events,
            dialect=dialect,
            # The core pings, and only where the socket cannot tell.
            pre_ping=False,
            _dispatch=_dispatch,
        )
        self._spares: list[_Record] = []  # records without a connection, kept for the next one
        if dialect is not None and getattr(dialect, "dbapi", None) is not None:
            drivers.tune(getattr(dialect.dbapi, "__name__", ""))
        self.core = make_core(_RecordHandlers(self), config, logging_name or _name_of(dialect))

    # What `Pool` asks of its subclasses.

    def connect(self) -> PoolProxiedConnection:
        """Lends a connection. Never switches greenlets when one is idle.

        Raises:
            GeventPoolTimeout: none came in time; a `sqlalchemy.exc.TimeoutError`.
            PoolClosed: the pool is closed.
            Exception: what the driver raised when it could not connect.
        """
        record = cast(_Record, self._do_get())
        try:
            connection = record.get_connection()
            fairy = _Fairy(self, connection, record, self._should_log_debug())
        except BaseException as error:
            record._checkin_failed(error, _fairy_was_created=False)
            raise
        record.fairy_ref = weakref.ref(fairy)
        if fairy._echo:
            self.logger.debug("Connection %r checked out from pool", connection)
        return _Fairy._checkout(self, fairy=fairy)

    def recreate(self) -> GeventPool:
        """A new, empty pool with the same settings and listeners."""
        self.logger.info("Pool recreating")
        size, overflow = split_cap(self.config, self._pool_size)
        config = self.config
        return self.__class__(
            self._creator,
            pool_size=size,
            max_overflow=overflow,
            timeout=config.timeout,
            use_lifo=config.use_lifo,
            min_idle=config.min_idle,
            sizing=config.sizing,
            breakeven=config.breakeven,
            ping_after=config.ping_after,
            cleaner=config.cleaner,
            recycle=config.recycle,
            echo=self.echo,
            logging_name=self._orig_logging_name,
            reset_on_return=config.reset_on_return,
            dialect=self._dialect,
            pre_ping=config.pre_ping,
            _dispatch=self.dispatch,
        )

    def dispose(self) -> None:
        """Closes what is idle. What is in use comes back and is closed by the cleaner, if nobody
        asks for it before. May switch greenlets."""
        self._spares.clear()
        self.core.close_idle("disposed")
        self.core.min_idle = 0
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
        return split_cap(self.config, self._pool_size)[0]

    def timeout(self) -> float | None:
        """Seconds that a caller waits at most."""
        return self.config.timeout

    def checkedin(self) -> int:
        """Places in the pool that nobody uses; like `QueuePool`, also such as have lost their
        connection and are about to reconnect."""
        ledger = self.core.ledger
        return len(ledger.idle) + ledger.closing + len(self._spares)

    def checkedout(self) -> int:
        """Connections in use."""
        return self.core.ledger.in_use

    def overflow(self) -> int:
        """How far the pool is above `size()`; below 0: how many could be opened before that."""
        size = self.size()
        return self.core.ledger.size + len(self._spares) - size if size else 0

    def _do_get(self) -> ConnectionPoolEntry:
        core = self.core
        timeout = self.config.timeout
        try:
            entry = core.acquire(timeout)
        except PoolTimeout as error:
            ledger = core.ledger
            if timeout == 0 and ledger.in_use + ledger.closing < ledger.max_size:
                # QueuePool's `timeout=0` does not wait for others, but it does connect.
                entry = core.acquire(None)
            else:
                raise GeventPoolTimeout(str(error), code="3o7r") from None
        record = cast(_Record, entry.resource)
        record.entry = entry
        return record

    def _do_return_conn(self, record: ConnectionPoolEntry) -> None:
        record = cast(_Record, record)
        entry = record.entry
        if entry is None or entry.state is CLOSED:
            return
        if record.dbapi_connection is None:
            self._spares.append(record)
            self.core.forget(entry, "invalidated")
        elif record._is_hard_or_soft_invalidated():
            self.core.discard(entry, "invalidated")
        else:
            self.core.release(entry)

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

    # What the core asks of us.

    def _open_record(self) -> _Record:
        if self._spares:
            record = self._spares.pop()
            try:
                record.get_connection()
            except BaseException:
                self._spares.append(record)
                raise
        else:
            record = _Record(self)
        adopt(record.dbapi_connection)
        return record

    def _ping(self, record: _Record) -> bool:
        connection = record.dbapi_connection
        self.logger.debug("Pool pre-ping on connection %s", connection)
        if type(self._dialect) is _ConnDialect:
            is_alive = drivers.driver_for(connection).ping(connection)
        else:
            is_alive = self._dialect._do_ping_w_event(connection)
        if not is_alive:
            error = exc.InvalidatePoolError()
            self.logger.info(
                "Disconnection detected on checkout, invalidating all pooled connections prior to "
                "current timestamp"
            )
            record.invalidate(error)
            self._invalidate(_AdhocProxiedConnection(connection, record), error, _checkin=False)
        return is_alive

    def _abandon(self, record: _Record) -> None:
        if record.entry is not None and record.entry.state is IN_USE:
            self.core.abandon(record.entry, self._give_back)

    def _give_back(self, entry: Entry[_Record]) -> None:
        """Returns a connection whose proxy was collected, in the cleaner's greenlet."""
        record = entry.resource
        if record.entry is not entry or entry.state is not IN_USE or record.fairy_ref is None:
            return
        if record.fairy_ref() is not None:
            return  # somebody else has it by now
        fairy = _Fairy(self, record.dbapi_connection, record, self._should_log_debug())
        record.fairy_ref = weakref.ref(fairy)
        fairy._checkin()


def wrap(engine: Engine, **settings: Any) -> Engine:
    """Gives an engine that exists a `GeventPool` in place of its pool.

    The cap, timeout, recycle, pre-ping and listeners of the pool before are kept, unless a setting says
    otherwise. Its idle connections are closed. An engine that has a `GeventPool` is only configured.

    Args:
        engine: the engine; returned for convenience.
        **settings: as for `GeventPool`.

    Raises:
        ConfigError: a setting cannot be used, or the engine cannot be pooled.
    """
    old = getattr(engine, "pool", None)
    if not isinstance(engine, Engine) or not isinstance(old, Pool):
        raise ConfigError("engine", engine, "give an Engine made by sqlalchemy.create_engine")
    if isinstance(old, GeventPool):
        if settings:
            old.configure(**settings)
        return engine
    if old._is_asyncio:
        raise ConfigError("engine", engine, "an asyncio engine cannot use gevent")
    if type(old).__name__ in ("StaticPool", "SingletonThreadPool", "AssertionPool"):
        raise ConfigError(
            "engine", engine, f"its {type(old).__name__} shares one connection on purpose; leave it"
        )
    queue, overflow = getattr(old, "_pool", None), getattr(old, "_max_overflow", None)
    said_cap = settings.keys() & {"pool_size", "max_overflow", "max_size", "profile"}
    if hasattr(queue, "maxsize") and overflow is not None and not said_cap:
        settings = {"pool_size": queue.maxsize, "max_overflow": overflow, **settings}
    new = GeventPool(
        old._creator,
        **{
            "timeout": getattr(old, "_timeout", 30.0),
            "recycle": old._recycle,
            "pre_ping": old._pre_ping,
            **settings,
        },
        echo=old.echo,
        logging_name=old._orig_logging_name,
        dialect=old._dialect,
        _dispatch=old.dispatch,
    )
    engine.pool = new
    old.dispose()
    return engine


class GeventPoolPlugin(CreateEnginePlugin):
    """`?plugin=geventpool` in a URL: settings as `geventpool_…=…`. What code says wins."""

    def __init__(self, url: URL, kwargs: dict[str, Any]) -> None:
        self._keys = [key for key in url.query if key.startswith(_PREFIX)]
        self._settings = {
            key[len(_PREFIX) :]: _parse(key, cast(str, url.query[key])) for key in self._keys
        }
        poolclass = kwargs.setdefault("poolclass", GeventPool)
        if not (isinstance(poolclass, type) and issubclass(poolclass, GeventPool)):
            raise ConfigError("poolclass", poolclass, "leave it out beside plugin=geventpool")

    def update_url(self, url: URL) -> URL:
        """The URL without our settings, for the driver."""
        return url.difference_update_query(self._keys)

    def handle_pool_kwargs(self, pool_cls: type[Pool], pool_args: dict[str, Any]) -> None:
        """Adds what the URL says to what code says."""
        if pool_args.keys() & {"pool_size", "max_overflow", "max_size"}:
            for key in ("pool_size", "max_overflow", "max_size"):
                self._settings.pop(key, None)
        pool_args.update({**self._settings, **pool_args})


def _flag(text: str) -> bool:
    return {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}[text.lower()]


_PARSERS: dict[str, tuple[Callable[[str], Any], str]] = {
    **dict.fromkeys(("pool_size", "max_overflow", "min_idle"), (int, "a whole number")),
    "max_size": (lambda text: float(text) if text == "inf" else int(text), "a whole number or inf"),
    **dict.fromkeys(("recycle", "ping_after", "breakeven"), (float, "a number of seconds")),
    "timeout": (lambda text: None if text == "none" else float(text), "a number of seconds or none"),
    **dict.fromkeys(("pre_ping", "use_lifo", "cleaner"), (_flag, "true or false")),
    **dict.fromkeys(("profile", "sizing", "reset_on_return"), (str, "a name")),
}


def _parse(key: str, text: str) -> Any:
    """One setting of a URL.

    Raises:
        ConfigError: there is no such setting, or it cannot be read.
    """
    name = key[len(_PREFIX) :]
    if name not in _PARSERS:
        known = ", ".join(_PREFIX + known for known in sorted(_PARSERS))
        raise ConfigError(key, text, f"there is no such option of the URL; give one of {known}")
    parser, wanted = _PARSERS[name]
    try:
        return parser(text)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ConfigError(key, text, f"give {wanted}") from None


def _reset_name(value: Any) -> Any:
    """SQLAlchemy's enum of reset styles, as `recreate` and old code may pass it, by its name."""
    name = getattr(value, "name", None)
    return name.removeprefix("reset_") if isinstance(name, str) else value


def _name_of(dialect: Any) -> str:
    return getattr(dialect, "name", None) or "pool"
