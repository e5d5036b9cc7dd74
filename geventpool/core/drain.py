"""Waiting until nothing is in use: the end of a worker's life."""

from __future__ import annotations

from .ledger import Ledger
from .waiter import Clock, Waiter


class Drain:
    """Who waits for a pool to be out of use.

    Attributes:
        waiters: those who wait.
    """

    def __init__(self, ledger: Ledger, clock: Clock) -> None:
        self._ledger = ledger
        self._clock = clock
        self.waiters: list[Waiter] = []

    @property
    def is_done(self) -> bool:
        """Nothing is in use, and nobody is in line."""
        return not (self._ledger.in_use or self._ledger.waiting)

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
            return waiter.wait(self._clock, timeout)
        finally:
            self.waiters.remove(waiter)

    def notify(self) -> None:
        """Something has been released or refused. Never switches."""
        if self.waiters and self.is_done:
            for waiter in self.waiters:
                if not waiter.is_settled:
                    waiter.serve(True)
