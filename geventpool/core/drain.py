"""Waiting until nothing is in use: the end of a worker's life."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from typing import Protocol

from .shared import Shared
from .waiter import Waiter


class Drained(Protocol):
    """A pool, as far as its end goes."""

    def drain(self, timeout: float) -> bool:
        """Waits until nothing is in use."""

    def close(self) -> None:
        """Closes it."""

    def status(self) -> str:
        """In one line."""


def drain_and_close(
    pools: Collection[Drained], grace: Callable[[], float], warn: Callable[[str, str], object]
) -> None:
    """Lets what is in use come back, and closes all pools, whatever happens. Switches greenlets.

    Args:
        pools: which.
        grace: tells for how many seconds to wait, for all of them together.
        warn: is told, as a logger is, of a pool that is still in use then.
    """
    try:
        deadline = time.monotonic() + grace()
        for pool in pools:
            if not pool.drain(max(0.0, deadline - time.monotonic())):
                warn("geventpool: closing with connections in use: %s", pool.status())
    finally:
        # Also after a second signal, which arrives here as SystemExit.
        for pool in pools:
            pool.close()


class Drain:
    """Who waits for a pool to be out of use.

    Attributes:
        waiters: those who wait.
    """

    def __init__(self, pool: Shared) -> None:
        self._pool = pool
        self.waiters: list[Waiter] = []

    @property
    def is_done(self) -> bool:
        """Nothing is in use, and nobody is in line."""
        return not (self._pool.ledger.in_use or self._pool.line.callers)

    def wait(self, timeout: float) -> bool:
        """Waits until it is done. Switches greenlets.

        Returns:
            False if it was not after `timeout` seconds.
        """
        if self.is_done or timeout <= 0:
            return self.is_done
        waiter: Waiter = Waiter()
        self.waiters.append(waiter)
        try:
            return waiter.wait(self._pool.clock, timeout)
        finally:
            self.waiters.remove(waiter)

    def notify(self) -> None:
        """Something has been released or refused. Never switches."""
        if self.waiters and self.is_done:
            for waiter in self.waiters:
                if not waiter.is_settled:
                    waiter.serve(True)
