"""Seeing what happens: who holds what since when, which queries are slow, why callers wait.

    import geventpool.observe

    observer = geventpool.observe.attach(engine)        # or a ConnectionPool
    print(geventpool.observe.report())

With nothing attached, a pool pays one look at an attribute. docs/observe.md tells the rest.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, cast

from ..errors import ConfigError
from ..pool import ConnectionPool
from .files import Publisher, publish, read_snapshots
from .hub import HubWatch, watch_hub
from .observer import Observer
from .settings import Settings
from .snapshot import snapshot
from .watcher import watcher_of

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine

__all__ = [
    "HubWatch",
    "Observer",
    "Publisher",
    "Settings",
    "attach",
    "make_settings",
    "publish",
    "read_snapshots",
    "report",
    "snapshot",
    "watch_hub",
]


def attach(target: Engine | ConnectionPool | str, **settings: Any) -> Observer:
    """Watches a pool from now on. Never switches greenlets.

    Args:
        target: an engine on a `GeventPool`, a `ConnectionPool`, or an alias of Django's.
        **settings: see `Settings`; `figures_only=True` is the cheapest.

    Returns:
        What is learnt; `detach()` ends it.

    Raises:
        ConfigError: a setting cannot be used, the target is no pool of ours, or it is watched already.
    """
    chosen = make_settings(**settings)
    if isinstance(target, str) and "://" not in target and "=" not in target:  # no URL by mistake
        from ..django import registry

        return registry.observe(target, chosen)
    if isinstance(target, ConnectionPool):
        _refuse_second(target.core)
        return Observer(target.core, chosen, None, logging.getLogger("geventpool.pool"))
    from . import engine

    _refuse_second(engine.pool_of(target).core)  # which refuses what is no engine
    return engine.attach(cast("Engine", target), chosen)


def make_settings(**settings: Any) -> Settings:
    """The settings that `attach` is given.

    Raises:
        ConfigError: there is no such setting, or it cannot be used.
    """
    known = Settings.__dataclass_fields__
    for name in settings.keys() - known.keys():
        raise ConfigError(
            name, settings[name], f"there is no such setting; give {', '.join(known)}"
        )
    return Settings(**settings)


def report() -> str:
    """What happens in this process's pools, as text. Never switches greenlets."""
    from .text import tell

    return tell([snapshot()])


def _refuse_second(core: Any) -> None:
    if watcher_of(core) is not None:
        raise ConfigError("target", core, "it is watched already; detach() that observer first")
