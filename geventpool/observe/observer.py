"""What watches one pool: a listener of its core, and what it has learnt."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable

from ..core.pool import ResourcePool
from ..core.registry import at_fork
from .findings import Findings
from .holds import Holder, longest_held
from .settings import Settings
from .watcher import FiguresListener, Watcher


class Observer(Findings):
    """What is known of one pool that is watched. `detach()` ends it.

    Attributes:
                watcher: the listener of the pool's core.
    """

    def __init__(
        self, core: ResourcePool, settings: Settings, database: str | None, log: logging.Logger
    ) -> None:
        super().__init__(core, settings, database, log)
        self._undo: list[Callable[[], object]] = []
        self._watchers: weakref.WeakSet[FiguresListener] = weakref.WeakSet()
        self.watcher: FiguresListener
        self.watch(core)
        _observers.add(self)

    def watch(self, core: ResourcePool) -> None:
        """Watches this pool from now on; with an engine that was disposed of, it is another one."""
        kind = FiguresListener if self.settings.figures_only else Watcher
        self.core, self.name = core, core.name
        self.watcher = kind(self, core)
        self._watchers.add(self.watcher)
        core.add_listener(self.watcher)

    def on_detach(self, undo: Callable[[], object]) -> None:
        """Has something undone by `detach`."""
        self._undo.append(undo)

    def detach(self) -> None:
        """Watches no longer. What was learnt stays readable. Never switches greenlets."""
        self.is_attached = False
        for watcher in list(self._watchers):  # of pools that were disposed of, too
            watcher.core.remove_listener(watcher)
            watcher.stop()
        while self._undo:
            self._undo.pop()()

    def holders(self, limit: int = 20) -> list[Holder]:
        """Who holds connections now, for longest first. Never switches greenlets."""
        found = [holder for watcher in list(self._watchers) for holder in watcher.holders(limit)]
        return longest_held(found, limit)

    def begin_again_after_fork(self) -> None:
        """The child's part of a fork: what was learnt is the parent's. Never switches."""
        super().begin_again_after_fork()
        for watcher in list(self._watchers):
            watcher.begin_again_after_fork()


_observers: weakref.WeakSet[Observer] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for observer in list(_observers):
        observer.begin_again_after_fork()


at_fork(_after_fork_in_child)
