"""libpq's cancel request, for drivers whose own one would stop the whole process.

`PQcancel` connects, sends and waits for the server to hang up. psycopg 3 calls it without letting go of
the interpreter's lock, so that no thread of its own helps: a server that does not answer would stop every
greenlet. psycopg2 closes its connection, and so loses what a request needs, before anybody can ask it.
Both are extension modules that are linked to a libpq, whose functions are called here as they are.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from typing import Any

import gevent

# Of the ten threads of a hub, in which names are looked up, too. A request to a server that is out of
# reach keeps its thread for minutes.
_MOST_THREADS = 3

_REASON_SIZE = 256  # what libpq recommends

_hanging: set[object] = set()
forget_hanging = _hanging.clear  # to be called in a forked child, which has no threads


class CancelRequest:
    """All that a cancel request needs, kept beyond the end of its connection.

    Args:
        extension: path of an extension module that is linked to the libpq of the connection.
        pgconn: address of the connection's `PGconn`, which is open.
    """

    __slots__ = ("_library", "_pointer")

    def __init__(self, extension: str, pgconn: int) -> None:
        self._library = _load(extension)
        self._pointer = self._library and self._library.PQgetCancel(pgconn)

    def __del__(self) -> None:
        if self._pointer:
            self._library.PQfreeCancel(self._pointer)

    def send(self) -> None:
        """Sends it and waits for the server to take it. Blocks the thread, not the process.

        Raises:
            OSError: it could not be sent.
            RuntimeError: libpq's functions could not be reached.
        """
        if not self._pointer:
            raise RuntimeError("libpq's cancel functions cannot be reached in this installation")
        reason = ctypes.create_string_buffer(_REASON_SIZE)
        if not self._library.PQcancel(self._pointer, reason, _REASON_SIZE):
            raise OSError(reason.value.decode(errors="replace").strip())


@functools.lru_cache(maxsize=8)
def _load(extension: str) -> Any:
    """The library, or `None`; a symbol is looked for in what it is linked to, too."""
    try:
        library = ctypes.CDLL(extension)
        library.PQgetCancel.argtypes = [ctypes.c_void_p]
        library.PQgetCancel.restype = ctypes.c_void_p
        library.PQcancel.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int]
        library.PQcancel.restype = ctypes.c_int
        library.PQfreeCancel.argtypes = [ctypes.c_void_p]
        library.PQfreeCancel.restype = None
    except (AttributeError, OSError):
        return None
    return library


def send_in_thread(send: Callable[[], None]) -> None:
    """Sends a request in a thread of the hub's pool. Switches greenlets.

    Raises:
        RuntimeError: too many requests hang already.
        Exception: what `send` raised.
    """
    if len(_hanging) >= _MOST_THREADS:
        raise RuntimeError(f"{len(_hanging)} cancel requests hang already")
    token = object()
    _hanging.add(token)

    def run() -> Exception | None:
        # Whoever waits for it may have been killed meanwhile, and the request goes on.
        try:
            send()
        except Exception as error:
            return error  # the hub prints what a thread raises
        finally:
            _hanging.discard(token)
        return None

    try:
        task = gevent.get_hub().threadpool.spawn(run)
    except BaseException:
        _hanging.discard(token)  # killed while it waited for a free thread
        raise
    error = task.get()
    if error is not None:
        raise error
