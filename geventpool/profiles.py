"""Settings by the kind of program: the named profiles."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from .errors import ConfigError

PROFILES: Final[Mapping[str, Mapping[str, Any]]] = {
    "default": {
        "pool_size": 10,
        "max_overflow": 5,
        "timeout": 30,
        "recycle": 1800,
        "pre_ping": True,
    },
    "development": {"pool_size": 5, "max_overflow": 0, "recycle": 3600, "echo": True},
    "testing": {"pool_size": 1, "max_overflow": 0, "recycle": 3600},
    "staging": {"pool_size": 15, "max_overflow": 10, "recycle": 1800, "pre_ping": True},
    "production": {
        "pool_size": 50,
        "max_overflow": 25,
        "timeout": 60,
        "recycle": 1800,
        "pre_ping": True,
    },
    "vps_lite": {
        "pool_size": 20,
        "max_overflow": 10,
        "timeout": 30,
        "recycle": 1800,
        "pre_ping": True,
    },
    "raspberry_pi": {"pool_size": 2, "max_overflow": 1, "recycle": 3600},
    "high_traffic": {
        "pool_size": 100,
        "max_overflow": 50,
        "timeout": 10,
        "recycle": 1800,
        "pre_ping": True,
    },
    "background_jobs": {
        "pool_size": 20,
        "max_overflow": 0,
        "timeout": 300,
        "recycle": 3600,
        "pre_ping": True,
    },
    "microservice": {
        "pool_size": 10,
        "max_overflow": 5,
        "timeout": 5,
        "recycle": 1800,
        "pre_ping": True,
    },
}
"""Settings by the kind of program, as `profile=` takes them; anything given beside a profile wins."""


def profile_settings(profile: str) -> Mapping[str, Any]:
    """The settings of a profile.

    Raises:
        ConfigError: there is none of that name.
    """
    try:
        return PROFILES[profile]
    except (KeyError, TypeError):
        raise ConfigError("profile", profile, f"give one of {', '.join(PROFILES)}") from None
