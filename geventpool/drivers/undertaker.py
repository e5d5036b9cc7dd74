"""Sees abandoned queries to their end on the server, so that their places are not lent too early.

Where the database has no cancel message of its own, a query is ended through a connection beside the
pool: one at a time for each pool.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import gevent
from gevent.lock import Semaphore

from .base import Ghost

log = logging.getLogger("geventpool")


class Undertaker:
    """Cancels abandoned queries.

    Args:
        connect: opens a connection beside the pool.
    """

    def __init__(self, connect: Callable[[], Any]) -> None:
        self._connect = connect
        self._one_at_a_time = Semaphore(1)
        self._has_said = False

    def lay(self, ghost: Ghost, seconds: float) -> bool:
        """Has the server stop, and waits until it has let go. Switches greenlets.

        Returns:
            False: it was not seen to within so many seconds.
        """
        limit = gevent.Timeout.start_new(seconds)
        try:
            try:
                with self._one_at_a_time:
                    ghost.cancel(self._connect)
            except Exception as error:
                self._say(error)
            return ghost.wait(seconds)
        except gevent.Timeout as error:
            if error is not limit:
                raise
            return False
        finally:
            limit.close()
            ghost.close()

    def _say(self, error: Exception) -> None:
        """Once: it will be the same the next time, and the figures count it."""
        if not self._has_said:
            self._has_said = True
            log.warning(
                "An abandoned query could not be cancelled on the server (%s: %s). Its place in the pool "
                "stays taken until the server is done or cancel_deadline is over",
                type(error).__name__,
                error,
            )
