"""Snapshots in files: what each process publishes of its pools, and who reads them all.

One directory for all workers of a program, mode 0700, one file for each, mode 0600, replaced as a whole. A
file is data: whoever reads one runs nothing of it. When a process has ended, what it counted is added to
`ended.json`, so that sums never fall.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import json
import logging
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gevent
from gevent import get_hub

from ..errors import ConfigError
from .snapshot import VERSION, Total, add_up, began, snapshot

log = logging.getLogger("geventpool.observe")

VARIABLE = "GEVENTPOOL_SNAPSHOTS"
_PROMETHEUS = "PROMETHEUS_MULTIPROC_DIR"
_PREFIX = "geventpool-"
_ENDED = f"{_PREFIX}ended.json"
_LOCK = f"{_PREFIX}lock"
_TRIES, _PAUSE = 200, 0.01


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

    Args:
        directory: for the files; made if need be, and this user's alone.
        interval: seconds between two snapshots.

    Attributes:
        directory: as above.

    Raises:
        ConfigError: the directory or the interval cannot be used.
    """

    def __init__(self, directory: str | os.PathLike[str] | None, interval: float) -> None:
        if isinstance(interval, bool) or not isinstance(interval, (int, float)) or interval < 0.05:
            raise ConfigError("interval", interval, "give a number of seconds from 0.05 up")
        self.directory = Path(directory) if directory is not None else default_directory()
        _make_private(self.directory)
        self._last: dict[str, Any] = {}
        self._pid = os.getpid()
        self._timer = get_hub().loop.timer(interval, interval, ref=False)
        self._timer.start(self._ring, update=True)
        self.write()
        atexit.register(self.stop)

    @property
    def path(self) -> Path:
        """This process's file; after a fork it is another one."""
        return self.directory / f"{_PREFIX}{os.getpid()}.json"

    def write(self) -> None:
        """Writes the snapshot as it is now. Never switches; a file of a few kilobytes, on a local disk."""
        said = snapshot()
        if {**said, "time": 0} == self._last and os.getpid() == self._pid:
            return
        self._last, self._pid = {**said, "time": 0}, os.getpid()
        _replace(self.path, said)

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

    def _ring(self) -> None:
        try:
            self.write()
        except Exception:
            self._timer.stop()
            log.exception("snapshots are not written any more to %s", self.directory)


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
        directory: where; `None`: `default_directory()`.
    """
    return [said for _, said, is_alive in _read_all(_directory(directory)) if is_alive]


def read_total(directory: str | os.PathLike[str] | None = None) -> Total:
    """The sums of all processes, with the counts of those that have ended. May switch greenlets.

    Args:
        directory: where; `None`: `default_directory()`.
    """
    path = _directory(directory)
    with _locked(path):
        living, buried = [], []
        for file, said, is_alive in _read_all(path):
            if is_alive:
                living.append(said)
            else:
                buried.append((file, said))
        ended = _bury(path, buried)
    return add_up(living, ended)


def _bury(directory: Path, buried: list[tuple[Path, dict[str, Any]]]) -> list[dict[str, Any]]:
    """Adds those who have ended to the file of the ended, and removes theirs."""
    path = directory / _ENDED
    before = _read(path)
    ended = [before] if before is not None else []
    if not buried:
        return ended
    total = add_up([], [*ended, *(said for _, said in buried)])
    pools = [{**pool, "observed": _observed(pool)} for pool in total.pools.values()]
    merged = {"version": VERSION, "pools": pools, "hub": total.hub}
    _replace(path, merged)
    for file, _ in buried:
        file.unlink(missing_ok=True)
    return [merged]


def _observed(pool: dict[str, Any]) -> dict[str, Any]:
    return {
        "histograms": pool.pop("histograms"),
        "warnings": pool.pop("warnings"),
        "holders": [],
    }


def _read_all(directory: Path) -> Iterator[tuple[Path, dict[str, Any], bool]]:
    files = [file for file in directory.glob(f"{_PREFIX}*.json") if file.name != _ENDED]
    for file in sorted(files, key=lambda file: (len(file.name), file.name)):
        said = _read(file)
        if said is not None:
            pid = said["pid"]
            yield file, said, bool(said["began"]) and said["began"] == began(pid)


def _read(file: Path) -> dict[str, Any] | None:
    """A snapshot; `None`: there is none, or it is another version's."""
    try:
        said = json.loads(file.read_text())
    except (OSError, ValueError):
        return None
    return said if isinstance(said, dict) and said.get("version") == VERSION else None


def _replace(path: Path, said: dict[str, Any]) -> None:
    part = path.with_suffix(".part")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with open(descriptor, "w") as file:
        json.dump(said, file)
    part.replace(path)


def _directory(directory: str | os.PathLike[str] | None) -> Path:
    return Path(directory) if directory is not None else default_directory()


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """One reader at a time buries the dead."""
    with open(directory / _LOCK, "a") as lock:
        os.chmod(lock.fileno(), 0o600)
        for _ in range(_TRIES):  # without blocking the hub
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            gevent.sleep(_PAUSE)
        yield


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
