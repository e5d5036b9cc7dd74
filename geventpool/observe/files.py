"""Snapshots in files: what each process publishes of its pools, and who reads them all.

One directory for all workers of a program, mode 0700, one file for each, mode 0600, replaced as a whole. A
file is data: whoever reads one runs nothing of it, and reads none that another user may have put there.
When a process has ended, what it counted is added to `geventpool-ended.json`, so that sums never fall.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import fcntl
import json
import logging
import math
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import gevent
from gevent import get_hub
from gevent.monkey import get_original

from ..core.threads import mailbox_here
from ..errors import ConfigError
from .shape import Shape, is_snapshot, is_sum
from .snapshot import VERSION, Total, add_up, began, snapshot

log = logging.getLogger("geventpool.observe")

VARIABLE = "GEVENTPOOL_SNAPSHOTS"
_PROMETHEUS = "PROMETHEUS_MULTIPROC_DIR"
_PREFIX = "geventpool-"
_ENDED = f"{_PREFIX}ended.json"
_LOCK = f"{_PREFIX}lock"
_PART = ".part"
_LARGEST = 50_000_000
_LONGEST_INTERVAL = 86_400
_TRIES, _PAUSE = 200, 0.01
_LAST_WRITE = 1.0  # seconds that the end of a process waits for a disk that hangs

# Native, also where the program has patched: a native thread holds the lock for one write.
_new_lock: Final = get_original("_thread", "allocate_lock")
_start_thread: Final = get_original("_thread", "start_new_thread")


def default_directory() -> Path:
    """Where snapshots are: as `GEVENTPOOL_SNAPSHOTS` or `PROMETHEUS_MULTIPROC_DIR` says, else a directory
    of this user's own.
    """
    for variable in (VARIABLE, _PROMETHEUS):
        if os.environ.get(variable):
            return Path(os.environ[variable])
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime and os.path.isdir(runtime):
        return Path(runtime) / "geventpool"
    return Path(tempfile.gettempdir()) / f"geventpool-{os.getuid()}"


_publisher: Publisher | None = None


class Publisher:
    """Writes this process's snapshot every so often, by a hub timer that keeps no process alive.

    The hub makes the snapshot, and a native thread writes the file.

    Args:
        directory: for the files; made if need be, and this user's alone.
        interval: seconds between two snapshots.

    Attributes:
        directory: as above.
        is_writing: the timer has begun a write that is not over.

    Raises:
        ConfigError: the directory or the interval cannot be used.
    """

    def __init__(self, directory: str | os.PathLike[str] | None, interval: float) -> None:
        is_number = isinstance(interval, (int, float)) and not isinstance(interval, bool)
        if not (is_number and 0.05 <= interval <= _LONGEST_INTERVAL):
            cure = f"give a number of seconds from 0.05 to {_LONGEST_INTERVAL:,}"
            raise ConfigError("interval", interval, cure)
        self.directory = Path(directory) if directory is not None else default_directory()
        _make_private(self.directory)
        self._timer = get_hub().loop.timer(interval, interval, ref=False)
        self._mailbox = mailbox_here()
        self._begin()
        self._timer.start(self._ring, update=True)
        self.write()
        atexit.register(self.stop)

    def _begin(self) -> None:
        """At the start, and in a forked child: the thread that writes is the parent's, the lock too."""
        self._pid = os.getpid()
        self._in_file = ""
        self._number = 0
        self._written: float = 0
        self._lock: Any = _new_lock()
        self.is_writing = False
        self._has_failed = False

    @property
    def path(self) -> Path:
        """This process's file; after a fork it is another one."""
        return self.directory / f"{_PREFIX}{os.getpid()}.json"

    def write(self) -> None:
        """Writes the snapshot as it is now, on a local disk. Never switches, and blocks until it is done.

        Raises:
            OSError: it cannot be written; or an earlier write has hung for a second.
        """
        if self._pid != os.getpid():
            self._begin()
        self._put(self.path, *self._take())

    def stop(self) -> None:
        """Writes no more; the last snapshot stays, for its counts."""
        global _publisher
        if _publisher is self:
            _publisher = None
        atexit.unregister(self.stop)
        self._timer.stop()
        self._timer.close()
        with contextlib.suppress(OSError):
            self.write()
        self._written = math.inf  # of what is on its way to the file, nothing is newer

    def _take(self) -> tuple[float, str, int]:
        """The time, the rest of the snapshot as text, and its number.

        Encoded at once: what it is made of may change as soon as the hub goes on.
        """
        said = snapshot()
        now = said.pop("time")
        self._number += 1
        return now, json.dumps(said), self._number

    def _put(self, path: Path, now: float, text: str, number: int) -> None:
        """Has it in the file, unless a later one is there. In any native thread."""
        if not self._lock.acquire(True, _LAST_WRITE):
            raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
        try:
            if number <= self._written:
                return
            if text == self._in_file:
                with contextlib.suppress(OSError):  # such as: somebody has removed it
                    os.utime(path)  # so that it is told from one that publishes no more
                    self._written = number
                    return
            _replace(path, f'{{"time": {now!r}, {text[1:]}')
            self._in_file, self._written = text, number
        finally:
            self._lock.release()

    def _ring(self) -> None:
        # In the hub, where nothing may be raised, nor wait.
        if self._pid != os.getpid():
            self._begin()
        if not self.is_writing:  # else the disk is slow, and this turn is left out
            self.is_writing = True
            gevent.spawn_raw(self._write_behind)

    def _write_behind(self) -> None:
        """Writes without holding up the hub: on a busy disk, replacing a file can take a second.

        In a thread that ends with the write. One of the hub's pool could stand behind name look-ups that
        hang, and whoever waits for its answer keeps the loop alive for as long as the disk hangs.
        """
        try:
            _start_thread(self._write_in_thread, (self.path, *self._take()))
        except Exception as error:
            self._wrote(error)

    def _write_in_thread(self, path: Path, now: float, text: str, number: int) -> None:
        failed: Exception | None = None
        try:
            self._put(path, now, text, number)
        except Exception as error:
            failed = error
        self._mailbox.post(self._wrote, failed)

    def _wrote(self, error: Exception | None) -> None:
        """A write is over. In the hub's thread. Never switches."""
        if error is not None and not self._has_failed:
            name = type(error).__name__ if not isinstance(error, OSError) else error.strerror
            message = "snapshots cannot be written to %r for now: %s"
            gevent.spawn_raw(log.warning, message, str(self.directory), name)
        self._has_failed = error is not None
        self.is_writing = False


