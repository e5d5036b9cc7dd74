"""Is the hub free to run? The longest stretch for which it was not, and who kept it.

Two watchers of the event loop see it begin and end each turn, which costs about a microsecond a turn
and wakes nobody. A native thread looks, from time to time, whether a turn lasts; if it does, it takes the
stack of the hub's thread in that very moment. So a driver that blocks, or a view that computes, is told
apart from a pool that is full.
"""

from __future__ import annotations

import logging
import sys
import time
import weakref
from collections import Counter
from dataclasses import dataclass
from typing import Any

from gevent import get_hub, spawn_raw
from gevent._hub_local import get_hub_if_exists
from gevent.monkey import get_original

from ..core.registry import at_fork
from ..core.watch import is_libuv
from ..errors import ConfigError
from .sites import Line, Site, site_of, tell_site, tell_stack

log = logging.getLogger("geventpool.observe")

_start_thread: Any = get_original("_thread", "start_new_thread")
_get_ident: Any = get_original("_thread", "get_ident")
_sleep: Any = get_original("time", "sleep")
_DEEPEST = 30
_MOST_SAMPLES = 100
_FIRST, _LAST = 2, -2  # priorities of libev: our watchers run around gevent's own

_watches: weakref.WeakSet[HubWatch] = weakref.WeakSet()
_kept: list[HubWatch] = []  # those that nobody else keeps


Sample = tuple[Site, tuple[Line, ...]]


@dataclass(frozen=True)
class Block:
    """One stretch for which the hub could not run.

    Attributes:
        seconds: how long.
        at: when it ended, in seconds since 1970.
        site: the program's line that was at work for most of it; empty if it was over before
            anybody looked.
        stack: the whole stack, outermost first.
    """

    seconds: float
    at: float
    site: Site
    stack: tuple[Line, ...]

    def to_json(self) -> dict[str, Any]:
        """As a snapshot has it."""
        return {
            "seconds": self.seconds,
            "at": self.at,
            "site": tell_site(self.site),
            "stack": [list(line) for line in self.stack],
        }


class HubWatch:
    """Watches the hub of the calling thread from now on.

    Args:
        threshold: a turn of the loop that takes more seconds is logged, with the stack that blocked it.

    Attributes:
        blocks: turns above the threshold.
        blocked_seconds: what they took in sum.
        longest: the longest of them.
        last: the last of them.

    Raises:
        ConfigError: the threshold cannot be used, or the loop is libuv's.
    """

    def __init__(self, threshold: float = 0.1) -> None:
        if is_libuv(get_hub().loop):  # gevent has no prepare watchers there
            cure = "a hub can be watched on libev only, so unset it"
            raise ConfigError("GEVENT_LOOP", "libuv", cure)
        if not isinstance(threshold, (int, float)) or not 0.001 <= threshold < 1e9:
            raise ConfigError("blocked_after", threshold, "give a number of seconds from 0.001 up")
        self.threshold = threshold
        self.blocks = 0
        self.blocked_seconds = 0.0
        self.longest: Block | None = None
        self.last: Block | None = None
        self._thread_id = _get_ident()
        self._is_stopped = False
        self._untold: list[Block] = []
        self._samples: list[Sample] = []
        self._began: float | None = time.monotonic()
        loop = get_hub().loop
        self._check = loop.check(ref=False, priority=_FIRST)
        self._prepare = loop.prepare(ref=False, priority=_LAST)
        self._bell = loop.async_(ref=False)
        self._bell.start(self._tell)
        self._check.start(self._woken)
        self._prepare.start(self._about_to_wait)
        _watches.add(self)
        self._start_thread()

    def stop(self) -> None:
        """Watches no longer."""
        self._is_stopped = True
        for watcher in (self._check, self._prepare, self._bell):
            watcher.stop()
            watcher.close()
        _watches.discard(self)
        if self in _kept:
            _kept.remove(self)

    @property
    def is_here(self) -> bool:
        """Is it the calling thread's hub that is watched?"""
        return bool(self._thread_id == _get_ident())

    def to_json(self) -> dict[str, Any]:
        """As a snapshot has it."""
        return {
            "threshold": self.threshold,
            "blocks": self.blocks,
            "blocked_seconds": self.blocked_seconds,
            "longest": None if self.longest is None else self.longest.to_json(),
            "last": None if self.last is None else self.last.to_json(),
        }

    def _woken(self) -> None:
        self._samples = []
        self._began = time.monotonic()

    def _about_to_wait(self) -> None:
        began, self._began = self._began, None
        if began is None:
            return
        seconds = time.monotonic() - began
        if seconds < self.threshold:
            return
        site, stack = _most_seen(self._samples)
        self.blocks += 1
        self.blocked_seconds += seconds
        self.last = Block(seconds, time.time(), site, stack)
        if self.longest is None or seconds > self.longest.seconds:
            self.longest = self.last
        self._untold.append(self.last)
        self._bell.send()  # a callback would wait until the loop has something else to do

    def _tell(self) -> None:
        while self._untold:
            _tell(self._untold.pop(0))

    def _start_thread(self) -> None:
        _start_thread(_look_again, (weakref.ref(self), self.threshold / 4))

    def look(self) -> bool:
        """From the native thread: is a turn lasting? Takes its stack. False: there is no more to watch."""
        began = self._began
        if began is not None and time.monotonic() - began >= self.threshold / 2:
            frame = sys._current_frames().get(self._thread_id)
            site, stack = site_of(frame), _lines(frame)
            if self._began is began and len(self._samples) < _MOST_SAMPLES:
                self._samples.append((site, stack))
        return not self._is_stopped


