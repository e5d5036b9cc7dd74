"""From what is expected of a load: the simple formula, Little's law, and Erlang C."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from ..sizing.erlang import servers_for

USUAL_MOST: Final = {"postgresql": 100, "mysql": 151}
"""`max_connections` as the servers come."""

SHARE_OF_SERVER: Final = (0.2, 0.3)
"""What people leave one program of a server's connections; the rest is for others, and for you."""

MEMORY: Final = {"postgresql": 10.0, "mysql": 1.0}
"""Megabytes of a server's memory for each connection, as a rule of thumb: a process; a thread."""


@dataclass(frozen=True)
class Expectation:
    """What is expected. Durations are seconds.

    Attributes:
        concurrent: requests at once, of all processes.
        query_time: for which each holds a connection.
        acceptable_wait: for which a request may wait for one.
        rate: requests each second, of all processes; `None`: not known.
        share: of the requests that may wait for longer.
        workers: processes on each host.
        hosts: machines.
        database: of `USUAL_MOST`.
        max_connections: the server's; `None`: as servers come.
    """

    concurrent: float
    query_time: float
    acceptable_wait: float
    rate: float | None = None
    share: float = 0.01
    workers: int = 1
    hosts: int = 1
    database: str = "postgresql"
    max_connections: int | None = None

    @property
    def processes(self) -> int:
        """Each has a pool of its own."""
        return self.workers * self.hosts

    @property
    def most(self) -> int:
        """Connections of the server."""
        return self.max_connections or USUAL_MOST[self.database]

    @property
    def requests_per_second(self) -> float:
        """As given; or as if each came again as soon as its time is over, which is the most."""
        return self.concurrent / self.acceptable_wait if self.rate is None else self.rate


@dataclass(frozen=True)
class Sizes:
    """How many connections, by each way of reckoning.

    Attributes:
        guide: requests at once x query time / acceptable wait.
        load: mean number in use, by Little's law.
        erlang: of one pool for all.
        each: of a pool for each process, by Erlang C.
        total: of all processes then.
        room: connections that one program should have of the server, from and to.
    """

    guide: int
    load: float
    erlang: int
    each: int
    total: int
    room: tuple[int, int]

    @property
    def fits(self) -> bool:
        """Is the sum within what one program should have?"""
        return self.total <= self.room[1]


def sizes_for(it: Expectation) -> Sizes:
    """Reckons. Never switches."""
    guide = math.ceil(round(it.concurrent * it.query_time / it.acceptable_wait, 9))
    load = it.requests_per_second * it.query_time
    erlang = servers_for(load, it.query_time, it.acceptable_wait, it.share)
    each = servers_for(load / it.processes, it.query_time, it.acceptable_wait, it.share)
    low, high = (int(it.most * share) for share in SHARE_OF_SERVER)
    return Sizes(guide, load, erlang, each, each * it.processes, (low, high))


@dataclass(frozen=True)
class Return:
    """What pooling saves, against connecting for each request.

    Attributes:
        per_minute: requests, and so connects, each minute.
        seconds: of waiting for connects, each minute.
        cpu: seconds of computing in the program, each minute.
        memory: megabytes of the server's.
    """

    per_minute: float
    seconds: float
    cpu: float
    memory: float


def return_of(it: Expectation, sizes: Sizes, connect_time: float, connect_cpu: float) -> Return:
    """What it saves. Never switches.

    Args:
        it: what is expected.
        sizes: of the pools.
        connect_time: seconds that one connect takes.
        connect_cpu: of these, seconds of computing in the program.
    """
    per_minute = it.requests_per_second * 60
    without = max(it.concurrent, sizes.load)
    return Return(
        per_minute,
        per_minute * connect_time,
        per_minute * connect_cpu,
        max(0.0, without - sizes.total) * MEMORY[it.database],
    )
