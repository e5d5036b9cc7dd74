"""One attempt to open a resource, bounded in time."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import gevent

from ..errors import ConnectTimeout, PoolTimeout
from . import causes
from .shared import Shared


def attempt(pool: Shared) -> Any:
    """Opens a resource, in a greenlet of the pool's own. Switches greenlets.

    Raises:
        ConnectTimeout: it has taken longer than `connect_timeout`.
        BaseException: what the handlers have raised.
    """
    limit = pool.config.connect_timeout
    late = ConnectTimeout(
        f"{pool!r}: connecting has taken longer than connect_timeout={limit:g} s: look at the server and "
        "the network",
        causes.DATABASE_DOWN,
    )
    give_up = partial(_throw_soon, gevent.getcurrent(), late)
    timer = pool.clock.call_later(limit, give_up, ref=False)
    try:
        return pool.handlers.open()
    finally:
        timer.stop()


@contextmanager
def one_beside(pool: Shared) -> Iterator[None]:
    """While it lasts, a resource may be open beside the pool: it needs a permit as any other.

    Raises:
        PoolTimeout: there is none for now.
    """
    permits = pool.permits
    if permits is None:
        yield
        return
    if not permits.take():
        raise PoolTimeout(f"{pool!r}: no permit is left for a connection beside it", causes.FLEET)
    try:
        yield
    finally:
        permits.give_back()


def another(error: BaseException) -> BaseException:
    """The same error for another greenlet, so that their tracebacks do not pile up on one object."""
    try:
        again: Any = copy.copy(error)
    except Exception:  # an exception class need not be copyable
        return error
    return again.with_traceback(error.__traceback__) if type(again) is type(error) else error


def _throw_soon(greenlet: Any, error: BaseException) -> None:
    gevent.get_hub().loop.run_callback(_throw, greenlet, error)


def _throw(greenlet: Any, error: BaseException) -> None:
    if not greenlet.dead:  # else it has just come to its end, and the error would hit us
        greenlet.throw(error)
