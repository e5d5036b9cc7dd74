"""Feeds a pool's returns to the controller of its cap, and has the pool keep to what that says."""

from __future__ import annotations

import logging
import math
from weakref import ref

import gevent

from ..core.entry import Entry
from ..core.listener import Listener
from ..core.pool import ResourcePool
from ..sizing.cap import CapController, Decision

log = logging.getLogger("geventpool")


class CapFollower(Listener):
    """Listens to one pool as long as its settings say `auto_cap`.

    Args:
        core: the pool; not kept alive.
    """

    def __init__(self, core: ResourcePool) -> None:
        self._core = ref(core)
        self.controller = CapController(_bound_of(core))

    def returned(self, entry: Entry, held: float) -> None:
        """The one thing that a decision rests on. Never switches."""
        core = self._core()
        if core is not None and core.config.auto_cap:
            now, in_use = core.clock.now(), core.ledger.in_use
            self._told(core, self.controller.returned(now, held, in_use, core.line.length))

    def ring_found(self) -> None:
        """One more, before anybody is refused. Never switches."""
        core = self._core()
        if core is not None and core.config.auto_cap:
            self._told(core, self.controller.found_ring(core.clock.now()))

    def configured(self, core: ResourcePool) -> None:
        """The settings may be other ones. Never switches."""
        if self.controller.bound != _bound_of(core):
            self.controller = CapController(_bound_of(core), self.controller.point)
        core.find(self.controller.cap)

    def _told(self, core: ResourcePool, decision: Decision | None) -> None:
        if core.ledger.cap.found != self.controller.cap:
            core.find(self.controller.cap)
        if decision is not None:
            gevent.spawn_raw(log.info, "%r: %s", core, decision)


def follow(core: ResourcePool) -> None:
    """Does what the settings say of a pool that is new, or has new ones. Never switches."""
    follower = _follower_of(core)
    if core.config.auto_cap:
        if follower is None:
            follower = CapFollower(core)
            core.add_listener(follower)
        follower.configured(core)
    elif follower is not None:
        core.remove_listener(follower)
        core.find(math.inf)


def decision_of(core: ResourcePool) -> Decision | None:
    """The last one about a pool's cap; `None`: there was none. Never switches."""
    follower = _follower_of(core)
    return None if follower is None else follower.controller.last


def _follower_of(core: ResourcePool) -> CapFollower | None:
    return next((one for one in core.listeners if isinstance(one, CapFollower)), None)


def _bound_of(core: ResourcePool) -> int:
    return int(min(core.config.max_size, 1_000_000))
