"""What `DATABASES[alias]["POOL"]` may say: our settings, a profile's name, the ancestor's names."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from geventpool.config import SETTINGS, make_config
from geventpool.errors import ConfigError
from geventpool.profiles import PROFILES as OURS
from geventpool.setting import NOT_GIVEN

from .errors import PoolImproperlyConfigured

PROFILES: Final[Mapping[str, Mapping[str, Any]]] = {
    "slow_and_safe": {
        "pool_size": 5,
        "max_overflow": 0,
        "timeout": 30,
        "recycle": 120,
        "django_pre_ping": True,
        "reset_on_return": "rollback",
    },
    "fast_and_sane": {
        "pool_size": 5,
        "max_overflow": 10,
        "timeout": 30,
        "recycle": 3600,
        "django_reset_on_return": True,
    },
    "fast_and_wild": {
        "django_core_pool_size": 5,
        "django_unload_timeout": 2,
        "django_retire_interval": 5,
        "django_retire_quantity": 1,
        "pool_size": 30,
        "max_overflow": 0,
        "timeout": 30,
        "recycle": 3600,
        "django_reset_on_return": True,
    },
}
"""Of django-db-conn-pool; those of `geventpool.PROFILES` can be named as well."""

KNOBS: Final = {
    "django_core_pool_size": "core_size",
    "django_unload_timeout": "unload_timeout",
    "django_retire_interval": "retire_interval",
    "django_retire_quantity": "retire_quantity",
}
"""The ancestor's name of a setting, and ours."""

_OTHERS: Final = (
    "django_pre_ping",
    "django_reset_on_return",
    "dialect",
    "observe",
    "use_threadlocal",
)


@dataclass(frozen=True)
class PoolSettings:
    """The settings of an alias, read.

    Attributes:
        given: what `geventpool.ConnectionPool` is to be given.
        pings: a connection is pinged by Django's own means before it is used.
        is_dynamic: there are functions among them, so that they are read again at each use.
        observe: whether the pool is observed, or how: settings of `geventpool.observe.attach`.
    """

    given: Mapping[str, Any]
    pings: bool
    is_dynamic: bool
    observe: bool | Mapping[str, Any] = False


def read(alias: str, settings_dict: Mapping[str, Any]) -> PoolSettings:
    """Reads the settings of one alias.

    Args:
        alias: for messages.
        settings_dict: `DATABASES[alias]`.

    Raises:
        PoolImproperlyConfigured: one cannot be used.
    """
    if settings_dict.get("OPTIONS", {}).get("pool"):
        raise PoolImproperlyConfigured(
            f"DATABASES[{alias!r}]['OPTIONS']['pool']",
            settings_dict["OPTIONS"]["pool"],
            "this ENGINE has a pool of its own: remove the option, and say what you want of it in "
            f"DATABASES[{alias!r}]['POOL']",
        )
    given = settings_dict.get("POOL")
    where = f"DATABASES[{alias!r}]['POOL']"
    if given is None or given is True:
        given = {}
    elif isinstance(given, str):
        given = {"profile": given}
    if not isinstance(given, Mapping):
        raise PoolImproperlyConfigured(where, given, "give a dict of settings, or a profile's name")
    try:
        return _read(dict(given))
    except ConfigError as error:
        name = f"{where}[{error.argument!r}]"
        raise PoolImproperlyConfigured(name, error.value, error.cure) from None


def _read(given: dict[str, Any]) -> PoolSettings:
    given = _with_profile(given)
    is_dynamic = False
    for name, value in given.items():
        known = SETTINGS.get(KNOBS.get(name, name))
        if callable(value) and not (known and known.may_be_called):
            is_dynamic = True
            given[name] = value()
    _refuse_unknown(given)
    _drop_what_has_no_meaning(given)
    pings = _flag(given, "django_pre_ping", False)
    observe = _observe(given)
    _translate_reset(given)
    for theirs, ours in KNOBS.items():
        if theirs in given:
            if ours in given:
                raise ConfigError(
                    theirs, given[theirs], f"says the same as {ours}; give one of them"
                )
            given[ours] = given.pop(theirs)
            given.setdefault(
                "sizing", "fixed"
            )  # what idles beyond the core goes at their pace alone
    make_config(**given)
    return PoolSettings(given, pings, is_dynamic, observe)


