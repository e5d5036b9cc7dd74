"""A fleet of the processes of one user on one host: a directory with a file and the members' sockets.

The file has the permits (`permits`) and the members' rows (`rows`). A member that is short of a permit, or
that has given one back while others are short, wakes those whom it concerns by an empty datagram, upon
which they look at the rows. What arrives is never read: it is no more than a reason to look. A datagram
that does not fit into a queue need not: there is a reason in it already.
"""

from __future__ import annotations

import errno
import fcntl
import math
import os
import re
import stat
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any, Final
from weakref import WeakMethod, WeakValueDictionary

from gevent import get_hub
from gevent.monkey import get_original

from ..core.registry import at_fork, look_for_fork, unforked
from ..core.watch import end_in_child, new_reader
from ..errors import ConfigError
from .permits import MOST, PermitFile
from .rows import LENGTH, Row, smallest_size, unpack

MEMBERS: Final = 4096
"""Most pools in one fleet of a host."""

_FILE: Final = "permits"
_PRIVATE: Final = 0o600
_MANY: Final = 64  # of a queue that is ten long by default
_SMALLEST: Final = MOST + 64 * LENGTH

_Socket: Any = get_original("socket", "socket")
_close: Callable[[int], None] = get_original("os", "close")
_socket_module: Any = sys.modules["socket"]
_joined: set[HostFleet] = set()  # until they leave, so that nothing of theirs is finalized before
_files: WeakValueDictionary[tuple[int, int], PermitFile] = WeakValueDictionary()


def directory_of_host() -> Path:
    """The same for all processes of a user, whatever their environment says; a directory in memory or on
    a local disk, where nobody else can put anything into it.
    """
    return Path("/tmp") / f"geventpool-{os.getuid()}" / "fleet"


def make_private(directory: Path) -> None:
    """Makes a directory that is this user's alone, or sees that it is.

    Raises:
        ConfigError: it is somebody else's, or somebody else may write there.
    """
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        _refuse_others(os.stat(directory, follow_symlinks=False))
    except OSError as error:
        why = error.strerror or str(error)
        raise ConfigError("fleet", str(directory), f"cannot be used: {why}") from None


def _refuse_others(found: os.stat_result) -> None:
    if not stat.S_ISDIR(found.st_mode):
        raise OSError(errno.ENOTDIR, "give a directory, no link to one")
    if found.st_uid != os.getuid():
        raise OSError(errno.EPERM, "it is another user's; give a directory that is this user's own")
    if found.st_mode & 0o077:
        raise OSError(errno.EPERM, "others may enter it: chmod 700")


def folder_of(name: str) -> str:
    """A folder's name for a fleet's, which may be any text."""
    readable = re.sub(r"[^A-Za-z0-9.]+", "-", name).strip("-.")[:40]
    return f"{readable}-{sha256(name.encode()).hexdigest()[:12]}"


