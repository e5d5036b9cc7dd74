"""MySQL and MariaDB: `ENGINE = "geventpool.django.mysql"`."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.db.backends.base.base import NO_DB_ALIAS

try:
    from django.db.backends.mysql import base, creation
except ImproperlyConfigured as error:
    raise ImproperlyConfigured(
        f"{error} For gevent rather install PyMySQL, and put `import pymysql; "
        "pymysql.install_as_MySQLdb()` into the settings: mysqlclient blocks every greenlet."
    ) from error
from django.utils.functional import cached_property

from .. import registry
from ..wrapper import PooledCreation, PooledWrapper, begin_session


class PooledMySQL(PooledWrapper):
    """What MySQL needs beside the common part; before a wrapper of Django's for MySQL."""

    @cached_property
    def mysql_server_data(self) -> Any:
        """What Django asks the server about itself, here once for the pool."""
        if self.alias == NO_DB_ALIAS:
            return super().mysql_server_data
        server = registry.pool_of(self).server
        if "data" not in server:
            with self.temporary_connection():  # which may ask by itself, for the first one
                if "data" not in server:
                    server["data"] = super().mysql_server_data
        return server["data"]

    def init_connection_state(self) -> None:
        """Sets the isolation level, if it is another than the session has by now."""
        session = self._session
        wanted = ("isolation", self.isolation_level)
        if self._is_borrowing and session is not None and session.tracked == wanted:
            begin_session(self)
            return
        super().init_connection_state()
        if session is not None:
            session.tracked = wanted

    def is_usable(self) -> bool:
        """As ever, and False where there is no connection."""
        return self.connection is not None and bool(super().is_usable())

    def disable_constraint_checking(self) -> Any:
        """As ever; nobody else gets the connection before they are enabled again."""
        if self._session is not None:
            self._session.is_altered = True
        return super().disable_constraint_checking()

    def enable_constraint_checking(self) -> None:
        """As ever."""
        super().enable_constraint_checking()
        if self._session is not None:
            self._session.is_altered = False


class DatabaseCreation(PooledCreation, creation.DatabaseCreation):
    """Django's, which closes the pool's idle connections first."""


class DatabaseWrapper(PooledMySQL, base.DatabaseWrapper):
    """Django's, on a pool."""

    creation_class = DatabaseCreation
