"""GeventPool for SQLAlchemy 1.4, 2.0 and 2.1: a drop-in for `QueuePool`.

    engine = create_engine("mysql+pymysql://shop@127.0.0.1/shop", poolclass=GeventPool)

or by the URL alone: `mysql+pymysql://…/shop?plugin=geventpool&geventpool_profile=production`; or for an
engine that exists: `geventpool.sqlalchemy.wrap(engine)`. `prepare(engine, statement)` has a statement
planned once for each connection.
"""

from __future__ import annotations

from . import compat  # noqa: F401 # first, because it refuses versions that are too old
from .engine import GeventPoolPlugin, wrap
from .errors import GeventPoolTimeout
from .plans import prepare
from .pool import GeventPool

__all__ = ["GeventPool", "GeventPoolPlugin", "GeventPoolTimeout", "prepare", "wrap"]
