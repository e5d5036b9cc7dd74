"""geventpool: the database connection pool for monkey-patched servers."""

from __future__ import annotations

from .autocap import follow
from .config import PoolConfig
from .core.registry import for_each, pools
from .core.stats import PoolStats
from .errors import (
    BlockingDriverWarning,
    ConfigError,
    ConnectTimeout,
    GeventPoolError,
    PoolClosed,
    PoolDeadlock,
    PoolOverloaded,
    PoolTimeout,
)
from .fleet import join
from .pool import ConnectionPool, PooledConnection
from .profiles import PROFILES

for_each(join)
for_each(follow)

__version__ = "0.1.0"

__all__ = [
    "PROFILES",
    "BlockingDriverWarning",
    "ConfigError",
    "ConnectTimeout",
    "ConnectionPool",
    "GeventPoolError",
    "PoolClosed",
    "PoolConfig",
    "PoolDeadlock",
    "PoolOverloaded",
    "PoolStats",
    "PoolTimeout",
    "PooledConnection",
    "pools",
]
