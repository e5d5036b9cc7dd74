"""One pool for each alias and process."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from django.db import connections

from geventpool.errors import ConfigError

from . import settings as pool_settings
from .alias_pool import AliasPool, followers
from .settings import PoolSettings

if TYPE_CHECKING:
    from geventpool.observe.observer import Observer
    from geventpool.observe.settings import Settings

Key = tuple[Any, ...]

_pools: dict[Key, AliasPool] = {}


def pool_of(wrapper: Any) -> AliasPool:
    """The pool that a wrapper borrows from; it is made if there is none yet. Never switches.

    Raises:
        PoolImproperlyConfigured: its settings cannot be used.
    """
    given = wrapper.settings_dict
    options = given["OPTIONS"]
    key = (
        wrapper.alias,
        given["NAME"],
        given["USER"],
        given["PASSWORD"],
        given["HOST"],
        given["PORT"],
        repr(options) if options else "",
        type(wrapper),
    )
    found = _pools.get(key)
    if found is None:
        settings = pool_settings.read(wrapper.alias, given)
        found = AliasPool(wrapper.alias, settings, wrapper.copy(), database_of(given))
        _have_observed(found, settings)
        _pools[key] = found
    elif found.is_dynamic:
        found.refresh(given)
    return found


def _have_observed(pool: AliasPool, settings: PoolSettings) -> None:
    follow = followers.get(pool.alias)
    if follow is not None:
        follow(pool)
    elif settings.observe:
        from .observing import attach_as_given

        attach_as_given(pool, settings.observe)


def pools() -> list[AliasPool]:
    """The pools that this process has used so far."""
    return list(_pools.values())


def pool(alias: str = "default") -> AliasPool:
    """The pool of an alias, as its settings are now. Never switches, never connects.

    Raises:
        ConfigError: the alias has no pool.
    """
    wrapper = connections[alias]
    if not hasattr(wrapper, "open_connection"):
        raise ConfigError("alias", alias, "its ENGINE has no geventpool; give it one of ours")
    return pool_of(wrapper)


def observe(alias: str, settings: Settings) -> Observer:
    """Watches the pool of an alias, also when it gets another one, as for a test database. Never switches.

    Args:
        alias: its name in `DATABASES`.
        settings: what is watched.

    Raises:
        ConfigError: the alias has no pool, or it is watched already.
    """
    from .observing import attach

    if alias not in connections.settings:
        known = ", ".join(connections.settings)
        raise ConfigError(
            "target", alias, f"there is no such alias in DATABASES; give one of {known}"
        )
    return attach(pool(alias), settings)


def database_of(given: Mapping[str, Any], name: str | None = None) -> tuple[Any, ...]:
    """By which pools to one database are recognised, whatever their alias."""
    return given["HOST"], str(given["PORT"]), given["NAME"] if name is None else name


def disconnect(database: tuple[Any, ...], forget: bool = False) -> None:
    """Closes the idle connections to a database, of all aliases. May switch greenlets.

    Args:
        database: by `database_of`.
        forget: the database goes away, and its pools with it.
    """
    for key, found in list(_pools.items()):
        if found.database == database:
            if forget:
                del _pools[key]
            found.disconnect()
