"""Django's aliases, observed: `geventpool.observe.attach("default")`, or `POOL: {"observe": True}`."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import partial
from typing import Any

from django.db import connections

from geventpool.errors import ConfigError
from geventpool.observe.observer import Observer, Settings
from geventpool.observe.watcher import watcher_of

from . import registry
from .registry import AliasPool

log = logging.getLogger("geventpool.django")


def attach(alias: str, settings: Settings) -> Observer:
    """Watches the pool of an alias, also when it gets another one, as for a test database. Never switches.

    Args:
        alias: its name in `DATABASES`.
        settings: what is watched.

    Raises:
        ConfigError: the alias has no pool, or it is watched already.
    """
    if alias not in connections.settings:
        known = ", ".join(connections.settings)
        raise ConfigError(
            "target", alias, f"there is no such alias in DATABASES; give one of {known}"
        )
    pool = registry.pool(alias)
    if alias in registry.followers or watcher_of(pool.core) is not None:
        raise ConfigError("target", alias, "it is watched already; detach() that observer first")
    return _watch(pool, settings)


def attach_as_given(pool: AliasPool, given: bool | Mapping[str, Any]) -> None:
    """Watches a new pool whose settings say `"observe"`, and publishes what it learns. Never switches."""
    from geventpool.observe import files

    chosen = dict(given) if isinstance(given, Mapping) else {}
    publishes = chosen.pop("publish", True)
    _watch(pool, Settings(**chosen))
    if publishes and files.publisher() is None:
        try:
            files.publish(None if publishes is True else publishes)
        except (
            ConfigError
        ) as error:  # a program is not to stand still because nobody can look at it
            log.warning("%r is observed, but nothing is published: %s", pool, error)


def _watch(pool: AliasPool, settings: Settings) -> Observer:
    logger = logging.getLogger("geventpool.pool")
    observer = Observer(pool.core, settings, pool.opener.vendor, logger)
    registry.followers[pool.alias] = partial(_follow, observer)
    observer.on_detach(partial(registry.followers.pop, pool.alias, None))
    return observer


def _follow(observer: Observer, pool: AliasPool) -> None:
    """The alias has got another pool."""
    observer.watch(pool.core)
