"""The pools of this process, and what becomes of them in a forked child.

Not every fork is Python's: uWSGI forks in C, after it has loaded the application, and no hook of
`os.register_at_fork` runs. So whoever is about to borrow, or to send something, asks a byte that the
kernel sets to zero in a child (`unforked`), at the price of a flag. And gevent's loop, which sees by
itself that it runs in a child, calls `look_for_fork` before anything else happens in its next turn.
"""

from __future__ import annotations

import _socket
import ctypes
import logging
import mmap
import os
import sys
import weakref
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from typing import Any, Protocol

import gevent
from gevent.monkey import get_original

from .entry import CLOSED, CLOSING, Entry

log = logging.getLogger("geventpool")

# gevent's own puts it off to the next turn of the loop, which may never come.
_close: Callable[[int], None] = get_original("os", "close")
_get_ident: Callable[[], int] = get_original("_thread", "get_ident")
_sleep: Callable[[float], None] = get_original("time", "sleep")

_WIPE_ON_FORK = 18  # Linux's MADV_WIPEONFORK, for which Python has no name
_NO_ADVICE = -1  # which every kernel refuses

_pools: weakref.WeakSet[Pool] = weakref.WeakSet()
_on_new: list[Callable[[Any], object]] = []
_inherited: list[object] = []
_at_fork: list[Callable[[], object]] = []
_at_it: dict[int, tuple[int, object]] = {}  # by process: the thread that begins anew


class Pool(Protocol):
    """What is known here of a pool."""

    def begin_again(self) -> None:
        """Empties it in a forked child."""


class ByProcessId:
    """Stands for a byte that is zero after a fork, where the kernel has none: a system call a look."""

    def __init__(self) -> None:
        self._process = 0

    def __bool__(self) -> bool:
        return os.getpid() == self._process

    @property
    def value(self) -> int:
        """1 or 0, as the byte would be."""
        return int(bool(self))

    @value.setter
    def value(self, value: int) -> None:
        self._process = os.getpid() * value


def _byte_that_no_child_inherits() -> ctypes.c_ubyte | ByProcessId:
    if sys.platform != "linux":
        return ByProcessId()
    page = mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    try:
        page.madvise(_WIPE_ON_FORK)
    except OSError:  # before Linux 4.14, or another kernel that only looks like it
        return ByProcessId()
    with suppress(OSError):
        page.madvise(_NO_ADVICE)
        return (
            ByProcessId()
        )  # an emulator (older QEMU's) that says yes to everything and does nothing
    return ctypes.c_ubyte.from_buffer(page)


unforked = _byte_that_no_child_inherits()
"""False in a forked child that has not begun anew yet. To be asked as `if not unforked`."""
unforked.value = 1


def add(pool: Pool) -> None:
    """Makes a new pool known."""
    _pools.add(pool)
    for meet in _on_new:
        meet(pool)


def pools() -> list[Any]:
    """The pools (`ResourcePool`) of this process that are still referred to, in no order."""
    return list(_pools)


def for_each(meet: Callable[[Any], object]) -> Callable[[], None]:
    """Has something done with each pool of this process, also with those that are made later.

    Returns:
        Ends that.
    """
    _on_new.append(meet)
    for pool in pools():
        meet(pool)
    return partial(_on_new.remove, meet)


def at_fork(begin_again: Callable[[], object]) -> None:
    """Has something done in each child, however it was forked, after the pools were emptied."""
    _at_fork.append(begin_again)


def look_for_fork(is_pythons: bool = False) -> None:
    """Has all begin anew, once, if this is a child that was just forked. Never switches greenlets.

    Args:
        is_pythons: Python knows of the fork, and so gevent has been told or will be.
    """
    if unforked:
        return
    process, me = os.getpid(), (_get_ident(), object())
    while not unforked:
        who = _at_it.setdefault(process, me)
        if who is me:
            try:
                _begin_again(is_pythons)
                unforked.value = 1
            finally:
                del _at_it[process]
        elif who[0] == me[0]:
            return  # a finalizer that runs in the middle of it
        else:
            _sleep(0.001)


def is_gone(entry: Entry) -> bool:
    """Is it closed, or being closed, or by a fork a parent's? Never switches greenlets."""
    look_for_fork()
    return entry.state in (CLOSING, CLOSED)


def _begin_again(is_pythons: bool) -> None:
    # Without `reinit`, name look-ups could wait for threads that the child does not have.
    gevents = [] if is_pythons else [gevent.reinit]
    for begin_again in (*gevents, *(pool.begin_again for pool in pools()), *_at_fork):
        try:
            begin_again()
        except Exception:  # the others are to begin anew all the same
            log.exception("geventpool: error in a forked child")


os.register_at_fork(after_in_child=partial(look_for_fork, is_pythons=True))


def disown(entries: Iterable[Entry], fileno: Callable[[Any], int | None]) -> None:
    """Puts a parent's entries out of reach of this child, destructors included. Raises nothing.

    The child's descriptor of each socket is replaced by one that leads nowhere, so that whatever a
    driver sends when its object dies (a QUIT, a Terminate) never reaches the parent's server; the
    objects themselves are kept for good.
    """
    inherited = list(entries)
    keep_for_good(inherited)
    for entry in inherited:
        entry.state = CLOSED
    for entry in inherited:
        with suppress(Exception):  # a driver's surprise: the object is kept, and never lent
            fd = fileno(entry.resource)
            if fd is not None:
                _lead_nowhere(fd)


def _lead_nowhere(fd: int) -> None:
    """Replaces this process's descriptor of a socket. Nothing is sent, and the parent's stays open."""
    try:
        try:
            other = _socket.socket().detach()  # needs no file system, unlike the null device
        except OSError:  # this process may have no more of them: then one less
            _close(fd)
            other = _socket.socket().detach()
        if other != fd:
            os.dup2(other, fd, inheritable=False)
            _close(other)
    except OSError:
        with suppress(OSError):
            _close(fd)


def keep_for_good(inherited: object) -> None:
    """Keeps what is a parent's from ever being finalized in this child."""
    _inherited.append(inherited)
