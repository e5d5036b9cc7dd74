"""SQLAlchemy's engines and raw pools as targets: of a URL, of an application, of a process."""

from __future__ import annotations

import gc
from collections.abc import Mapping
from typing import Any

from sqlalchemy import create_engine
from sqlalchemy.engine import URL, Engine, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError
from sqlalchemy.pool import NullPool, QueuePool

from ...config import PoolConfig, make_config
from ...drivers import is_known
from ...errors import ConfigError, without_passwords
from ...pool import ConnectionPool
from ...sqlalchemy import GeventPool
from ..case import Target


def engine_of(url: str) -> Engine:
    """The engine of a URL; its pool is ours, unless the URL says another one.

    Raises:
        ConfigError: there is no such dialect or driver, or it is no URL.
    """
    try:
        parsed = make_url(url)
        if parsed.query.get("plugin"):
            return create_engine(parsed)
        return create_engine(parsed, poolclass=GeventPool)
    except ConfigError:
        raise
    except (ArgumentError, NoSuchModuleError, ImportError, ValueError) as error:
        cure = f"{type(error).__name__}: {without_passwords(str(error))}"
        shown = without_passwords(url) if "://" in url else "…"
        raise ConfigError(
            "url", shown, f"{cure}; give dialect+driver://user@host/database"
        ) from None


def target_of(engine: Engine, name: str | None = None) -> Target:
    """An engine as a target."""
    url, pool = engine.url, engine.pool
    config, is_ours = _config_of(pool)
    address = (url.host or "", str(url.port or ""), url.database or "")
    return Target(
        name=name or _name(url),
        driver=name_of(engine.dialect.dbapi),
        address=address,
        connect=lambda: pool._invoke_creator(None),  # type: ignore[arg-type]
        pool=type(pool).__name__,
        is_ours=is_ours,
        config=config,
        secrets=_secrets(url),
    )


def _config_of(pool: Any) -> tuple[PoolConfig | None, bool]:
    if isinstance(pool, GeventPool):
        return pool.config, True
    if not isinstance(pool, QueuePool):
        return None, False
    try:
        like = make_config(
            pool_size=pool._pool.maxsize,
            max_overflow=pool._max_overflow,
            timeout=pool._timeout,
            recycle=pool._recycle,
            pre_ping=pool._pre_ping,
        )
    except ConfigError:
        return None, False
    return like, False


def _name(url: URL) -> str:
    host = f"{url.host or ''}{f':{url.port}' if url.port else ''}"
    return f"{host}/{url.database or ''}" if host else str(url.database or ":memory:")


def _secrets(url: URL) -> tuple[str, ...]:
    return (str(url.password),) if url.password else ()


def engines_in_process() -> list[Target]:
    """All engines and raw pools that this process has, whoever keeps them. Never switches."""
    found: list[Target] = []
    for one in gc.get_objects():
        kind = type(one)  # an instance check would ask proxies, which may do anything
        if issubclass(kind, Engine) and not issubclass(type(one.pool), NullPool):
            found.append(target_of(one))
        elif issubclass(kind, ConnectionPool):
            found.append(_raw_target(one))
    return found


def _raw_target(pool: ConnectionPool) -> Target:
    """A pool without SQLAlchemy; where it connects to is known to its creator only."""
    return Target(
        name=pool.core.name,
        driver="",
        address=(pool.core.name, "", ""),
        connect=pool._connect,
        pool=type(pool).__name__,
        is_ours=True,
        config=pool.config,
    )


def name_of(dbapi: Any) -> str:
    """A DBAPI's name; of one that is known, without its submodule, as of `sqlite3.dbapi2`."""
    name: str = getattr(dbapi, "__name__", "")
    while is_known(whole := name.rpartition(".")[0]):
        name = whole
    return name


def of_flask(app: Any) -> list[Target]:
    """The engines of an application's binds; empty: it has no Flask-SQLAlchemy."""
    with app.app_context():
        database = app.extensions.get("sqlalchemy")
        engines: Mapping[str | None, Engine] = {} if database is None else database.engines
        return [target_of(engine, key or "default") for key, engine in engines.items()]
