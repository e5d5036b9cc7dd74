"""PostgreSQL: `ENGINE = "geventpool.django.postgresql"`, with psycopg 3 or psycopg2."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from django.db.backends.postgresql import base, creation

from ..wrapper import PooledCreation, PooledWrapper


class PooledPostgreSQL(PooledWrapper):
    """What PostgreSQL needs beside the common part; before a wrapper of Django's for PostgreSQL."""

    _named_cursors: list[Any]

    def get_new_connection(self, conn_params: Any) -> Any:
        """A connection from the pool."""
        self._named_cursors = []
        return super().get_new_connection(conn_params)

    def _set_autocommit(self, autocommit: bool) -> None:
        # It is so in every connection but the one that somebody left otherwise.
        if not self._is_borrowing or self.connection.autocommit != autocommit:
            super()._set_autocommit(autocommit)

    def init_connection_state(self) -> None:
        """Costs nothing in a session that is as Django wants it: the time zone is known by libpq."""
        super().init_connection_state()
        loan = self._loan
        if loan is not None and loan.session.tracked is None:
            loan.session.tracked = ("role", None)

    def _configure_role(self, connection: Any) -> Any:
        return self._once(partial(super()._configure_role, connection))

    def ensure_role(self) -> Any:
        """The same, by its name before Django 5.1."""
        return self._once(super().ensure_role)

    def _once(self, set_role: Callable[[], Any]) -> Any:
        """Sets the role, if the session is not known to have it."""
        loan = self._loan
        session = None if loan is None else loan.session
        wanted = ("role", self.settings_dict["OPTIONS"].get("assume_role"))
        if session is not None and self._is_borrowing and session.tracked == wanted:
            return False
        is_set = set_role()
        if session is not None:
            session.tracked = wanted
        return is_set

    def ensure_timezone(self) -> Any:
        """The pool is left alone: each borrow compares the session's time zone."""
        if self.connection is None:
            return False
        if hasattr(self, "_configure_timezone"):
            return self._configure_timezone(self.connection)
        return super().ensure_timezone()  # before Django 5.1, where there was no pool to close

    def _create_planned_cursor(self) -> Any:
        """To psycopg 3 only what has its parameters sent beside it is a plan; Django puts them in."""
        if not base.is_psycopg3:
            return super()._create_planned_cursor()
        connection = self.connection
        usual = connection.cursor_factory
        connection.cursor_factory = base.ServerBindingCursor
        try:
            return super()._create_planned_cursor()
        finally:
            connection.cursor_factory = usual

    def chunked_cursor(self) -> Any:
        """A server-side cursor, which does not outlive the borrow."""
        cursor = super().chunked_cursor()
        self._named_cursors = [one for one in self._named_cursors if not one.closed]
        self._named_cursors.append(cursor)
        return cursor

    def _tidy_up(self) -> bool:
        cursors, self._named_cursors = self._named_cursors, []
        for cursor in cursors:
            # Outside of a transaction it would stay open, and its name be in the next one's way.
            if not cursor.closed:
                try:
                    cursor.close()
                except Exception:
                    return False
        return True


class DatabaseCreation(PooledCreation, creation.DatabaseCreation):
    """Django's, which closes the pool's idle connections first."""


class DatabaseWrapper(PooledPostgreSQL, base.DatabaseWrapper):
    """Django's, on a pool."""

    creation_class = DatabaseCreation