def publish(directory: str | os.PathLike[str] | None = None, *, interval: float = 1.0) -> Publisher:
    """Has this process publish what its pools do, from now on. Never switches greenlets.

    Args:
        directory: for the files; `None`: `default_directory()`.
        interval: seconds between two snapshots.

    Returns:
        What publishes; `stop()` ends it.

    Raises:
        ConfigError: the directory or the interval cannot be used.
    """
    global _publisher
    if _publisher is not None:
        _publisher.stop()
    _publisher = Publisher(directory, interval)
    return _publisher


def publisher() -> Publisher | None:
    """What this process publishes with, if it does."""
    return _publisher


def read_snapshots(directory: str | os.PathLike[str] | None = None) -> list[dict[str, Any]]:
    """The snapshots of the processes that run, in the order of their numbers.

    Args:
        directory: where; `None`: `default_directory()`. None is there: nobody publishes.

    Raises:
        ConfigError: somebody else may write there.
    """
    return [said for _, said, is_alive in each_snapshot(_directory(directory)) if is_alive]


def each_snapshot(directory: Path) -> Iterator[tuple[Path, dict[str, Any], bool]]:
    """Each file, what it says, and whether its process runs, by their numbers. Never switches.

    A file that changes, or that is touched, is one whose process still publishes.

    Raises:
        ConfigError: somebody else may write there.
    """
    if directory.is_dir():
        _refuse_others(directory)
        yield from _read_all(directory)


def read_total(directory: str | os.PathLike[str] | None = None) -> Total:
    """The sums of all processes, with the counts of those that have ended. May switch greenlets.

    Args:
        directory: where; `None`: `default_directory()`; made if need be.

    Raises:
        ConfigError: somebody else may write there, or it cannot be made.
    """
    path = _directory(directory)
    _make_private(path)
    with _locked(path) as is_alone:
        living, dead = [], []
        for file, said, is_alive in _read_all(path):
            if is_alive:
                living.append(said)
            else:
                dead.append((file, said))
        before = _read(path / _ENDED, is_sum)
        ended = (
            [said for _, said in dead] if before is None else [before, *(said for _, said in dead)]
        )
        if is_alone:  # else somebody else does it now
            if dead:
                _bury(path, ended, [file for file, _ in dead])
            _sweep(path)
    return add_up(living, ended)


