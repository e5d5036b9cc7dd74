"""GeoDjango on MySQL and MariaDB: `ENGINE = "geventpool.django.mysql_gis"`."""

from __future__ import annotations

from django.contrib.gis.db.backends.mysql import base

from ..mysql.base import DatabaseCreation, PooledMySQL


class DatabaseWrapper(PooledMySQL, base.DatabaseWrapper):
    """GeoDjango's, on a pool."""

    creation_class = DatabaseCreation
