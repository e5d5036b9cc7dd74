"""The mixin that makes a backend of Django's borrow its connections: it does the work for all of them.

Django's wrapper gets the driver's own connection, as the entry's resource: adapters look at its type. A
wrapper borrows when it connects and gives back when it closes, and everything else, liveness, resets,
kills, forks, is the core's.
"""

from __future__ import annotations

import sys
import time
from typing import Any

from django.db.backends.base.base import NO_DB_ALIAS, BaseDatabaseWrapper
from gevent import Greenlet, getcurrent

from geventpool.core.entry import IN_USE, Entry
from geventpool.core.holders import disown
from geventpool.errors import PoolClosed, PoolTimeout

from . import registry
from .errors import as_djangos
from .registry import AliasPool, Session

_Base: Any = object


class PooledWrapper(_Base):
    """To be put before a `DatabaseWrapper` of Django's.

    Attributes:
        is_new: the connection was opened for this borrow: a receiver of `connection_created`, which
            is sent for each, can do here what has to be done once for a connection.
    """

    is_new = False
    _entry: Entry[Any] | None = None
    _pool: AliasPool | None = None
    _session: Session | None = None
    _linked_to: Any = None
    _is_borrowing = False

    def connect(self) -> None:
        """Borrows a connection. Switches greenlets only if none is idle.

        Raises:
            DjangoPoolTimeout: none came in time; an `OperationalError`.
        """
        self._is_borrowing = True
        try:
            super().connect()
        except BaseException:
            # Django would keep a connection that is only half prepared.
            entry = self._forget()
            if entry is not None and self._pool is not None:
                self._pool.core.discard(entry, "invalidated")
            raise
        finally:
            self._is_borrowing = False

    def ensure_connection(self) -> None:
        """Borrows one, unless there is one that is still ours."""
        entry = self._entry
        if entry is not None and entry.state is not IN_USE:
            # The process has forked, and it is the parent's; or it was taken back.
            self._forget()
            if self.in_atomic_block:
                self.closed_in_transaction = self.needs_rollback = True
        super().ensure_connection()

    def get_new_connection(self, conn_params: Any) -> Any:
        """A connection from the pool."""
        if self.alias == NO_DB_ALIAS:
            return self.open_connection(conn_params)
        self._give_back()  # `connect` was called on a wrapper that is connected
        pool = self._pool = registry.pool_of(self)
        pool.parameters = conn_params
        entry = self._borrow(pool)
        if pool.pings and not self.is_new:
            self.connection = entry.resource
            while not self.is_usable():
                self._forget()
                pool.core.discard(entry, "dead")
                entry = self._borrow(pool)
                self.connection = entry.resource
        return entry.resource

    def open_connection(self, conn_params: Any) -> Any:
        """Opens one, as Django does."""
        return super().get_new_connection(conn_params)

    def close_if_unusable_or_obsolete(self) -> None:
        """As ever, but one that is to be closed anyway is not pinged before."""
        if (
            self.connection is not None
            and self.close_at is not None
            and time.monotonic() >= self.close_at
        ):
            self.close()
        else:
            super().close_if_unusable_or_obsolete()

    def create_cursor(self, name: str | None = None) -> Any:
        """As ever; of a connection that is shared, nobody is the holder."""
        entry = self._entry
        if (
            entry is not None
            and entry.owner is not None
            and entry.owner is not getcurrent()
            and self.allow_thread_sharing
            and self._pool is not None
            and self._pool.core.is_here
        ):
            disown(entry)
        return super().create_cursor(name)

    def close_pool(self) -> None:
        """Closes what the pools to this database have idle, and the rest when it comes back."""
        registry.disconnect(registry.database_of(self.settings_dict))

    def _borrow(self, pool: AliasPool) -> Entry[Any]:
        try:
            entry = pool.core.acquire(pool.config.timeout)
        except (PoolTimeout, PoolClosed) as error:
            raise as_djangos(error) from None
        self._entry = entry
        self._session = session = pool.session(entry)
        self.is_new = session.tracked is None
        owner = getcurrent()
        if isinstance(owner, Greenlet):
            owner.rawlink(self._owner_ended)
            self._linked_to = owner
        return entry

    def _close(self) -> Any:
        entry = self._entry
        if entry is None or self.connection is not entry.resource:
            return super()._close()  # not from the pool
        # In an atomic block Django would keep it in hand, when somebody else has it already.
        with self.wrap_database_errors:
            return self._give_back()

    def _give_back(self) -> None:
        """Switches greenlets only if there is something to roll back."""
        if self._entry is None or self._pool is None:
            return
        session = self._session
        try:
            is_fit = self._tidy_up() and not (session is not None and session.is_altered)
        except BaseException:
            entry = self._forget()
            if entry is not None:
                self._pool.core.discard(entry, "abandoned")
            raise
        entry = self._forget()
        if entry is None:
            return
        if is_fit:
            self._pool.core.release(entry)
        else:
            self._pool.core.discard(entry, "invalidated")

    def _tidy_up(self) -> bool:
        """Ends what a backend has open beside transactions. False: it cannot be."""
        return True

    def _forget(self) -> Entry[Any] | None:
        """The wrapper has no connection any more. Never switches."""
        entry, self._entry, self._session = self._entry, None, None
        self.connection = None
        linked_to, self._linked_to = self._linked_to, None
        if linked_to is not None:
            linked_to.unlink(self._owner_ended)
        return entry

    def _owner_ended(self, greenlet: Any) -> None:
        """Runs in the hub. Nobody else may use the connection, so it need not wait for a collector."""
        if self._entry is not None and self._pool is not None and not self.allow_thread_sharing:
            entry = self._forget()
            if entry is not None and entry.state is IN_USE:
                self._pool.core.abandon(entry)

    def __del__(self) -> None:
        # Garbage collection may run anywhere, in the hub too, so nothing is sent from here.
        entry = self._entry
        if (
            entry is not None
            and entry.state is IN_USE
            and self._pool is not None
            and not sys.is_finalizing()
        ):
            self._pool.core.abandon(entry)


class PooledCreation(_Base):
    """To be put before a `DatabaseCreation` of Django's: no idle connection stands in the way."""

    def _create_test_db(self, *args: Any, **kwargs: Any) -> Any:
        # The real one, which may be the template of the test's.
        registry.disconnect(registry.database_of(self.connection.settings_dict))
        return super()._create_test_db(*args, **kwargs)

    def _clone_test_db(self, *args: Any, **kwargs: Any) -> Any:
        registry.disconnect(registry.database_of(self.connection.settings_dict))
        return super()._clone_test_db(*args, **kwargs)

    def _destroy_test_db(self, test_database_name: str, *args: Any, **kwargs: Any) -> Any:
        database = registry.database_of(self.connection.settings_dict, test_database_name)
        registry.disconnect(database, forget=True)
        return super()._destroy_test_db(test_database_name, *args, **kwargs)


def begin_session(wrapper: Any) -> None:
    """What Django does at each connect whatever the database: it looks at the version, once."""
    BaseDatabaseWrapper.init_connection_state(wrapper)