def _bury(directory: Path, ended: list[dict[str, Any]], files: list[Path]) -> None:
    """Writes the sum of those who have ended to the file of the ended, and removes theirs."""
    total = add_up([], ended)
    pools = [{**pool, "observed": _observed(pool)} for pool in total.pools.values()]
    said = {"version": VERSION, "pools": pools, "hub": total.hub}
    _replace(directory / _ENDED, json.dumps(said))
    for file in files:
        file.unlink(missing_ok=True)


def _sweep(directory: Path) -> None:
    """Removes what processes that were killed have half written."""
    for part in directory.glob(f"{_PREFIX}*{_PART}"):
        pid = part.name.removeprefix(_PREFIX).removesuffix(_PART)
        if pid.isdecimal() and not began(int(pid)):
            part.unlink(missing_ok=True)


def _observed(pool: dict[str, Any]) -> dict[str, Any]:
    return {
        "histograms": pool.pop("histograms"),
        "warnings": pool.pop("warnings"),
        "holders": [],
    }


def _read_all(directory: Path) -> Iterator[tuple[Path, dict[str, Any], bool]]:
    files = [file for file in directory.glob(f"{_PREFIX}*.json") if file.name != _ENDED]
    for file in sorted(files, key=lambda file: (len(file.name), file.name)):
        said = _read(file, is_snapshot)
        if said is not None:
            yield file, said, bool(said["began"]) and said["began"] == began(said["pid"])


def _read(file: Path, is_understood: Shape) -> dict[str, Any] | None:
    """A snapshot; `None`: there is none that can be trusted and understood, such as another version's.

    Nothing but a plain file of the directory's owner is read: a pipe would keep the reader for ever.
    """
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, encoding="utf-8") as opened:
            found = os.fstat(descriptor)
            owner = file.parent.stat().st_uid
            if not stat.S_ISREG(found.st_mode) or found.st_uid != owner or found.st_size > _LARGEST:
                return None
            said: Any = json.load(opened)
        is_ours = isinstance(said, dict) and said.get("version") == VERSION
        return said if is_ours and is_understood(said) else None
    except (OSError, ValueError, RecursionError):  # of which JSON's own are
        return None


def _replace(path: Path, text: str) -> None:
    part = path.with_suffix(_PART)
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with open(descriptor, "w") as file:
        file.write(text)
    part.replace(path)


def _directory(directory: str | os.PathLike[str] | None) -> Path:
    return Path(directory) if directory is not None else default_directory()


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[bool]:
    """One reader at a time buries the dead; gives whether it is this one. May switch greenlets."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    lock = os.open(directory / _LOCK, flags, 0o600)
    try:
        is_alone = False
        for _ in range(_TRIES):  # without blocking the hub
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                is_alone = True
                break
            gevent.sleep(_PAUSE)
        yield is_alone
    finally:
        os.close(lock)


def _refuse_others(directory: Path) -> None:
    """Sees that nobody but this user, or the one whom the superuser looks at, may write there.

    Raises:
        ConfigError: somebody may.
    """
    found = directory.stat()
    if found.st_uid != os.getuid() and os.getuid() != 0:
        raise ConfigError(
            "directory", str(directory), "it is another user's, who may write anything"
        )
    if found.st_mode & 0o022:
        raise ConfigError("directory", str(directory), "others may write there: chmod 700")


def _make_private(directory: Path) -> None:
    """Makes a directory that is this user's alone, or sees that it is.

    Raises:
        ConfigError: somebody else may write there.
    """
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = directory.stat(follow_symlinks=False)
    except OSError as error:
        raise ConfigError(
            "directory", str(directory), f"cannot be used: {error.strerror}"
        ) from None
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise ConfigError("directory", str(directory), "give a directory that is this user's own")
    if found.st_mode & 0o022:
        raise ConfigError("directory", str(directory), "others may write there: chmod 700")
