"""Whom an engine's connections go to, as far as its pool can know."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

# What drivers call them, in `dialect.create_connect_args`.
_TELLING: Final = (
    ("host", "unix_socket", "dsn"),
    ("port",),
    ("database", "db", "dbname"),
    ("user", "username"),
)


def target_of(creator: Callable[..., Any], dialect: Any) -> tuple[object, ...] | None:
    """What tells the server, the database and the account of an engine from others.

    A pool is given a function that connects. `create_engine` makes one that has the arguments of the
    driver's `connect` in its closure; a program's own tells nothing.

    Returns:
        `None`: there is no server. Empty: it is not known.
    """
    name = getattr(dialect, "name", "")
    if name == "sqlite":
        return None
    names = getattr(getattr(creator, "__code__", None), "co_freevars", ())
    cells = getattr(creator, "__closure__", None) or ()
    found = dict(zip(names, cells, strict=False)).get("cparams")
    arguments = getattr(found, "cell_contents", None)
    if not isinstance(arguments, dict):
        return ()
    told = [next((arguments[key] for key in keys if arguments.get(key)), "") for keys in _TELLING]
    return (name, *told) if any(told) else ()
