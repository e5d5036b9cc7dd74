"""Are a pool's books right? What is asked after every kind of trouble."""

from __future__ import annotations

import contextlib
import gc
import time
from typing import Any

import gevent

from .base import eventually
from .observer import Observer


def borrow_all(pool: Any, seconds: float) -> str:
    """Borrows the whole maximum at once, asks in each, and gives all back.

    Returns:
        What is wrong; empty if nothing is.
    """
    lent: list[Any] = []
    try:
        with gevent.Timeout(seconds):
            for _ in range(pool.max_size):
                lent.append(pool.lend())
            for token, connection in enumerate(lent):
                answer = connection.query(f"select {token}")
                if answer != token:
                    return f"another query's answer: {answer!r}"
    except gevent.Timeout:
        return f"{len(lent)} of {pool.max_size} could be borrowed"
    except Exception as error:
        if "imeout" in type(error).__name__:
            print(error, flush=True)  # the child's output is shown if it fails
            return f"{len(lent)} of {pool.max_size} could be borrowed"
        return f"{type(error).__name__}: {error}".splitlines()[0]
    finally:
        for connection in lent:
            with contextlib.suppress(Exception):  # the pool's problem, seen by what comes next
                connection.close()
    return ""


def server_agrees(pool: Any, observer: Observer, seconds: float = 2) -> str:
    """Has the server no transaction open, and as many connections as the pool counts?

    The server needs a moment to notice that a socket is gone.

    Returns:
        What is wrong; empty if nothing is.
    """
    seen: list[tuple[int, int, int]] = []

    def agrees() -> bool:
        gc.collect()
        seen[:] = [(observer.transactions(), observer.connections(), pool.counted())]
        return seen[0][0] == 0 and seen[0][1] == seen[0][2]

    if eventually(agrees, seconds):
        return ""
    transactions, connections, counted = seen[0]
    if transactions:
        return f"{transactions} transactions left open"
    return f"{connections} connections on the server, {counted} in the pool's books"


def are_right(pool: Any, observer: Observer, seconds: float = 3) -> str:
    """Both. Returns: what is wrong; empty if nothing is."""
    return borrow_all(pool, seconds) or server_agrees(pool, observer)


def warm_up(pool: Any, count: int) -> None:
    """Has the pool open connections, and gives them back."""
    lent = [pool.lend() for _ in range(count)]
    for connection in lent:
        connection.query("select 1")
    for connection in lent:
        connection.close()


def end(pool: Any) -> None:
    """Closes a pool that may be damaged, if that is to be had in a few seconds."""
    with gevent.Timeout(7, False), contextlib.suppress(Exception):
        pool.close()


def now() -> float:
    return time.monotonic()