def _with_profile(given: dict[str, Any]) -> dict[str, Any]:
    """What was given, on top of one of Django's profiles; ours are known to `make_config`."""
    profile = given.get("profile")
    if profile is None or profile in OURS:
        return given
    if profile not in PROFILES:
        known = [*PROFILES, *OURS]
        nearest = difflib.get_close_matches(str(profile), known, 1)
        hint = f"; did you mean {nearest[0]}?" if nearest else ""
        raise ConfigError("profile", profile, f"give one of {', '.join(known)}{hint}")
    rest = {name: value for name, value in given.items() if name != "profile"}
    chosen = dict(PROFILES[profile])
    if "max_size" in rest:
        del chosen["pool_size"], chosen["max_overflow"]
    if "reset_on_return" in rest:
        chosen.pop("django_reset_on_return", None)
    for theirs, ours in KNOBS.items():
        if ours in rest:
            chosen.pop(theirs, None)
    return {**chosen, **rest}


def _refuse_unknown(given: Mapping[str, Any]) -> None:
    known = {*SETTINGS, "django_pool_class", *KNOBS, *_OTHERS}
    for name in given.keys() - known:
        nearest = difflib.get_close_matches(str(name), sorted(known), 1)
        hint = f"; did you mean {nearest[0]}?" if nearest else ""
        raise ConfigError(name, given[name], f"there is no such setting{hint}")


def _drop_what_has_no_meaning(given: dict[str, Any]) -> None:
    """Parameters that SQLAlchemy's pool needed: what they asked for is so here, or cannot be."""
    # A greenlet's wrapper keeps its connection until it closes it: that is what True asked for.
    _flag(given, "use_threadlocal", False)
    dialect = given.pop("dialect", None)
    if dialect is not None:
        raise ConfigError(
            "dialect", dialect, "leave it out: pre_ping and django_pre_ping work without one"
        )
    if "django_pool_class" in given:
        raise ConfigError(
            "django_pool_class",
            given["django_pool_class"],
            "leave it out: the ENGINE has its pool, and django_core_pool_size and its like work with it",
        )


def _translate_reset(given: dict[str, Any]) -> None:
    """`django_reset_on_return` rolls back when necessary, SQLAlchemy's setting always (or never)."""
    by_django = _flag(given, "django_reset_on_return", None)
    if by_django is not None and given.get("reset_on_return") is None:
        never = "reset_on_return" in given
        given["reset_on_return"] = "smart" if by_django else None if never else "rollback"


def _observe(given: dict[str, Any]) -> bool | Mapping[str, Any]:
    """Whether, and how."""
    value = given.pop("observe", None)
    if not value:
        return False
    if value is not True and not isinstance(value, Mapping):
        raise ConfigError("observe", value, "give True, False or a dict of settings of attach()")
    from geventpool.observe.fingerprint import Fingerprinter
    from geventpool.observe.settings import Settings

    chosen: Mapping[str, Any] = {} if value is True else value
    known = {*Settings.__dataclass_fields__, "publish"}
    for name in chosen.keys() - known:
        raise ConfigError("observe", value, f"{name!r} is none of its settings, {sorted(known)}")
    settings = Settings(**{name: one for name, one in chosen.items() if name != "publish"})
    if settings.queries and not settings.figures_only:
        Fingerprinter("")  # which says what is missing
    return value


def _flag(given: dict[str, Any], name: str, default: Any) -> Any:
    value = given.pop(name, NOT_GIVEN)
    if value is NOT_GIVEN:
        return default
    if value is None:
        return False
    if not isinstance(value, bool):
        raise ConfigError(name, value, "give True or False")
    return value
