"""How greenlets are killed here: at a given switch, and by what."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import gevent
import greenlet


class Kill(BaseException):
    """Neither an Exception nor anything that gevent knows."""


KINDS: tuple[type[BaseException], ...] = (gevent.GreenletExit, gevent.Timeout, Kill)


def run_and_kill(
    unit: Callable[[], Any], number: int, error: BaseException
) -> tuple[bool, bool, Any]:
    """Runs a unit of work and throws the error at its n-th switch away from itself.

    Returns:
        Was there an n-th switch; has the error hit it (what it waited for may have ended it before); and
        what came out of the unit, `"hung"` if nothing did.
    """
    victim = gevent.Greenlet(unit)
    switches = itertools.count(1)
    reached: list[int] = []
    hit: list[int] = []

    def strike() -> None:
        if not victim.dead:
            hit.append(number)
            victim.throw(error)

    def trace(kind: str, greenlets: tuple[Any, Any]) -> None:
        if kind == "switch" and greenlets[0] is victim and next(switches) == number:
            reached.append(number)
            gevent.get_hub().loop.run_callback(strike)

    before = greenlet.settrace(trace)
    hub = gevent.get_hub()
    was_error, hub.NOT_ERROR = hub.NOT_ERROR, (BaseException,)  # nothing to print: it is judged
    try:
        victim.start()
        victim.join(10)
    finally:
        hub.NOT_ERROR = was_error
        greenlet.settrace(before)
    if not victim.dead:
        victim.kill(block=False)
        return bool(reached), bool(hit), "hung"
    out = victim.exception if victim.exception is not None else victim.value
    return bool(reached), bool(hit), out


def forget(error: BaseException) -> None:
    """Drops the frames that an error refers to: they would keep a connection from being collected."""
    error.__traceback__ = error.__context__ = error.__cause__ = None
