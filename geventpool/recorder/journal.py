"""Files that rows are appended to: the newest are kept, the oldest are removed."""

from __future__ import annotations

import atexit
import contextlib
import errno
import logging
import os
import time
import weakref
from collections import deque
from pathlib import Path
from typing import Any, Final

from gevent.monkey import get_original

from ..core.registry import at_fork, look_for_fork
from ..errors import ConfigError

log = logging.getLogger("geventpool.recorder")

HEADER = "t,hold\n"
_ROWS = 512
_SECONDS = 5.0
_LEAST_BYTES = 64 * 1024

# Native, also where the program has patched: it is held for one write, during which no greenlet switches.
_new_lock: Final = get_original("_thread", "allocate_lock")
# gevent's waits for the loop's next turn.
_close_fd: Final = get_original("os", "close")


def check(directory: str, max_bytes: int, files: int) -> None:
    """Sees whether journals can be kept so; makes the directory.

    Raises:
        ConfigError: the directory cannot be written to, or a bound is too small.
    """
    for argument, value, least in (("max_bytes", max_bytes, _LEAST_BYTES), ("files", files, 1)):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ConfigError(argument, value, f"give a whole number, {least} or more")
    try:
        Path(directory).mkdir(parents=True, exist_ok=True)
    except (OSError, TypeError) as error:
        raise ConfigError("directory", directory, f"cannot be made: {error}") from None
    if not os.access(directory, os.W_OK):
        raise ConfigError("directory", directory, "cannot be written to")


class Journal:
    """Rows of one pool in this process.

    Rows are kept until there are 512 of them or five seconds have gone by, so that a row costs one
    append to a list. The last ones are written at the end of the process; if it is killed they are lost.

    Args:
        directory: where the files are; made anew if it has been removed.
        name: how their names begin.
        max_bytes: of one file, at most.
        files: how many are kept for each process; the oldest is removed for a new one.
    """

    def __init__(self, directory: str, name: str, max_bytes: int, files: int) -> None:
        self._directory = Path(directory)
        self._name = "".join(sign if sign.isalnum() else "-" for sign in name) or "pool"
        self._max_bytes, self._most_files = max_bytes, files
        self._lock: Any = _new_lock()
        self._begin()
        _journals.add(self)

    def _begin(self) -> None:
        self._rows: list[str] = []
        self._written_at = time.monotonic()
        self._fd: int | None = None
        self._bytes = 0
        self._number = 0
        self._files: deque[Path] = deque()
        self._has_warned = False

    def add(self, asked_at: float, hold: float) -> None:
        """Takes a row; writes what has gathered if it is time. Never switches, never raises."""
        rows = self._rows
        rows.append(f"{asked_at:.6f},{hold:.6f}\n")
        if len(rows) >= _ROWS or time.monotonic() - self._written_at >= _SECONDS:
            self.flush()

    def flush(self) -> None:
        """Writes what has gathered. Never switches, never raises: rows that cannot be written are lost.

        If they are being written just now, in another thread or, where a connection is returned by the
        garbage collector, further up this very stack, then what has come since is left for next time.
        """
        if self._lock.acquire(False):
            self._flush_locked()

    def close(self) -> None:
        """Writes the last rows and closes the file; another thread is given a second to end its write."""
        if self._lock.acquire(True, 1.0):
            self._flush_locked(is_last=True)

    def _flush_locked(self, is_last: bool = False) -> None:
        problem = None
        try:
            many = len(self._rows)  # others may add to the list meanwhile
            data = "".join(self._rows[:many]).encode()
            del self._rows[:many]
            self._written_at = time.monotonic()
            try:
                if data:
                    self._write(data)
            except OSError as error:
                problem = error
                self._close()
            if is_last:
                self._close()
        finally:
            self._lock.release()
        if problem is not None and not self._has_warned:
            self._has_warned = True
            log.warning("%r: rows are lost: %s", str(self._directory), problem.strerror)

    def _write(self, data: bytes) -> None:
        if self._fd is None or self._bytes + len(data) > self._max_bytes:
            self._open_next()
        self._append(data)

    def _open_next(self) -> None:
        self._close()
        while len(self._files) >= self._most_files:
            with contextlib.suppress(FileNotFoundError):
                self._files.popleft().unlink()
        self._directory.mkdir(parents=True, exist_ok=True)
        while self._fd is None:
            self._number += 1
            path = self._directory / f"{self._name}-{os.getpid()}-{self._number:06}.csv"
            # An earlier process of the same number may have left one, and links are not followed.
            with contextlib.suppress(FileExistsError):
                self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        self._files.append(path)
        self._bytes = 0
        self._append(HEADER.encode())

    def _append(self, data: bytes) -> None:
        """All of it or nothing: half a row would spoil the file."""
        assert self._fd is not None
        if os.write(self._fd, data) < len(data):
            os.ftruncate(self._fd, self._bytes)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._bytes += len(data)

    def _close(self) -> None:
        if self._fd is not None:
            _close_fd(self._fd)
            self._fd = None

    def _forget_after_fork(self) -> None:
        """The rows and the file are the parent's; a child has its own."""
        fd = self._fd
        self._lock = _new_lock()
        self._begin()
        if fd is not None:
            _close_fd(fd)


_journals: weakref.WeakSet[Journal] = weakref.WeakSet()
_ended: list[Journal] = []


def close_when_gone(journal: Journal, pool: object) -> None:
    """Has a journal closed after its pool has gone, by `close_ended`: a finalizer does no I/O."""
    weakref.finalize(pool, _ended.append, journal).atexit = False


def close_ended() -> None:
    """Writes and closes what is left of pools that have gone. Never switches."""
    while _ended:
        _ended.pop().close()


def _after_fork_in_child() -> None:
    for journal in list(_journals):
        journal._forget_after_fork()


def _at_exit() -> None:
    look_for_fork()  # else a child would write its parent's rows a second time
    for journal in list(_journals):
        journal.close()


at_fork(_after_fork_in_child)
atexit.register(_at_exit)
