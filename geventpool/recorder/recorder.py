"""Listens to pools and keeps their journals."""

from __future__ import annotations

import time
import weakref
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from ..core import registry
from ..core.entry import Entry
from ..core.listener import Listener
from ..core.pool import ResourcePool
from ..errors import ConfigError
from .journal import Journal, check, close_ended, close_when_gone

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine

MAX_BYTES = 16 * 1024 * 1024
FILES = 8

_KEY: Final = "geventpool.recorder"


def record(
    pool: Any,
    directory: str,
    *,
    name: str | None = None,
    max_bytes: int = MAX_BYTES,
    files: int = FILES,
) -> Recorder:
    """Records the load of a pool from now on. Never switches.

    Args:
        pool: a `ConnectionPool`, an `Engine`, or a pool of SQLAlchemy, of whatever class.
        directory: where the files are; made if it is not there.
        name: how the files' names begin; that of the pool by default.
        max_bytes: of one file, at most.
        files: how many are kept for each process; the oldest is removed for a new one. One row has
            about 28 bytes, so that the default is room for the last four million checkouts.

    Returns:
        What stops it.

    Raises:
        ConfigError: it is no pool, is recorded already, or the directory cannot be written to.
    """
    recorder = Recorder(directory, name=name, max_bytes=max_bytes, files=files)
    recorder.attach(pool)
    return recorder


class Recorder:
    """Keeps a journal for each pool that it listens to.

    Args:
        directory: see `record`.
        name: for all its pools; `None`: each pool's own.
        max_bytes: see `record`.
        files: see `record`.
    """

    def __init__(
        self,
        directory: str,
        *,
        name: str | None = None,
        max_bytes: int = MAX_BYTES,
        files: int = FILES,
    ) -> None:
        self._directory, self._name = directory, name
        self._bounds = max_bytes, files
        check(directory, *self._bounds)
        self._journals: weakref.WeakKeyDictionary[Any, Journal] = weakref.WeakKeyDictionary()
        self._names: Counter[str] = Counter()
        self._undo: list[Callable[[], object]] = []
        # Pools measure by a clock that nobody sets; the files tell the time of day.
        self._epoch = time.time() - time.monotonic()

    def attach(self, pool: Any) -> None:
        """Listens to one more pool; see `record`."""
        core = getattr(pool, "core", None)
        if isinstance(core, ResourcePool):
            if any(isinstance(one, _Returns) for one in core.listeners):
                raise ConfigError("pool", pool, "is recorded already: stop that first")
            self._attach(core)
            return
        from sqlalchemy.engine import Engine
        from sqlalchemy.pool import Pool

        if isinstance(pool, Engine):
            self.attach(pool.pool)
            self._listen(pool, "engine_disposed", self._follow)
        elif isinstance(pool, Pool):
            self._listen(pool, "checkout", self._checked_out)
            self._listen(pool, "checkin", self._checked_in)
        else:
            cure = "give a ConnectionPool, an Engine, or a pool of SQLAlchemy"
            raise ConfigError("pool", pool, cure)

    def attach_all(self) -> None:
        """Listens to every pool of ours in this process, also to those that are made later."""
        self._undo.append(registry.for_each(self._attach))

    def attach_all_of_sqlalchemy(self) -> None:
        """Listens to every pool of SQLAlchemy in this process, also to those that are made later."""
        from sqlalchemy.pool import Pool

        self._listen(Pool, "checkout", self._checked_out)
        self._listen(Pool, "checkin", self._checked_in)

    def stop(self) -> None:
        """Writes the last rows, and listens no more."""
        while self._undo:
            self._undo.pop()()
        close_ended()
        for journal in list(self._journals.values()):
            journal.close()

    def flush(self) -> None:
        """Writes what has gathered."""
        close_ended()
        for journal in list(self._journals.values()):
            journal.flush()

    def returned(self, pool: ResourcePool, entry: Entry, held: float) -> None:
        """A pool of ours tells of a return. Never switches."""
        journal = self._journals.get(pool)
        if journal is None:
            journal = self._new_journal(pool, pool.name)
        journal.add(self._epoch + entry.taken_at - entry.waited, held)

    def _attach(self, core: ResourcePool) -> None:
        listener = _Returns(self, core)
        core.add_listener(listener)
        self._undo.append(partial(_leave, weakref.ref(core), listener))

    def _listen(self, target: Any, name: str, call: Callable[..., object]) -> None:
        from sqlalchemy import event

        event.listen(target, name, call)
        self._undo.append(partial(event.remove, target, name, call))

    def _checked_out(self, connection: Any, record: Any, proxy: Any) -> None:
        pool = proxy._pool
        if hasattr(pool, "core"):
            return  # ours, which tells more itself: also for how long somebody waited
        journal = self._journals.get(pool)
        if journal is None:
            journal = self._new_journal(pool, pool.logging_name or type(pool).__name__)
        record.record_info[_KEY] = journal, time.monotonic()

    def _checked_in(self, connection: Any, record: Any) -> None:
        begun = record.record_info.pop(_KEY, None)
        if begun is not None:
            journal, since = begun
            journal.add(self._epoch + since, time.monotonic() - since)

    def _follow(self, engine: Engine) -> None:
        """The engine has been disposed of, and has a new pool: with its events, if it is SQLAlchemy's."""
        if hasattr(engine.pool, "core"):
            self.attach(engine.pool)

    def _new_journal(self, pool: Any, name: str) -> Journal:
        close_ended()  # so that files which are open for pools that have gone do not pile up
        name = self._name or name
        self._names[name] += 1
        if self._names[name] > 1:
            name = f"{name}{self._names[name]}"
        self._journals[pool] = journal = Journal(self._directory, name, *self._bounds)
        close_when_gone(journal, pool)
        return journal


class _Returns(Listener):
    """Tells a recorder of what comes back to one pool, which it does not keep alive."""

    def __init__(self, recorder: Recorder, core: ResourcePool) -> None:
        self.recorder = recorder
        self._core = weakref.ref(core)

    def returned(self, entry: Entry, held: float) -> None:
        core = self._core()
        if core is not None:
            self.recorder.returned(core, entry, held)


def _leave(core: weakref.ref[ResourcePool], listener: Listener) -> None:
    pool = core()
    if pool is not None:
        pool.remove_listener(listener)