def watch_hub(blocked_after: float = 0.1) -> HubWatch:
    """Watches the hub of the calling thread from now on; once for each hub.

    Args:
        blocked_after: a turn of the loop that takes more seconds is logged, with the stack.

    Raises:
        ConfigError: the threshold cannot be used, or the loop is libuv's.
    """
    for watch in _watches:
        if watch.is_here:
            watch.stop()
            break
    watch = HubWatch(blocked_after)
    _kept.append(watch)
    return watch


def hub_snapshot() -> dict[str, Any] | None:
    """What a snapshot says of the hub that is watched; of several, the one with the longest block."""
    watches = sorted(_watches, key=lambda watch: watch.longest.seconds if watch.longest else 0.0)
    return watches[-1].to_json() if watches else None


def _look_again(watch_ref: weakref.ref[HubWatch], pause: float) -> None:
    while True:
        _sleep(pause)
        watch = watch_ref()
        if watch is None or not watch.look():
            return
        del watch


def _most_seen(samples: list[Sample]) -> Sample:
    """The functions that were at work in most of the samples; the line that they were at last."""
    counts: Counter[tuple[str, ...]] = Counter()
    last: dict[tuple[str, ...], Sample] = {}
    for site, stack in samples:
        functions = tuple(function for _, _, function in site)
        counts[functions] += 1
        last[functions] = site, stack
    return last[counts.most_common(1)[0][0]] if counts else ((), ())


def _lines(frame: Any) -> tuple[Line, ...]:
    lines: list[Line] = []
    while frame is not None and len(lines) < _DEEPEST:
        lines.append((frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name))
        frame = frame.f_back
    return tuple(reversed(lines))


def _tell(block: Block) -> None:
    """In the hub, where nothing may block: a greenlet writes it."""
    where = f"{tell_site(block.site)}. The stack:\n{tell_stack(list(block.stack))}"
    spawn_raw(
        log.warning,
        "the hub did not run for %.3g s, and no greenlet of this process: %s",
        block.seconds,
        where if block.stack else "it was over before its stack could be seen",
    )


def _after_fork_in_child() -> None:
    hub = get_hub_if_exists()
    for watch in list(_watches):
        if hub is not None and not watch._is_stopped:
            watch._thread_id = _get_ident()
            watch._began = time.monotonic()
            watch._start_thread()


at_fork(_after_fork_in_child)
