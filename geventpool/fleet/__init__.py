"""One budget of connections for many processes: docs/fleet.md."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..core.pool import ResourcePool


def join(core: ResourcePool) -> None:
    """Makes a pool a member of the fleet that its settings name, if any. Never switches or connects.

    Args:
        core: a new pool.

    Raises:
        ConfigError: the fleet cannot be used.
    """
    if core.config.fleet is not None:
        from .joining import join_as_configured

        join_as_configured(core)
