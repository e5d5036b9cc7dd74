"""The two ways to a pool without naming its class: `wrap(engine)` and the URL."""

from __future__ import annotations

import logging
from typing import Any, cast

from sqlalchemy import URL, CreateEnginePlugin, Engine
from sqlalchemy.pool import Pool, QueuePool
from sqlalchemy.pool.base import reset_rollback
from sqlalchemy.util import get_cls_kwargs

from ..config import SETTINGS, change, make_config, without_not_given
from ..errors import ConfigError
from .memory import why_kept
from .pool import GeventPool

log = logging.getLogger("geventpool")

_PREFIX = "geventpool_"


def wrap(engine: Engine, **settings: Any) -> Engine:
    """Gives an engine that exists a `GeventPool` in place of its pool.

    The cap, timeout, recycle, pre-ping and listeners of the pool before are kept, unless a setting, or
    what the profile sets, says otherwise. Its idle connections are closed. An engine that has a
    `GeventPool` is only configured.

    Args:
        engine: the engine; returned for convenience.
        **settings: as for `GeventPool`.

    Raises:
        ConfigError: a setting cannot be used, or the engine cannot be pooled.
    """
    old = getattr(engine, "pool", None)
    if not isinstance(engine, Engine) or not isinstance(old, Pool):
        raise ConfigError("engine", engine, "give an Engine made by sqlalchemy.create_engine")
    if isinstance(old, GeventPool):
        if settings:
            old.configure(**settings)
        return engine
    if old._is_asyncio:
        raise ConfigError("engine", engine, "an asyncio engine cannot use gevent")
    kept = why_kept(old)
    if kept is not None:
        raise ConfigError("engine", engine, kept)
    make_config(**settings)  # also refuses what is no setting
    engine.pool = _like(old, settings)
    old.dispose()
    return engine


def _like(old: Pool, settings: dict[str, Any]) -> GeventPool:
    """A pool of ours with the settings and listeners of another, unless `settings` say otherwise."""
    before = {
        "timeout": getattr(old, "_timeout", 30.0),
        "recycle": old._recycle,
        "pre_ping": old._pre_ping,
        **_style_of(old),
    }
    queue: Any = getattr(old, "_pool", None)
    overflow = getattr(old, "_max_overflow", None)
    if hasattr(queue, "maxsize") and overflow is not None:
        before |= {"pool_size": queue.maxsize, "max_overflow": overflow}
    given = change(before, without_not_given(settings))
    return GeventPool(
        old._creator,
        **{**given, "profile": settings.get("profile")},
        echo=old.echo,
        logging_name=old._orig_logging_name,
        dialect=old._dialect,
        _dispatch=old.dispatch,
    )


def _style_of(pool: Pool) -> dict[str, Any]:
    """What a pool does on return, if that is not the default."""
    style = pool._reset_on_return
    return {} if style is reset_rollback else {"reset_on_return": style}


class GeventPoolPlugin(CreateEnginePlugin):
    """`?plugin=geventpool` in a URL: settings as `geventpool_…=…`. What code says wins.

    That holds for the pool, too: where code names another class (Alembic's env.py, Celery's database
    backend, tests), that class is made as if the URL did not name us.
    """

    def __init__(self, url: URL, kwargs: dict[str, Any]) -> None:
        self._keys = [key for key in url.query if key.startswith(_PREFIX)]
        self._settings = {
            key[len(_PREFIX) :]: _parse(key, cast(str, url.query[key])) for key in self._keys
        }
        winner = _said_instead(kwargs)
        if winner is None:
            kwargs.pop("pool", None)
            kwargs["poolclass"] = kwargs.get("poolclass") or GeventPool
            return
        make_config(**self._settings)  # wrong ones are told whoever wins
        log.info("plugin=geventpool in the URL gives way to %s, which code says", winner)
        known = get_cls_kwargs(kwargs.get("poolclass") or QueuePool)
        for name in get_cls_kwargs(GeventPool) - get_cls_kwargs(QueuePool) - known:
            kwargs.pop(name, None)

    def update_url(self, url: URL) -> URL:
        """The URL without our settings, for the driver."""
        return url.difference_update_query(self._keys)

    def handle_pool_kwargs(self, pool_cls: type[Pool], pool_args: dict[str, Any]) -> None:
        """Adds what the URL says to what code says."""
        if not issubclass(pool_cls, GeventPool):
            return
        if pool_args.keys() & {"pool_size", "max_overflow", "max_size"}:
            for key in ("pool_size", "max_overflow", "max_size"):
                self._settings.pop(key, None)
        pool_args.update({**self._settings, **pool_args})


def _said_instead(kwargs: dict[str, Any]) -> str | None:
    """The pool that code says, if it is not one of ours: for the log."""
    if kwargs.get("pool") is not None:
        return f"pool={kwargs['pool']!r}"
    kind = kwargs.get("poolclass")
    if kind is None or (isinstance(kind, type) and issubclass(kind, GeventPool)):
        return None
    return f"poolclass={getattr(kind, '__name__', kind)}"


def _parse(key: str, text: str) -> Any:
    """One setting of a URL.

    Raises:
        ConfigError: there is no such setting, or it cannot be read.
    """
    name = key[len(_PREFIX) :]
    kind = SETTINGS[name].kind if name in SETTINGS else None
    if kind is None or kind.parse is None:
        known = ", ".join(_PREFIX + one for one in sorted(SETTINGS) if SETTINGS[one].kind.parse)
        raise ConfigError(key, text, f"there is no such option of the URL; give one of {known}")
    try:
        return kind.parse(text)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ConfigError(key, text, f"give {kind.wanted}") from None
