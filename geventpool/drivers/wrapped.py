"""Connections inside of other objects, such as the proxies of OpenTelemetry's and ddtrace's tracing."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

from .base import Driver

_OF_A_CONNECTION = tuple(
    name
    for name, function in vars(Driver).items()
    if inspect.isfunction(function)
    and list(inspect.signature(function).parameters)[1:2] == ["connection"]
)
"""The functions that are to be handed the driver's own connection, and not what is around it."""


class Wrapped(Driver):
    """A driver for connections inside of other objects: each function gets the innermost one.

    It is looked up at each call. What is inside may change, as in an object that reconnects by itself, and
    some tracers make a class for each connection.

    Args:
        driver: what all else is taken from, such as the name.
        see: finds the innermost connection and its driver. Never switches.
    """

    def __init__(self, driver: Driver, see: Callable[[Any], tuple[Driver, Any]]) -> None:
        for name in dir(driver):
            if not name.startswith("_"):
                setattr(self, name, getattr(driver, name))
        for name in _OF_A_CONNECTION:
            setattr(self, name, partial(_ask, see, name))


def _ask(
    see: Callable[[Any], tuple[Driver, Any]], name: str, connection: Any, *arguments: Any
) -> Any:
    driver, innermost = see(connection)
    return getattr(driver, name)(innermost, *arguments)
