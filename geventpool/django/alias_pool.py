"""The pool of one alias, what it lends, and what is known of each connection's session."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any
from weakref import WeakKeyDictionary

from gevent import getcurrent

from geventpool import drivers
from geventpool.core.entry import IN_USE, Entry
from geventpool.core.owners import clear_owner
from geventpool.core.pool import ResourcePool
from geventpool.core.registry import look_for_fork
from geventpool.drivers import State
from geventpool.errors import PoolClosed, PoolTimeout
from geventpool.plans import Prepared
from geventpool.pool import ConnectionPool, PooledConnection

from . import settings as pool_settings
from .errors import as_djangos
from .settings import PoolSettings

followers: dict[str, Callable[[AliasPool], object]] = {}
"""By alias: who is to know when it gets another pool."""


class Session:
    """What Django has set in a server's session, once, and need not set again.

    Attributes:
        tracked: whatever the backend compares; `None`: nothing was set yet.
        is_altered: it is in a state that no other borrower may meet.
        has_lost_plan: a prepared plan is of no use any more, and the driver does not know.
        prepared: the plans that were prepared in it.
    """

    __slots__ = ("has_lost_plan", "is_altered", "prepared", "tracked")

    def __init__(self) -> None:
        self.tracked: Any = None
        self.is_altered = False
        self.has_lost_plan = False
        self.prepared: Prepared = OrderedDict()


class Loan(PooledConnection):
    """A connection that a wrapper has borrowed. One that is dropped comes back by itself.

    An object of its own, because Django's wrappers can be copied, and then share their connection.

    Attributes:
        session: what is known of its session.
        is_new: the connection was opened for this loan.
    """

    __slots__ = ("is_new", "session")

    def __init__(self, pool: AliasPool, entry: Entry, session: Session) -> None:
        super().__init__(pool, entry)
        self.session = session
        self.is_new = session.tracked is None

    @property
    def entry(self) -> Entry | None:
        """The pool's record of it; `None`: it was given back."""
        return self._entry

    @property
    def dbapi_connection(self) -> Any:
        """The driver's own connection object."""
        return self.connection

    @property
    def core(self) -> ResourcePool:
        """The pool that has lent it."""
        return self._pool.core

    @property
    def is_ours(self) -> bool:
        """It was neither given back, nor taken back, nor is it that of a forked parent."""
        look_for_fork()
        return self._entry is not None and self._entry.state is IN_USE

    @property
    def is_broken(self) -> bool:
        """It is closed, or was left in mid-exchange, as far as the driver knows."""
        return drivers.driver_for(self.connection).state(self.connection) is State.BROKEN

    def share(self) -> None:
        """Nobody is the holder of a connection that several greenlets use. Never switches."""
        entry = self._entry
        if entry is not None and entry.owner is not None and self._pool.core.is_here:
            clear_owner(entry)

    def is_used_elsewhere(self) -> bool:
        """Does another greenlet use it than the one that has borrowed it?"""
        entry = self._entry
        return entry is not None and entry.owner is not None and entry.owner is not getcurrent()

    def drop(self) -> None:
        """Gives it back as a finalizer does: something else rolls back. Never switches."""
        entry, self._entry = self._entry, None
        if entry is not None and entry.state is IN_USE:
            self._pool.core.abandon(entry)


class AliasPool(ConnectionPool):
    """The pool of an alias. `configure`, `resize`, `stats`, `warm_up` … are those of every pool.

    Args:
        alias: its name in `DATABASES`.
        settings: what its `POOL` says.
        opener: a wrapper of the pool's own, whose opens outlive their callers.
        database: host, port and name of the database, by which pools are found.

    Attributes:
        alias: see above.
        opener: see above.
        database: see above.
        pings: see `PoolSettings`.
        is_dynamic: see `PoolSettings`.
        server: what Django has asked the server about itself; it asks in each greenlet again.
    """

    def __init__(
        self,
        alias: str,
        settings: PoolSettings,
        opener: Any,
        database: tuple[Any, ...],
    ) -> None:
        self.alias = alias
        self.opener = opener
        self.database = database
        self.pings = settings.pings
        self.is_dynamic = settings.is_dynamic
        self._read = settings.given  # what `configure` and `resize` say beside them stays
        self.server: dict[str, Any] = {}
        self._sessions: WeakKeyDictionary[Entry, Session] = WeakKeyDictionary()
        super().__init__(opener.open_connection, name=alias, **settings.given)

    @property
    def target(self) -> tuple[object, ...] | None:
        """What `DATABASES` says; `None`: SQLite, which has no server."""
        if self.opener.vendor == "sqlite":
            return None
        return self.opener.vendor, *self.database, self.opener.settings_dict["USER"]

    def lend(self, is_new: bool = True) -> Loan:
        """Lends a connection. Never switches greenlets when one is idle.

        Args:
            is_new: False: in place of one that was of no use.

        Raises:
            DjangoPoolTimeout: none came in time.
            DjangoPoolClosed: the pool is closed.
            Exception: what the driver raised when it could not connect.
        """
        try:
            entry = self.core.acquire(self.config.timeout, is_new)
        except (PoolTimeout, PoolClosed) as error:
            raise as_djangos(error) from None
        session = self._sessions.get(entry)
        if session is None:
            session = self._sessions[entry] = Session()
        return Loan(self, entry, session)

    def refresh(self, settings_dict: Mapping[str, Any]) -> None:
        """Reads settings that are functions anew. Never switches."""
        settings = pool_settings.read(self.alias, settings_dict)
        self.pings = settings.pings
        if settings.given != self._read:
            changed = {
                name: value
                for name, value in settings.given.items()
                if name not in self._read or self._read[name] != value
            }
            self.configure(**changed)
            self._read = settings.given

    def disconnect(self) -> None:
        """Closes what is idle, now, and what is in use when it comes back. May switch greenlets."""
        try:
            self.core.settle()  # or what is being reset would not be closed before this returns
        finally:
            self.core.expire_all(True)
            self.core.dispose()
