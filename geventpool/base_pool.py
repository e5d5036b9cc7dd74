"""What the pools of all doors have in common, and how the core treats their connections."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from operator import attrgetter
from typing import Any

from . import autocap, drivers
from .config import SETTINGS, SMART, PoolConfig, change, make_config
from .core import stacks, threads
from .core.entry import IN_USE, Entry
from .core.handlers import Handlers
from .core.opening import one_beside
from .core.pool import ResourcePool
from .core.registry import at_fork
from .core.stats import PoolStats
from .drivers import by_class
from .drivers.abandoned_queries import AbandonedQuery
from .drivers.base import Driver, Idle, State
from .drivers.canceller import Canceller
from .drivers.libpq import forget_hanging
from .errors import ConfigError
from .setting import read_number
from .sizing.cap import Decision

log = logging.getLogger("geventpool")

# Seconds. When no connection comes back for so long, all are in long queries, and an abandoned one may be
# even longer: it is worth a connection beside the pool.
_NEXT_RETURN = 0.25

FOR_ASYNCIO = "it is for asyncio, and greenlets cannot wait for it: use psycopg, pg8000 or PyMySQL"

# An enum's members are dear to look up.
CLEAN, UNKNOWN, BROKEN = State.CLEAN, State.UNKNOWN, State.BROKEN
IN_TRANSACTION = State.IN_TRANSACTION


class BasePool:
    """What every kind of pool offers its user beside connections: figures, and settings at run time.

    Attributes:
        core: the resource pool behind the door.
        config: its settings.
    """

    core: ResourcePool
    config: PoolConfig
    _given: dict[str, Any]  # the settings that the user has given
    _is_shared: bool | None = None  # of a database in memory: by several connections; None: no such
    _database: tuple[int, Any] | None = None  # the connection that is one, and its process

    def __repr__(self) -> str:
        return repr(self.core)

    def configure(self, **settings: Any) -> None:
        """Changes settings while the pool runs. Never switches greenlets.

        Args:
            **settings: as at construction; what is not given stays as it is.

        Raises:
            ConfigError: nothing has been changed then.
        """
        known = settings.keys() & SETTINGS.keys()
        for name in known:
            if SETTINGS[name].is_final:
                cure = "can only be set when the pool is made"
                raise ConfigError(name, settings[name], cure)
        given = change(self._given, settings)
        config = make_config(**given)
        self._given = given
        self.config = config if self._is_shared is None else config.for_memory(self._is_shared)
        is_sized_anew = any(SETTINGS[name].is_sizing for name in known)
        self.core.configure(self.config, config.policy() if is_sized_anew else None)
        autocap.follow(self.core)

    @property
    def cap_decision(self) -> Decision | None:
        """What `auto_cap` has decided last, and why; `None`: nothing yet. Never switches greenlets."""
        return autocap.decision_of(self.core)

    def resize(self, max_size: float) -> None:
        """Changes the hard cap; surplus connections are closed as they become idle."""
        self.configure(max_size=max_size)

    def warm_up(self) -> None:
        """Opens `min_idle` connections in the background, and keeps that many from then on."""
        self.core.warm_up()

    def stats(self) -> PoolStats:
        """A frozen snapshot of all figures. Never switches greenlets."""
        return self.core.stats()

    def drain(self, timeout: float) -> bool:
        """Waits up to `timeout` seconds until nothing is in use. Switches greenlets.

        Raises:
            ConfigError: `timeout` is no number.
        """
        return self.core.drain(read_number("timeout", timeout, "a number of seconds"))

    def close(self) -> None:
        """Closes what is idle, refuses new callers; what is in use is closed when it comes back."""
        self.core.close()

    @property
    def target(self) -> tuple[object, ...] | None:
        """What tells its server, database and account from others; empty: it is not known."""
        return ()

    @property
    def has_one_connection(self) -> bool:
        """The database is in memory, and each connection would have one of its own."""
        return self._is_shared is False

    def _connected(self, connect: Callable[[], Any]) -> Any:
        """A new connection; in a forked child, its copy of the database in memory goes on."""
        if self._database is None or self._database[0] == os.getpid():
            return connect()
        connection = self._database[1]
        if drivers.driver_for(connection).state(connection) is State.BROKEN:
            return connect()  # it was closed before
        connection.rollback()  # what the parent had begun, goes on there
        return connection

    def _adopt(self, connection: Any, connect: Callable[[], Any]) -> None:
        """Prepares a connection that was just opened, before it is in the books.

        The first one tells whether the database is in memory: while that is not known no other is being
        opened.
        """
        adopt(connection)
        driver = drivers.driver_for(connection)
        if self.has_one_connection:
            self._database = os.getpid(), connection
        if self._is_shared is not None or not driver.is_in_memory(connection):
            return
        try:
            self._is_shared = driver.is_shared(connection, connect)
        except BaseException:
            connection.close()
            raise
        if not self._is_shared:
            self._database = os.getpid(), connection
        self.config = self.config.for_memory(self._is_shared)
        self.core.configure(self.config)
        autocap.follow(self.core)
        log.info(
            "%r: its database lives in memory, and ends with its last connection: one is kept open%s",
            self.core,
            "" if self._is_shared else ", and is lent to one caller at a time",
        )

    def may_reset_behind(self, driver: Driver) -> bool:
        """Are connections of this driver rolled back behind who gives them back? Never switches.

        Who does not wait for connections would not find the one that it has just given back.
        """
        config = self.config
        return config.reset_on_return == "behind" and driver.resets_behind and config.timeout != 0

    def _saw(self, entry: Entry | None, connection: Any, error: BaseException | None) -> bool:
        """An error has passed through a lent connection: is the server behind it still the one?

        Never switches, unless the user's `is_disconnect` does.

        Returns:
            The connection is to be replaced.
        """
        if entry is None or entry.state is not IN_USE or not isinstance(error, Exception):
            return False
        try:
            is_unfit = self._is_unfit(connection, error)
        except Exception:  # the error itself is what its catcher has to see
            log.exception("%r: could not judge an error", self.core)
            return False
        if is_unfit:
            self.core.distrust(entry, f"{type(error).__name__}: {error}")
        return is_unfit

    def _is_unfit(self, connection: Any, error: BaseException) -> bool:
        ask = self.config.is_disconnect
        return any(
            (ask is not None and ask(one)) or drivers.is_unfit(connection, one)
            for one in drivers.errors_behind(connection, error)
        )


class ConnectionHandlers(Handlers):
    """How the core treats a DBAPI connection, as far as the driver's file knows.

    Args:
        pool: whose connections.
        open_one: opens what the core is to treat.
        connect: opens a DBAPI connection beside the pool, through which a query is cancelled where the
            database has no other way, and none of the pool's own connections comes back.

    Attributes:
        connection_of: the DBAPI connection of what the core treats; `None`: it has lost it.
    """

    connection_of: Callable[[Any], Any]

    def __init__(
        self, pool: BasePool, open_one: Callable[[], Any], connect: Callable[[], Any]
    ) -> None:
        self._pool = pool
        self._open_one = open_one
        self.connection_of = lambda connection: connection
        # What is asked of the server for the pool's own purposes is nothing that a tracer has to see.
        self._canceller = Canceller(
            lambda: drivers.innermost(connect()),
            self._lend_first,
            threads.off_hub,
            lambda: one_beside(pool.core),
        )

    def open(self) -> Any:
        """Opens it. May switch greenlets."""
        return self._open_one()

    def close(self, connection: Any, cause: str) -> object:
        """Closes it. May switch greenlets."""
        return drivers.driver_for(connection).leave_to_user(connection) or connection.close()

    def abandoned(self, connection: Any) -> AbandonedQuery | None:
        """What the server may still do for a connection that was left in mid-query."""
        if not self._pool.config.cancel_deadline:
            return None
        return drivers.driver_for(connection).abandoned(connection)

    def cancel(self, abandoned: AbandonedQuery) -> bool:
        """Has the server stop, and waits until it has. Switches greenlets."""
        return self._canceller.cancel(abandoned, self._pool.config.cancel_deadline)

    @contextlib.contextmanager
    def _lend_first(self) -> Iterator[Any]:
        """One of the pool's own connections, before anybody in line; `None` if none comes in time."""
        core = self._pool.core
        entry = core.acquire_first(_NEXT_RETURN)
        try:
            connection = None if entry is None else self.connection_of(entry.resource)
            if connection is None:
                yield None
            else:
                own = drivers.innermost(connection)  # also here: a tracer has nothing to see
                driver = by_class[type(own)]
                was_clean = driver.state(own) is CLEAN
                yield own
                if was_clean and driver.state(own) is not CLEAN:
                    threads.off_hub(own.rollback)  # a question may have begun a transaction
        except BaseException:
            if entry is not None:
                core.discard(entry, "dead")
            raise
        if entry is not None:
            core.release(entry, is_clean=True, is_callers=False)

    def target(self) -> tuple[object, ...] | None:
        """As far as the pool's door knows."""
        return self._pool.target

    def server_is_full(self, error: BaseException) -> bool:
        """As the driver reads the error."""
        return drivers.server_is_full(error)

    def is_transient(self, error: BaseException) -> bool:
        """It is one that a restart of the server would cause."""
        return drivers.is_operational(error)

    def is_busy(self, connection: Any) -> bool:
        """Left in the middle of an exchange, or just in one."""
        driver = drivers.driver_for(connection)
        return driver.fileno(connection) is not None and driver.state(connection) is State.BROKEN

    def move(self, connection: Any) -> None:
        """Rebinds its socket to this thread's hub, where it is bound to one."""
        drivers.driver_for(connection).move(connection)

    def check(self, connection: Any) -> bool:
        """One round trip. Switches greenlets."""
        return drivers.driver_for(connection).ping(connection)

    def needs_check(self, connection: Any) -> bool:
        """As the driver's file says."""
        return drivers.driver_for(connection).needs_ping

    def is_clean(self, connection: Any) -> bool:
        """If `smart` or `behind`: does the driver know that no transaction is open?"""
        style = self._pool.config.reset_on_return
        if style in SMART:
            return by_class[type(connection)].state(connection) is CLEAN
        return style is None and not self._is_broken(connection)

    def resets_behind(self, connection: Any) -> bool:
        """Is a rollback that cooperates all that it needs?"""
        if self._pool.config.reset_on_return != "behind":
            return False
        driver = drivers.driver_for(connection)
        try:
            state = driver.state(connection)
        except Exception:  # a driver's surprise, which the reset will meet again
            return False
        return state is IN_TRANSACTION and self._pool.may_reset_behind(driver)

    def _is_broken(self, connection: Any) -> bool:
        return by_class[type(connection)].state(connection) is BROKEN

    def reset(self, connection: Any) -> bool:
        """Ends an open transaction. Switches greenlets."""
        driver = by_class[type(connection)]
        if driver.state(connection) is BROKEN:
            return False
        is_commit = self._pool.config.reset_on_return == "commit"
        try:
            (connection.commit if is_commit else connection.rollback)()
        except Exception:
            driver.cannot_be_reset(connection)
            raise
        # In autocommit some drivers send nothing; and another greenlet may have used it meanwhile.
        return (state := driver.state(connection)) is UNKNOWN or state is CLEAN

    def fileno(self, connection: Any) -> int | None:
        """The socket to watch."""
        return by_class[type(connection)].fileno(connection)

    def socket_of(self, connection: Any) -> Callable[[Any], object] | None:
        """By the attribute that the driver's file names, in C; else by the number."""
        return self._socket_of(connection, "")

    def _socket_of(self, connection: Any, prefix: str) -> Callable[[Any], object] | None:
        driver = drivers.driver_for(connection)
        if driver.socket is not None:
            with contextlib.suppress(AttributeError):  # where nothing is patched, it is no gevent's
                getter(driver.socket)(connection)
                return getter(prefix + driver.socket)
        return None if driver.fileno(connection) is None else self.fileno

    def on_reconnect(self, connection: Any, tell: Callable[[], object]) -> None:
        """By the driver's file."""
        drivers.driver_for(connection).on_reconnect(connection, tell)

    def means_hangup(self, connection: Any, peeked: bytes) -> bool:
        """What the driver makes of unsolicited bytes."""
        return drivers.driver_for(connection).unsolicited(connection, peeked) is Idle.DEAD


getter = functools.cache(attrgetter)
at_fork(forget_hanging)


def adopt(connection: Any) -> None:
    """Has the driver's file prepare a new connection; says once for each driver if it blocks the hub.

    Raises:
        ConfigError: it is an asyncio driver's.
    """
    if isinstance(connection, Awaitable):
        if isinstance(connection, Coroutine):
            connection.close()  # or Python warns that nobody has awaited it
        raise ConfigError("connect", connection, FOR_ASYNCIO)
    try:
        driver = drivers.prepare(connection)
        stacks.MACHINERY.update(driver.packages)
        drivers.warn_if_blocking(driver, connection)
    except BaseException:  # such as a warning that is an error: nobody else knows the connection
        connection.close()
        raise
