"""Which fleet a pool's settings mean."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from ..core.clock import HubClock
from ..core.pool import ResourcePool
from ..errors import ConfigError
from .host import HostFleet, directory_of_host, folder_of, make_private
from .member import Member


def join_as_configured(core: ResourcePool) -> None:
    """Makes a pool a member of its fleet, from its first connection on. Never switches.

    Not a pool of SQLite's, which has no server, nor one whose time is not that of other processes.

    Raises:
        ConfigError: the directory cannot be used, or there is no size.
    """
    fleet = core.config.fleet
    is_real = isinstance(core.clock, HubClock)
    if fleet is None or not is_real or core.handlers.target() is None:
        return
    if core.config.fleet_size is None:
        cure = "give how many connections all processes of the fleet may have together"
        raise ConfigError("fleet_size", None, cure)
    directory = directory_of_host() if fleet == "host" else Path(fleet)
    make_private(directory)
    core.limit_by(Member(core, partial(HostFleet, directory / folder_of(name_of(core)))))


def name_of(core: ResourcePool) -> str:
    """Pools of one name are one fleet: by default those with one database, host, port and user.

    Where a program connects by a function of its own, that cannot be seen: then the pool's name counts.
    """
    return core.config.fleet_name or " ".join(map(str, core.handlers.target() or (core.name,)))
