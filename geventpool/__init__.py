"""geventpool: the database connection pool for monkey-patched servers."""

from __future__ import annotations

from .config import PROFILES, PoolConfig
from .core.registry import pools
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
from .pool import ConnectionPool, PooledConnection

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
