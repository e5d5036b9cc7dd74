"""Which fleet a pool's settings mean."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from ..core.clock import HubClock
from ..core.pool import ResourcePool
from .host import HostFleet, directory_of_host, folder_of, make_private
from .member import Member


def join_as_configured(core: ResourcePool) -> None:
    """Makes a pool a member of its fleet, from its first connection on. Never switches.

    Not a pool of SQLite's, which has no server, nor one whose time is not that of other processes.

    Raises:
        ConfigError: the directory cannot be used.
    """
    config, target = core.config, core.handlers.target()
    if config.fleet is None or target is None or not isinstance(core.clock, HubClock):
        return
    directory = directory_of_host() if config.fleet == "host" else Path(config.fleet)
    make_private(directory)
    name = config.fleet_name or " ".join(map(str, target)) or core.name
    core.limit_by(Member(core, partial(HostFleet, directory / folder_of(name))))
