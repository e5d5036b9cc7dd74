"""Puts a page together, for the command and for applications that have it among their own."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..observe.files import default_directory
from .app import Page
from .collector import Collector
from .memory import MOST_BYTES, Memory
from .security import Gate, token_from_environment
from .sources import Directory


def default_memory() -> Path:
    """Where the memory is kept unless another place is given."""
    state = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(state).expanduser() / "geventpool" / "dashboard.sqlite3"


def make_page(
    directories: Sequence[Path] = (),
    memory: Path | None = None,
    token: str | None = None,
    memory_bytes: int = MOST_BYTES,
) -> Page:
    """The page of these directories, or of the default one.

    Args:
        directories: where processes publish; `NAME=DIR` for those of another host.
        memory: the file with the last day.
        token: who knows it may look; `None`: this machine may.
        memory_bytes: its size at most.

    Raises:
        ConfigError: the memory cannot be used.
    """
    sources = [_source(str(one)) for one in directories] or [Directory(default_directory())]
    kept = Memory(memory or default_memory(), memory_bytes)
    return Page(Collector(sources, kept), Gate(token))


def _source(given: str) -> Directory:
    name, is_named, path = given.partition("=")
    if is_named and "/" not in name:
        return Directory(Path(path), name)
    return Directory(Path(given))


class Embedded:
    """A page within an application: made with the first request, so that a fork takes nothing along.

    Of the workers of one server, one writes the memory and all read it.

    Args:
        directory: where processes publish; `None`: as `geventpool.observe.publish()`.
        memory: the file with the last day; `None`: as `geventpool dashboard`.

    Attributes:
        has_token: `GEVENTPOOL_DASHBOARD_TOKEN` is set, and whoever knows it may look.

    Raises:
        ConfigError: the token is too short.
    """

    def __init__(
        self, directory: str | os.PathLike[str] | None, memory: str | os.PathLike[str] | None
    ) -> None:
        self._directories = [] if directory is None else [Path(directory)]
        self._memory = None if memory is None else Path(memory)
        self._token = token_from_environment()
        self._page: Page | None = None
        self._pid = 0
        self.has_token = self._token is not None

    def answer(
        self,
        environ: Mapping[str, Any],
        start_response: Callable[..., Any],
        base: str,
        path: str,
        is_known: bool,
    ) -> Iterable[bytes]:
        """Answers one request. May switch greenlets.

        Args:
            environ: WSGI's.
            start_response: WSGI's.
            base: the URL's path of the page as a whole, without a slash at its end.
            path: what comes after it.
            is_known: the application lets this visitor look.
        """
        if self._page is None or self._pid != os.getpid():
            self._page = make_page(self._directories, self._memory, self._token)
            self._pid = os.getpid()
        given = {**environ, "SCRIPT_NAME": base, "PATH_INFO": f"/{path}"}
        return self._page.answer(given, start_response, is_known=is_known)
