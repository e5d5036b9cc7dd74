"""What the locust process writes down: each request, and four figures ten times a second."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import gevent
from locust.env import Environment
from sqlalchemy import Engine, event

from geventpool.sqlalchemy import GeventPool

INTERVAL = 0.1


class Recorder:
    """Keeps the record of one test; made when it starts, written when it stops.

    Times are seconds since the start.

    Args:
        environment: locust's.
        engine: whose connections are counted and whose pool is sampled.

    Attributes:
        started: the start, on the system's monotonic clock, which other processes share.
        in_flight: transactions that have a connection or want one: the demand.
    """

    def __init__(self, environment: Environment, engine: Engine | None = None) -> None:
        self.started = time.monotonic()
        self.in_flight = 0
        self._environment = environment
        self._requests: list[list[Any]] = []
        self._samples: list[list[float]] = []
        self._opens: list[float] = []
        self._live = 0
        self._engine = engine
        if engine is not None:
            event.listen(engine, "connect", self._on_connect)
        if engine is not None and not isinstance(engine.pool, GeventPool):
            event.listen(engine, "close", self._on_close)  # NullPool keeps no books
        environment.events.request.add_listener(self._on_request)
        self._sampling = gevent.spawn(self._sample)

    def now(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.started

    def announce(self, file: Path | None) -> None:
        """Tell whoever started this process that the load begins."""
        if file is not None:
            _replace(file.with_suffix(".started"), str(self.started))

    def write(self, file: Path | None) -> None:
        """End the record."""
        self._sampling.kill()
        self._environment.events.request.remove_listener(self._on_request)
        if file is not None:
            record = {
                "started": self.started,
                "ended": self.now(),
                "requests": self._requests,
                "samples": self._samples,
                "opens": self._opens,
            }
            _replace(file, json.dumps(record))

    def _on_request(
        self, name: str, response_time: float, exception: BaseException | None, **more: Any
    ) -> None:
        """Its end, kind, seconds, seconds of them beyond its queries' own time, and error."""
        beyond = (more.get("context") or {}).get("beyond", response_time / 1e3)
        problem = None if exception is None else _first_line(exception)
        self._requests.append([self.now(), name, response_time / 1e3, beyond, problem])

    def _on_connect(self, _connection: object, _record: object) -> None:
        self._opens.append(self.now())
        self._live += 1

    def _on_close(self, _connection: object, _record: object) -> None:
        self._live -= 1

    def _sample(self) -> None:
        while True:
            users = self._environment.runner.user_count if self._environment.runner else 0
            self._samples.append([self.now(), users, self.in_flight, *self._held_and_level()])
            gevent.sleep(INTERVAL)

    def _held_and_level(self) -> tuple[float, float]:
        """Connections that the pool believes to have, and how many it wants (-1: it has no idea)."""
        pool = self._engine.pool if self._engine is not None else None
        if isinstance(pool, GeventPool):
            stats = pool.stats()
            return stats.size, stats.level
        return self._live, -1


def _first_line(exception: BaseException) -> str:
    text = str(exception).strip().partition("\n")[0]
    return f"{type(exception).__name__}: {text}"[:200]


def _replace(file: Path, text: str) -> None:
    """Write a file as a whole: no reader finds half of it."""
    part = file.with_suffix(".part")
    part.write_text(text)
    part.replace(file)
