"""What is seen of a program's monkey-patching while its application is loaded."""

from __future__ import annotations

import sys
from typing import Any

from gevent import events
from gevent.monkey import is_module_patched

from ..case import Process

# What holds on to sockets, locks, contexts or a way to wait from when it is imported.
_MATTERS = (
    "MySQLdb",
    "aiohttp",
    "asyncpg",
    "django.db",
    "grpc",
    "psycopg",
    "psycopg_pool",
    "redis",
    "requests",
    "urllib3",
)
_WHOLE = ("socket", "select", "ssl", "_thread", "threading", "time")


class PatchWatch:
    """Sees who monkey-patches the process, and what had been imported by then. Make it before.

    Attributes:
        early: modules that matter which were there, and were not before this was made.
    """

    def __init__(self) -> None:
        self.early: tuple[str, ...] = ()
        self._before = set(sys.modules)
        self._is_patched_before = is_module_patched("socket")
        events.subscribers.append(self._heard)

    def _heard(self, event: Any) -> None:
        if isinstance(event, events.GeventWillPatchAllEvent) and not is_module_patched("socket"):
            new = set(sys.modules) - self._before
            self.early = tuple(name for name in _MATTERS if name in new)

    def stop(self) -> Process:
        """What was seen. Never switches."""
        events.subscribers.remove(self._heard)
        is_patched = is_module_patched("socket")
        by = "" if not is_patched else "its server" if self._is_patched_before else "the program"
        return Process(
            is_loaded=True,
            patched_by=by,
            left_out=_left_out() if is_patched else (),
            early=self.early,
        )


def process_as_it_is() -> Process:
    """Of a process that is running, such as one of `flask` or `manage.py`."""
    is_patched = is_module_patched("socket")
    return Process(
        is_loaded=is_patched,  # else its commands are not, and the workers may be
        patched_by="the program" if is_patched else "",
        left_out=_left_out() if is_patched else (),
    )


def _left_out() -> tuple[str, ...]:
    return tuple(name for name in _WHOLE if not is_module_patched(name))
