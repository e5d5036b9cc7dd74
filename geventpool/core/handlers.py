"""What a pool is told: how to treat a resource."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Handlers:
    """What the pool does with a resource, to be subclassed; the first three are needed.

    Only `open`, `close`, `reset`, `check` and `cancel` may switch greenlets.
    """

    def open(self) -> Any:
        """Opens a resource; its errors reach the caller in line."""
        raise NotImplementedError

    def close(self, resource: Any, cause: str) -> object:
        """Closes it. An `Exception` is logged."""
        raise NotImplementedError

    def reset(self, resource: Any) -> bool:
        """Makes it fit for the next caller; False: it is not to be used again."""
        raise NotImplementedError

    def resets_behind(self, resource: Any) -> bool:
        """May who gives it back go on before its reset is answered?"""
        return False

    def is_clean(self, resource: Any) -> bool:
        """Is there nothing to reset when it is released?"""
        return False

    def check(self, resource: Any) -> bool:
        """Asks the other side; False: dead."""
        return True

    def needs_check(self, resource: Any) -> bool:
        """Can it die by itself, so that it is to be asked now and then?"""
        return False

    def abandoned(self, resource: Any) -> Any:
        """What the other side may still do for it when it will be closed; `None`: nothing."""

    def cancel(self, abandoned: Any) -> bool:
        """Ends that, in bounded time; False: it could not be seen to end."""
        return True

    def target(self) -> tuple[object, ...] | None:
        """What tells the server, the database and the account from others.

        Empty: that is not known. `None`: there is no server.
        """
        return ()

    def server_is_full(self, error: BaseException) -> bool:
        """Did `open` fail only because the other side has no room for one more?"""
        return False

    def is_transient(self, error: BaseException) -> bool:
        """May `open` have failed only because the other side is away for a moment?"""
        return False

    def is_busy(self, resource: Any) -> bool:
        """Is it in the middle of an exchange, so that somebody may wait on its socket?"""
        return False

    def move(self, resource: Any) -> None:
        """Makes it usable by the hub of the calling thread. Nobody else uses it meanwhile."""

    def fileno(self, resource: Any) -> int | None:
        """The number of its socket; `None`: it has none, or that is closed."""
        return None

    def socket_of(self, resource: Any) -> Callable[[Any], object] | None:
        """What tells which socket a resource has: the same as long as that is open.

        Called at each checkout. It may raise where there is none. `None`: there never is.
        """
        return None

    def on_reconnect(self, resource: Any, tell: Callable[[], object]) -> None:
        """Has `tell` called when it has got another socket by itself, as far as that can be noticed."""

    def means_hangup(self, resource: Any, peeked: bytes) -> bool:
        """Do these unsolicited bytes mean that the peer hangs up?"""
        return False
