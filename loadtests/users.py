"""Users that begin requests at their own pace, and such of them as drive an engine."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import gevent
from gevent import GreenletExit
from locust import User
from locust.exception import RescheduleTask
from sqlalchemy import Connection, Engine, text

from loadtests.load import engine_of, recorder_of

__all__ = ["Paced", "SQLAlchemyUser"]

SLEEP = {"mysql": "SELECT SLEEP(:seconds)", "postgresql": "SELECT pg_sleep(:seconds)"}


class GaveUp(Exception):
    """A user had no answer within `--give-up` seconds, and went away."""


class Paced(User):
    """Begins a request at random moments, `--rate` times a second on average.

    A request that takes long does not slow the user down: one that should have begun meanwhile begins
    right after it. Each user has random numbers of its own, from the seed and its number.
    """

    abstract = True
    _numbers = 0

    def __init__(self, environment: Any) -> None:
        super().__init__(environment)
        settings = environment.parsed_options
        Paced._numbers += 1
        self.random = random.Random(f"{settings.seed}/{Paced._numbers}")
        self._rate = settings.rate
        self._next = time.perf_counter()

    def on_start(self) -> None:
        """Not all at once."""
        self.wait()

    def wait_time(self) -> float:
        """Seconds until the next request."""
        self._next += self.random.expovariate(self._rate)
        return max(0.0, self._next - time.perf_counter())


class SQLAlchemyUser(Paced):
    """Drives an engine in locust's own process; each task is a transaction.

    For transactions of your own, make a subclass whose tasks use `self.transaction(name)`.
    """

    abstract = True
    host = "the database of --url"  # so that locust's page does not ask for one

    @property
    def engine(self) -> Engine:
        """The engine of this test, with the pool that `--pool` names."""
        return engine_of(self.environment)

    @contextmanager
    def transaction(self, name: str, own_seconds: float = 0.0) -> Iterator[Connection]:
        """A transaction, from asking for a connection to its return: one request of locust's.

        An error ends it, is counted, and goes no further.

        Args:
            name: under which it is counted.
            own_seconds: what its queries would take with a connection at hand.
        """
        recorder = recorder_of(self.environment)
        assert recorder is not None
        began = time.perf_counter()
        problem: Exception | None = None
        recorder.in_flight += 1
        patience = gevent.Timeout(self.environment.parsed_options.give_up or None)
        is_begun = False
        try:
            with patience, self.engine.begin() as connection:
                is_begun = True
                yield connection
        except gevent.Timeout as timeout:
            if timeout is not patience:
                raise
            problem = GaveUp(f"after {timeout.seconds:g} s")
        except Exception as error:
            if _is_killed(error):
                raise GreenletExit from error
            problem = error
        finally:
            recorder.in_flight -= 1
        seconds = time.perf_counter() - began
        self.environment.events.request.fire(
            request_type="transaction",
            name=name,
            response_time=seconds * 1e3,
            response_length=0,
            exception=problem,
            context={"beyond": max(0.0, seconds - own_seconds)},
        )
        if not is_begun:
            raise RescheduleTask  # no connection, no transaction: locust goes on with the next task

    def take_time(self, connection: Connection, seconds: float) -> None:
        """Have the server busy with this connection, or rather asleep, for so long."""
        connection.execute(text(SLEEP[connection.dialect.name]), {"seconds": round(seconds, 4)})


def _is_killed(error: BaseException) -> bool:
    """Was this raised on the way out of a kill, and so has hidden it?

    SQLAlchemy's pre-ping does that with psycopg: it cannot set autocommit back in the middle of a ping.
    """
    context = error.__context__
    return context is not None and (isinstance(context, GreenletExit) or _is_killed(context))
