"""The pool's refusals as errors of SQLAlchemy's, too, for programs that catch those."""

from __future__ import annotations

from typing import Any

from sqlalchemy import exc

from ..errors import ConnectTimeout, PoolDeadlock, PoolOverloaded, PoolTimeout


class GeventPoolTimeout(PoolTimeout, exc.TimeoutError):
    """No connection in time; caught by `except sqlalchemy.exc.TimeoutError` too."""


class GeventPoolDeadlock(PoolDeadlock, exc.TimeoutError):
    """Every holder waits; caught by `except sqlalchemy.exc.TimeoutError` too."""


class GeventPoolOverloaded(PoolOverloaded, exc.TimeoutError):
    """The line is too long; caught by `except sqlalchemy.exc.TimeoutError` too."""


class GeventPoolConnectTimeout(ConnectTimeout, exc.TimeoutError):
    """A connect took too long; caught by `except sqlalchemy.exc.TimeoutError` too."""


TWINS: dict[type[PoolTimeout], Any] = {
    PoolTimeout: GeventPoolTimeout,
    PoolDeadlock: GeventPoolDeadlock,
    PoolOverloaded: GeventPoolOverloaded,
    ConnectTimeout: GeventPoolConnectTimeout,
}
"""What the core raises, and what is raised in its place."""


def kill_behind(error: BaseException, before: BaseException | None) -> BaseException | None:
    """What was thrown into the greenlet before this error took its place, if anything was."""
    cause: BaseException | None = error
    while cause is not None and cause is not before and isinstance(cause, Exception):
        cause = cause.__context__
    return None if cause is before else cause
