"""GeoDjango on PostgreSQL: `ENGINE = "geventpool.django.postgis"`."""

from __future__ import annotations

from django.contrib.gis.db.backends.postgis import base

from ..postgresql.base import DatabaseCreation, PooledPostgreSQL


class DatabaseWrapper(PooledPostgreSQL, base.DatabaseWrapper):
    """GeoDjango's, on a pool."""

    creation_class = DatabaseCreation

    def prepare_database(self) -> None:
        """As ever; connections from before the extension was created do not know its types."""
        super().prepare_database()
        if self._pool is not None:
            self._pool.core.expire_all()
