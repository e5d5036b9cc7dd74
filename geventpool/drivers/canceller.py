"""Sees abandoned queries to their end on the server, so that their places are not lent too early.

First a moment is waited: a short query ends by itself sooner than it could be cancelled. Then, where the
database has no cancel message of its own, one connection of the pool's cancels all that are pending: one
that is idle, or else the next that comes back, before anybody in line gets it. So no more connections than
the pool's maximum are open. Only if none comes back for a while, as all are in long queries, or there is
none left but abandoned ones, a connection is opened beside the pool: one at a time for each pool.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import gevent
from gevent.lock import Semaphore

from .abandoned_queries import AbandonedQuery

log = logging.getLogger("geventpool")

# Seconds. To cancel takes two round trips and more, and the connection that they go through is not at
# work meanwhile. Measured: less makes for more cancels of queries that were about to end; more keeps
# places taken by long queries.
_MOMENT = 0.02


class Canceller:
    """Cancels abandoned queries.

    Args:
        connect: opens a connection beside the pool.
        lend: lends one of the pool's, or `None` if there is none in time. What is raised inside means that
            it is lost.
        call: calls a function that may block its thread, and so may have to be called in another.
        allow: allows a connection beside the pool while it lasts, or raises.
    """

    def __init__(
        self,
        connect: Callable[[], Any],
        lend: Callable[[], AbstractContextManager[Any]],
        call: Callable[..., Any],
        allow: Callable[[], AbstractContextManager[object]] = contextlib.nullcontext,
    ) -> None:
        self._allow = allow
        self._connect = connect
        self._lend = lend
        self._call = call
        self._one_at_a_time = Semaphore(1)
        self._pending: list[AbandonedQuery] = []
        self._has_said = False

    def cancel(self, abandoned: AbandonedQuery, seconds: float) -> bool:
        """Has the server stop, and waits until it has let go. Switches greenlets.

        Called by greenlets of one hub: gevent's semaphores lose wake-ups between native threads.

        Returns:
            False: it was not seen to within so many seconds.
        """
        limit = gevent.Timeout.start_new(seconds)
        try:
            if abandoned.ends_by_itself(_MOMENT):
                return True
            try:
                self._cancel(abandoned)
            except Exception as error:
                self._say(error)
            return abandoned.wait(seconds)
        except gevent.Timeout as error:
            if error is not limit:
                raise
            return False
        finally:
            limit.close()
            abandoned.close()

    def _cancel(self, abandoned: AbandonedQuery) -> None:
        if not abandoned.needs_connection:
            with self._one_at_a_time:
                self._call(abandoned.cancel, self._connect)
            return
        self._pending.append(abandoned)
        try:
            with self._one_at_a_time:
                if abandoned in self._pending:  # else it was cancelled together with another
                    self._cancel_pending(type(abandoned))
        finally:
            if abandoned in self._pending:
                self._pending.remove(abandoned)

    def _cancel_pending(self, kind: type[AbandonedQuery]) -> None:
        """Cancels all that wait for it by now."""
        # A connection that was idle may turn out to be dead; then a fresh one is asked.
        with contextlib.suppress(Exception), self._lend() as connection:
            if connection is not None:
                self._cancel_through(connection, kind)
                return
        if any(not abandoned.is_over for abandoned in self._pending):
            with self._allow():
                helper = self._call(self._connect)
                try:
                    self._cancel_through(helper, kind)
                finally:
                    with contextlib.suppress(Exception):
                        self._call(helper.close)

    def _cancel_through(self, connection: Any, kind: type[AbandonedQuery]) -> None:
        abandoned_queries = [abandoned for abandoned in self._pending if type(abandoned) is kind]
        for refusal in self._call(kind.cancel_all, abandoned_queries, connection):
            self._say(refusal)
        self._pending = [
            abandoned for abandoned in self._pending if abandoned not in abandoned_queries
        ]

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