class Folder:
    """The directory of one fleet, open.

    Args:
        path: the directory; made if need be.
        is_new: False: it is to be there already.

    Raises:
        OSError: it cannot be used; the text says why, for people.
    """

    def __init__(self, path: Path, is_new: bool = True) -> None:
        self.path = path
        if is_new:
            make_private(path.parent)
            with suppress(FileExistsError):
                path.mkdir(mode=0o700)
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        self.fd = os.open(path, flags)
        try:
            _refuse_others(os.fstat(self.fd))
            # Cleaners of temporary files (systemd-tmpfiles) leave alone what is locked in this way.
            fcntl.flock(self.fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
            self.file = _file_in(self.fd, is_new)
        except BaseException:
            _close(self.fd)
            raise

    def __del__(self) -> None:
        if hasattr(self, "fd"):
            _close(self.fd)

    def rows(self) -> list[Row]:
        """Of all members that live."""
        found = []
        for row in unpack(os.pread(self.file.fd, MEMBERS * LENGTH, MOST)):
            if self.file.is_taken(row.slot):
                found.append(row)
            else:
                self.clear(row.slot)
        return found

    def write(self, row: Row) -> None:
        """What a member tells of itself. On a full disk it may tell nothing: rows are hints."""
        with suppress(OSError):
            os.pwrite(self.file.fd, row.pack(), MOST + row.slot * LENGTH)

    def clear(self, slot: int) -> None:
        """Removes what a member has left behind that lives no more."""
        if self.file.take_slot(slot):
            try:
                self.remove_traces(slot)
            finally:
                self.file.free_slot(slot)

    def remove_traces(self, slot: int) -> None:
        """The slot is ours: whatever is there is nobody's."""
        with suppress(OSError):
            os.unlink(str(slot), dir_fd=self.fd)
        with suppress(OSError):
            os.pwrite(self.file.fd, bytes(LENGTH), MOST + slot * LENGTH)

    def address(self, slot: int) -> str:
        """Of a member's socket."""
        if sys.platform == "linux":  # where a path of any length fits
            return f"/proc/self/fd/{self.fd}/{slot}"
        return str(self.path / str(slot))


def _file_in(folder: int, is_new: bool) -> PermitFile:
    """The one of this process: closing a second descriptor would lose all its locks."""
    with suppress(FileNotFoundError):
        found = os.stat(_FILE, dir_fd=folder, follow_symlinks=False)
        known = _files.get((found.st_dev, found.st_ino))
        if known is not None:
            return known
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    fd = os.open(_FILE, flags | (os.O_CREAT if is_new else 0), _PRIVATE, dir_fd=folder)
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.getuid():
            raise OSError(errno.EPERM, f"{_FILE} in it is no file of this user's; remove it")
        if found.st_size < _SMALLEST and is_new:
            os.posix_fallocate(fd, 0, _SMALLEST)  # so that a disk that fills up later is no matter
    except BaseException:
        _close(fd)
        raise
    file = _files[found.st_dev, found.st_ino] = PermitFile(fd)
    return file


class HostFleet:
    """One pool's membership in a fleet of this host. Never switches.

    To be made in the hub that owns the pool.

    Args:
        path: the fleet's directory.
        wake: called in the hub when there is a reason to look at the rows; kept weakly.

    Attributes:
        slot: the member's number.

    Raises:
        OSError: the directory cannot be used.
    """

    def __init__(self, path: Path, wake: WeakMethod[Callable[[], object]]) -> None:
        self._folder = Folder(path)
        self._file = self._folder.file
        self._permits: list[int] = []
        self.slot = self._take_slot()
        self._socket = _Socket(_socket_module.AF_UNIX, _socket_module.SOCK_DGRAM)
        try:
            self._folder.remove_traces(self.slot)
            self._socket.setblocking(False)
            self._socket.bind(self._folder.address(self.slot))
            os.chmod(str(self.slot), _PRIVATE, dir_fd=self._folder.fd)
        except BaseException:
            self._socket.close()
            self._file.free_slot(self.slot)
            raise
        self._hub = get_hub()
        self._io = new_reader(self._socket.fileno())
        self._io.start(_on_ready, self._socket, wake)
        _joined.add(self)

    def take(self, size: int, now: float) -> bool:
        """Takes a permit, if one is free.

        Args:
            size: how many there are, as the rows that were just read say.
            now: the time.
        """
        number = self._file.take(size, now)
        if number is None:
            return False
        # Another member may have told of a smaller fleet meanwhile. It has looked for our lock after it
        # had written its row; so one of us sees the other.
        if number >= smallest_size(self.rows()):
            self._file.give_back(number, now)
            return False
        self._permits.append(number)
        return True

    def give_back(self, now: float) -> None:
        """A connection is gone. The highest permit goes, so that a fleet can be made smaller."""
        highest = max(self._permits)
        self._permits.remove(highest)
        self._file.give_back(highest, now)

    def settles_at(self) -> float:
        """When a permit is free that nobody in this process has; `inf`: there is none."""
        return self._file.settles_at()

    def settle(self, now: float) -> bool:
        """Frees those whose time has come; False: there were none."""
        return self._file.settle(now)

    def rows(self) -> list[Row]:
        """Of all members that live."""
        return self._folder.rows()

    def write(self, row: Row) -> None:
        """What this member tells of itself."""
        self._folder.write(row)

    def wake(self, rows: Iterable[Row]) -> None:
        """Has other members look at the rows."""
        for row in rows:
            # Full: it has a reason to look already. Not there: it has just ended.
            with suppress(OSError):
                self._socket.sendto(b"", self._folder.address(row.slot))

    def leave(self) -> None:
        """Is no member any more; its connections are gone."""
        _joined.discard(self)
        self._end()
        for number in self._permits:
            self._file.give_back(number, 0.0)
        self._permits.clear()
        self._file.settle(math.inf)  # perhaps nobody is left who would
        self._folder.remove_traces(self.slot)
        self._file.free_slot(self.slot)

    def forget(self) -> None:
        """Closes this process's copies of what a forked child has inherited: the parent stays a member."""
        _joined.discard(self)
        end_in_child(self._hub, self._io, self._end)

    def _end(self) -> None:
        self._io.stop()
        self._io.close()
        self._socket.close()

    def _take_slot(self) -> int:
        for slot in range(MEMBERS):
            if self._file.take_slot(slot):
                return slot
        raise OSError(errno.ENOSPC, f"there are {MEMBERS:,} pools in this fleet already")


def _on_ready(socket: Any, wake: WeakMethod[Callable[[], object]]) -> None:
    if not unforked:  # the socket is the parent's, and so is what comes there
        look_for_fork()
        return
    with suppress(OSError):
        for _ in range(_MANY):
            socket.recv(1)
    method = wake()
    if method is not None:
        method()


def forget_files() -> None:
    """In a forked child, which has none of the locks."""
    _files.clear()


at_fork(forget_files)
