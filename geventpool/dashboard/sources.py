"""Where snapshots come from. Each source is asked once a second and answers with all that it has now."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import gevent

from ..observe.files import each_snapshot


@dataclass(frozen=True)
class Published:
    """What one process has published last.

    Attributes:
        host: where it runs.
        said: its snapshot; of the right shape, and for the rest as untrusted as any input.
        mark: changes each time that it publishes; no clock is compared with another host's.
    """

    host: str
    said: dict[str, Any]
    mark: object

    @property
    def key(self) -> tuple[str, int, str]:
        """Tells a process from all others, and from later ones of the same number."""
        return self.host, self.said["pid"], self.said["began"]


class Source(Protocol):
    """Somewhere that processes publish."""

    def read(self) -> list[Published]:
        """What the processes that run have published. May switch greenlets.

        Raises:
            ConfigError, OSError: it cannot be read now.
        """


class Directory:
    """Snapshots in files, of `geventpool.observe.publish()`.

    Args:
        path: where they are.
        host: the name by which this machine's processes go; by default the machine's own.
    """

    def __init__(self, path: Path, host: str = "") -> None:
        self.path = path
        self.host = host or socket.gethostname()

    def __repr__(self) -> str:
        return f"directory {self.path}"

    def read(self) -> list[Published]:
        """All files of processes that run; lets others run after each. May switch greenlets."""
        found = []
        for file, said, is_alive in each_snapshot(self.path):
            if is_alive:
                try:
                    mark = file.stat().st_mtime_ns
                except OSError:  # it has ended in this moment
                    continue
                found.append(Published(self.host, said, mark))
            gevent.sleep(0)
        return found
