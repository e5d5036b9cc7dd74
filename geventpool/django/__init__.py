"""The Django door: pooled backends for MySQL, MariaDB and PostgreSQL.

::

    DATABASES = {
        "default": {
            "ENGINE": "geventpool.django.postgresql",   # or .mysql, .postgis, .mysql_gis
            "NAME": "shop",
            ...
            "POOL": {"max_size": 20},                   # not needed
        }
    }
    INSTALLED_APPS = [..., "geventpool.django"]         # system checks, `manage.py geventpool`
"""

from __future__ import annotations

from .alias_pool import AliasPool
from .plans import add_prepare_target
from .registry import pool, pools

__all__ = ["AliasPool", "add_prepare_target", "pool", "pools"]
