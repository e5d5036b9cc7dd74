"""What running processes publish of their pools."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...errors import ConfigError
from ...observe.files import default_directory, read_snapshots


def read_published(directory: Path | None, pid: int | None) -> tuple[list[dict[str, Any]], str]:
    """The snapshots, and why there are none.

    Args:
        directory: where; `None`: the usual one.
        pid: only of this process.

    Raises:
        ConfigError: the process that is asked for does not publish.
    """
    where = directory or default_directory()
    try:
        found = read_snapshots(where)
    except ConfigError as error:  # somebody else may write there
        return [], str(error)
    if pid is not None:
        found = [said for said in found if said["pid"] == pid]
        if not found:
            cure = f"it publishes nothing in {where}: call geventpool.observe.publish() in it"
            raise ConfigError("pid", pid, cure)
    return found, "" if found else f"no process publishes in {where}"
