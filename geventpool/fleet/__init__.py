"""One budget of connections for many processes: docs/fleet.md."""

from __future__ import annotations

from typing import Any


def join(core: Any) -> None:
    """Makes a pool a member of the fleet that its settings name, if they do. Never switches, never connects.

    Args:
        core: a new `ResourcePool`.

    Raises:
        ConfigError: the fleet cannot be used.
    """
    if core.config.fleet is not None:
        from .joining import join_as_configured

        join_as_configured(core)
