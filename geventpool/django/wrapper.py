"""The mixin that makes a backend of Django's borrow its connections: it does the work for all of them.

Django's wrapper gets the driver's own connection: adapters look at its type. A wrapper borrows when it
connects and gives back when it closes, and everything else, liveness, resets, kills, forks, is the core's.
"""

from __future__ import annotations

import _thread
import time
from collections.abc import Callable
from typing import Any

from django import VERSION
from django.db import ProgrammingError
from django.db.backends.base.base import NO_DB_ALIAS, BaseDatabaseWrapper
from django.utils.functional import cached_property
from gevent import Greenlet, getcurrent

from geventpool.core.registry import look_for_fork

from . import plans, registry
from .alias_pool import AliasPool, Loan, Session
from .cursors import PooledCursor, of_one_loan
from .errors import WatchedErrors

_Base: Any = object


class PooledWrapper(_Base):
    """To be put before a `DatabaseWrapper` of Django's.

    Attributes:
        is_new: the connection was opened for this borrow: a receiver of `connection_created`, which
            is sent for each, can do here what has to be done once for a connection.
    """

    is_new = False
    _pool: AliasPool | None = None
    _loan: Loan | None = None
    _linked_to: Any = None
    _is_borrowing = False
    _is_in_doubt = False

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
            loan = self._forget()
            if loan is not None:
                loan.invalidate()
            raise
        finally:
            self._is_borrowing = False

    if VERSION < (5, 1):

        def ensure_connection(self) -> None:
            """As ever, and as later Django: a block does not go on with another connection.

            Raises:
                ProgrammingError: the block's own is gone.
            """
            if self.connection is None and self.in_atomic_block and self.closed_in_transaction:
                raise ProgrammingError("Cannot open a new connection in an atomic block.")
            super().ensure_connection()

    def get_connection_params(self) -> Any:
        """As ever; nothing for a borrow, as the pool asks its own wrapper when it opens one."""
        is_overridden = type(self).get_connection_params is not PooledWrapper.get_connection_params
        if self._is_borrowing and self.alias != NO_DB_ALIAS and not is_overridden:
            return None
        return super().get_connection_params()

    def get_new_connection(self, conn_params: Any) -> Any:
        """A connection from the pool."""
        if self.alias == NO_DB_ALIAS:
            return self.open_connection(conn_params)
        if self._loan is not None:
            self._give_back()  # `connect` was called on a wrapper that is connected
        pool = self._pool = registry.pool_of(self)
        loan = self._borrow(pool)
        while pool.pings and not loan.is_new:
            self.connection = loan.connection
            if self.is_usable():
                break
            self._forget()
            loan.invalidate()
            loan = self._borrow(pool, is_new=False)
        # Django's own sets it when it opens one.
        self.isolation_level = pool.opener.isolation_level
        return loan.connection

    def open_connection(self, conn_params: Any = None) -> Any:
        """Opens one, as Django does."""
        if conn_params is None:
            for cached in ("timezone", "timezone_name"):  # tests change these settings
                self.__dict__.pop(cached, None)
            conn_params = self.get_connection_params()
        return super().get_new_connection(conn_params)

    def close_if_unusable_or_obsolete(self) -> None:
        """As ever, but one that is to be closed anyway is not pinged before."""
        if (
            self.connection is not None
            and self.close_at is not None
            and time.monotonic() >= self.close_at
        ):
            self.close()
            return
        self._is_in_doubt = True
        try:
            super().close_if_unusable_or_obsolete()
        finally:
            self._is_in_doubt = False

    def close_if_health_check_failed(self) -> None:
        """As ever, before each cursor; one that failed goes back to nobody."""
        if self._loan is not None and not self._loan.is_ours:
            # The process has forked, and it is the parent's; or it was taken back.
            self._forget()
            if self.in_atomic_block:
                self.closed_in_transaction = self.needs_rollback = True
        if self.health_check_enabled:
            self._is_in_doubt = True
            try:
                super().close_if_health_check_failed()
            finally:
                self._is_in_doubt = False

    def create_cursor(self, name: str | None = None) -> Any:
        """As ever; of a connection that is shared, nobody is the holder."""
        loan = self._loan
        if loan is None:
            return super().create_cursor(name)
        if loan.is_used_elsewhere() and self.allow_thread_sharing:
            loan.share()
        targets = None if name else plans.targets_of(self.alias)
        if targets:
            make: Callable[[], Any] = super().create_cursor
            cursor = plans.PreparingCursor(make, self._create_planned_cursor, loan, targets)
        else:
            cursor = super().create_cursor(name)
        listener = loan.core.listener
        return cursor if listener is None else listener.cursor_made(loan, cursor)

    def make_cursor(self, cursor: Any) -> Any:
        """As ever, but of no use when the connection was given back."""
        return PooledCursor(cursor, self)

    def make_debug_cursor(self, cursor: Any) -> Any:
        """The same."""
        kind: Any = type(super().make_debug_cursor(cursor))
        return of_one_loan(kind)(cursor, self)

    def _create_planned_cursor(self) -> Any:
        """A cursor that can run a plan."""
        return super().create_cursor()

    @cached_property
    def wrap_database_errors(self) -> Any:
        """As ever, but the pool sees the driver's errors."""
        return WatchedErrors(self)

    def saw(self, error: BaseException) -> None:
        """An error of the driver's. Never switches."""
        if self._loan is not None and self._loan.saw(error):
            self.close_at = 0.0  # with the request, also where connections are kept for longer

    def close_pool(self) -> None:
        """Closes what the pools to this database have idle, and the rest when it comes back."""
        registry.disconnect(registry.database_of(self.settings_dict))

    @property
    def _session(self) -> Session | None:
        return None if self._loan is None else self._loan.session

    def _tell_of_end(self) -> None:
        look_for_fork()
        loan = self._loan
        listener = None if loan is None else loan.core.listener
        if loan is not None and listener is not None:
            listener.transaction_ending(loan.entry)

    def _commit(self) -> Any:
        self._tell_of_end()
        try:
            return super()._commit()
        except Exception:
            raise
        except BaseException:
            self._lose()
            raise

    def _rollback(self) -> Any:
        self._tell_of_end()
        try:
            super()._rollback()
            if self._session is not None and self._session.has_lost_plan:
                self._lose()  # whoever runs the transaction again gets another connection
        except Exception:
            if self._session is not None:
                self._session.is_altered = True  # whatever its driver knows, nobody is to have it
            raise
        except BaseException:
            self._lose()
            raise

    def _lose(self) -> None:
        """Nothing is to be done with the connection any more. Never switches.

        After a kill in mid-exchange `atomic` would go on with it, and the error that it met would take
        the place of the kill.
        """
        loan = self._forget()
        self.closed_in_transaction = True
        if loan is not None:
            loan.invalidate()

    def _borrow(self, pool: AliasPool, is_new: bool = True) -> Loan:
        self._loan = loan = pool.lend(is_new)
        self.is_new = loan.is_new
        owner = getcurrent()
        if self._thread_ident != _thread.get_ident():
            # The wrapper is lent by `inc_thread_sharing`: this one may end before its owner goes on.
            if self.allow_thread_sharing:
                loan.share()
        elif isinstance(owner, Greenlet):
            owner.rawlink(self._owner_ended)
            self._linked_to = owner
        return loan

    def _close(self) -> Any:
        loan = self._loan
        if loan is None or self.connection is not loan.connection:
            return super()._close()  # not from the pool
        with self.wrap_database_errors:
            return self._give_back()

    def _give_back(self) -> None:
        """Switches greenlets only if there is something to roll back."""
        look_for_fork()
        is_fit = False
        session = None if self._loan is None else self._loan.session
        is_altered = session is not None and (session.is_altered or session.has_lost_plan)
        try:
            is_fit = not is_altered and not self._is_in_doubt and self._tidy_up()
        finally:
            # In an atomic block Django would keep it in hand, when somebody else has it already.
            loan = self._forget()
            if loan is not None and (is_altered or (self.errors_occurred and loan.is_broken)):
                # Or `atomic` would borrow another one, only to leave it in autocommit.
                self.closed_in_transaction = True
            if loan is not None and not is_fit:
                loan.invalidate()
        if loan is not None:
            loan.close()

    def _tidy_up(self) -> bool:
        """Ends what a backend has open beside transactions. False: it cannot be."""
        return True

    def _forget(self) -> Loan | None:
        """The wrapper has no connection any more. Never switches."""
        loan, self._loan = self._loan, None
        self.connection = None
        linked_to, self._linked_to = self._linked_to, None
        if linked_to is not None:
            linked_to.unlink(self._owner_ended)
        return loan

    def _owner_ended(self, greenlet: Any) -> None:
        """Runs in the hub. Nobody else may use the connection, so it need not wait for a collector."""
        if not self.allow_thread_sharing:
            loan = self._forget()
            if loan is not None:
                loan.drop()


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
