"""The permits of one host's fleet: byte-range locks in a file, one byte for each connection.

Who has a byte locked, may have a connection. The kernel arbitrates, and frees the locks of a process that
ends, however it ends, at once. Nobody has to be asked, and nobody can be lied to.

The locks are POSIX's (`fcntl(F_SETLK)`), not those of an open file description (`F_OFD_SETLK`), which
a fork inherits: a killed worker's permits would stay with whatever it has forked, as long as that
lives. POSIX locks belong to the process; a child has none. They have two pitfalls. They are gone as
soon as the process closes *any* descriptor of the file: so a process opens it once, and closes it when
it has no lock in it. And locks of one process do not exclude each other: so a process keeps a book of its
own.

Each permit also has a mark, the byte itself: 1 while it is held, 0 when it was given back. Who finds a
free one with a mark knows that its holder was killed; the server may not have noticed yet that the
connection is gone. Such a one is kept locked for a moment, and then is free as any other. So is, for a
shorter one, what is given back: a server counts one less only after it has hung up.
"""

from __future__ import annotations

import fcntl
import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

from gevent.monkey import get_original

from ..setting import MOST_IN_FLEET

MOST: Final = MOST_IN_FLEET
"""Permits in a file; beyond them are the members' rows."""

_SLOTS: Final = 1 << 32  # a lock there says that a member lives; beyond all that is written
SETTLES_AFTER: Final = 0.2
"""Seconds that a server may take to see that a client was killed; its sockets are closed at once."""

LINGERS: Final = 0.01
"""Seconds that a server may take from hanging up, or from refusing a client, until it counts one less."""

_new_lock: Callable[[], Any] = get_original("_thread", "allocate_lock")
_close: Callable[[int], None] = get_original("os", "close")


class PermitFile:
    """The locks that this process has in one file. Never switches.

    Used by all pools of the process, perhaps from several native threads.

    Args:
        fd: the file, open for reading and writing. From now on it is this object's.
    """

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._process = os.getpid()
        self._guard = _new_lock()
        self._mine: set[int] = set()  # bytes that are locked, slots included
        self._settling: dict[int, float] = {}  # locked, though nobody has them: until when

    def __del__(self) -> None:
        _close(self.fd)

    def take(self, size: int, now: float) -> int | None:
        """Takes a permit.

        Args:
            size: how many there are.
            now: the time.

        Returns:
            Its number; `None`: none is free.
        """
        with self._guard:
            if self._is_larger_for_somebody(size):
                return None
            for number in range(size):
                if self._lock(number):
                    if not self._is_marked(number):
                        self._mark(number, b"\1")
                        return number
                    self._settling[number] = now + SETTLES_AFTER
            return None

    def give_back(self, number: int, now: float) -> None:
        """A permit's connection is gone; in a moment it is free."""
        with self._guard:
            self._settling[number] = now + LINGERS

    def settles_at(self) -> float:
        """When the next one is free that nobody has; `inf`: there is none."""
        with self._guard:
            return min(self._settling.values(), default=math.inf)

    def settle(self, now: float) -> bool:
        """Frees those whose time has come; False: there were none."""
        with self._guard:
            due = [number for number, at in self._settling.items() if at <= now]
            for number in due:
                del self._settling[number]
                self._mark(number, b"\0")
                self._unlock(number)
            return bool(due)

    def take_slot(self, number: int) -> bool:
        """Says that a member lives; False: another one does."""
        with self._guard:
            return self._lock(_SLOTS + number)

    def free_slot(self, number: int) -> None:
        """It lives no more."""
        with self._guard:
            self._unlock(_SLOTS + number)

    def is_taken(self, number: int) -> bool:
        """Does the member live?"""
        with self._guard:
            if _SLOTS + number in self._mine:
                return True
            with self._probing(_SLOTS + number, 1) as is_free:
                return not is_free

    def _is_larger_for_somebody(self, size: int) -> bool:
        """Does anybody hold a permit beyond `size`, because the fleet was larger before?"""
        if size >= MOST:
            return False
        if any(size <= number < MOST for number in self._mine):
            return True
        with self._probing(size, MOST - size) as is_free:
            return not is_free

    def _lock(self, number: int) -> bool:
        if number in self._mine:
            return False
        try:
            fcntl.lockf(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, number)
        except OSError:  # somebody else's; or the kernel has no room for one more lock
            return False
        self._mine.add(number)
        return True

    def _unlock(self, number: int) -> None:
        self._mine.discard(number)
        if os.getpid() == self._process:
            fcntl.lockf(self.fd, fcntl.LOCK_UN, 1, number)

    @contextmanager
    def _probing(self, start: int, length: int) -> Iterator[bool]:
        """Is nothing locked there by others? Nothing is by us. Shared: two may look at once."""
        try:
            fcntl.lockf(self.fd, fcntl.LOCK_SH | fcntl.LOCK_NB, length, start)
        except OSError:
            yield False
            return
        try:
            yield True
        finally:
            fcntl.lockf(self.fd, fcntl.LOCK_UN, length, start)

    def _is_marked(self, number: int) -> bool:
        return os.pread(self.fd, 1, number) == b"\1"

    def _mark(self, number: int, mark: bytes) -> None:
        # The file has its place on the disk already. If it cannot be written to all the same, no more is
        # lost than that moment after a kill.
        with suppress(OSError):
            os.pwrite(self.fd, mark, number)
