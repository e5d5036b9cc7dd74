"""Whether a connection is in the middle of an exchange: a question and the whole answer to it.

A driver that is used by two greenlets at once, or that is left before it has read an answer to its end,
gives the next question the answer to an older one, and may do so for ever. From then on the connection
is spoiled, and nothing but closing it makes that good.
"""

from __future__ import annotations

from typing import Any

from gevent import getcurrent

NOBODY = 0
SOMEBODY = 1  # where it need not be known who
SPOILED = -1


class Exchange:
    """One connection's. Nothing here switches greenlets.

    Attributes:
        by: `id` of the greenlet that is in an exchange (the greenlet itself would be kept alive by its
            own frames), or one of the numbers above.
    """

    __slots__ = ("by",)

    def __init__(self) -> None:
        self.by = NOBODY

    @property
    def is_open(self) -> bool:
        """Somebody is in the middle of one, or it is spoiled."""
        return self.by != NOBODY

    def begin(self) -> None:
        """A question is about to be sent. An answer that is still due spoils it, whosever it is."""
        self.by = SPOILED if self.by else id(getcurrent())

    def join(self) -> bool:
        """Part of an exchange is about to be done; as in `begin`, unless it is the caller's own.

        Returns:
            Whether this has begun it.
        """
        me = id(getcurrent())
        if self.by == me:
            return False
        self.by = SPOILED if self.by else me
        return True

    def end(self) -> None:
        """The caller's answer was read to its end."""
        if self.by == id(getcurrent()):
            self.by = NOBODY

    def spoil(self) -> None:
        """It was left in the middle."""
        self.by = SPOILED

    def forget(self) -> None:
        """The connection has another socket, or none."""
        self.by = NOBODY


def is_open(connection: Any) -> bool:
    """Does its `_exchange` say that it is in the middle of one, or spoiled? Never switches."""
    exchange: Exchange | None = getattr(connection, "_exchange", None)
    return exchange is not None and exchange.is_open
