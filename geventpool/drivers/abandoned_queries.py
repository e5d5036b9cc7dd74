"""What a connection that was left in mid-query may still have at work on the server."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from gevent.monkey import get_original
from gevent.socket import wait_read

from .sockets import hang_up, has_hung_up

# gevent's own puts it off to the next turn of the loop, which may never come; and it may switch.
_close: Callable[[int], None] = get_original("os", "close")

G = TypeVar("G", bound="AbandonedQuery")


class AbandonedQuery:
    """What a connection that was left in mid-query may still have at work on the server.

    It outlives the driver's connection: it has a descriptor of its own for the same socket.

    Args:
        fileno: the connection's socket.
        server_id: the server's number of the connection, for messages.
        cancel: asks the server to stop; is given what opens another connection. A subclass may have a
            method of its own for it.

    Attributes:
        server_id: as above.
        needs_connection: it is cancelled through another connection; a pool's own will do.
    """

    __slots__ = ("__weakref__", "_cancel", "_fd", "server_id")
    needs_connection = False

    def __init__(
        self,
        fileno: int,
        server_id: int | None,
        cancel: Callable[[Callable[[], Any]], object] | None = None,
    ) -> None:
        self._fd = -1
        self._cancel = cancel
        self.server_id = server_id
        with contextlib.suppress(OSError):
            # Without one more descriptor it can cancel, but not see it done.
            self._fd = os.dup(fileno)

    @classmethod
    def of(cls: type[G], fileno: int | None, *more: Any) -> G | None:
        """One for a socket, unless that is closed, or the server has let go already.

        Args:
            fileno: the socket.
            *more: as for the class.
        """
        if fileno is None or fileno < 0 or has_hung_up(fileno):
            return None
        return cls(fileno, *more)

    def __repr__(self) -> str:
        return f"<AbandonedQuery of server connection {self.server_id}>"

    def __del__(self) -> None:
        self.close()

    @property
    def is_over(self) -> bool:
        """The server has let go. Never switches."""
        return self._fd >= 0 and has_hung_up(self._fd)

    def cancel(self, connect: Callable[[], Any]) -> None:
        """Asks the server to stop, unless it has let go already. May switch greenlets.

        Args:
            connect: opens a fresh connection of the same kind. It is closed here, if it is needed.

        Raises:
            Exception: what stood against it: the user's rights, the network.
        """
        if self._cancel is not None and not self.is_over:
            self._cancel(connect)

    @classmethod
    def cancel_all(cls, abandoned_queries: Sequence[Any], connection: Any) -> list[Exception]:
        """Asks the server to stop all of them, if they need a connection. May switch greenlets.

        Args:
            abandoned_queries: of this class.
            connection: what to ask through; it is as good as before if nothing is raised.

        Returns:
            What stood against some of them.

        Raises:
            Exception: the connection is lost.
        """
        raise NotImplementedError

    def ends_by_itself(self, seconds: float) -> bool:
        """Waits whether the server ends it without being asked to. May switch greenlets.

        To be called when the driver's connection is closed.

        Args:
            seconds: no longer than that.
        """
        return self.wait(seconds)

    def wait(self, seconds: float) -> bool:
        """Hangs up and waits until the server has, too. May switch greenlets.

        To be called when the driver's connection is closed.

        Args:
            seconds: no longer than that.

        Returns:
            False: the server still works, or it could not be seen to stop.
        """
        if self._fd < 0:
            return False
        self._hang_up()
        deadline = time.monotonic() + seconds
        while not self._has_ended():
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            try:
                wait_read(self._fd, timeout=left)
            except TimeoutError:
                return False
        return True

    def close(self) -> None:
        """Closes the descriptor. Idempotent. Never switches."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            _close(fd)

    def _hang_up(self) -> None:
        hang_up(self._fd)

    def _has_ended(self) -> bool:
        # It may have to be rid of its answer before it looks at anything else.
        try:
            return not os.read(self._fd, 65536)
        except BlockingIOError:
            return False
        except OSError:
            return True
