"""A server that more connections make slower, and callers that always wait, in virtual time.

The universal scalability law (Gunther 2007): with n queries at once each takes

    work · (1 + sigma·(n - 1) + kappa·n·(n - 1)) + wait

seconds: a query's own work, slowed by what has to be done one after the other (sigma) and by what
queries cost each other (kappa), and waiting that needs nothing of the server.
"""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Protocol


@dataclass(frozen=True)
class Knee:
    """A server under one load.

    Attributes:
        work: seconds that a query takes alone.
        sigma: contention, 0 to 1.
        kappa: coherence.
        wait: seconds of each query that need nothing of the server.
    """

    work: float
    sigma: float = 0.0
    kappa: float = 0.0
    wait: float = 0.0

    def seconds(self, at_once: int) -> float:
        """What a query takes on average while so many run."""
        others = at_once - 1
        return self.work * (1 + self.sigma * others + self.kappa * at_once * others) + self.wait

    def throughput(self, at_once: int) -> float:
        """Queries per second while so many run."""
        return at_once / self.seconds(at_once)

    def best(self, most: int) -> int:
        """The cap with the highest throughput."""
        return max(range(1, most + 1), key=self.throughput)


class CapPolicy(Protocol):
    """What says how many may run at once; `geventpool.sizing.cap.CapController` is one."""

    @property
    def cap(self) -> int:
        """How many, now."""

    def returned(self, now: float, held: float, in_use: int, waiting: int) -> object:
        """A query has ended."""


@dataclass(frozen=True)
class Ran:
    """What a policy has done.

    Attributes:
        ends: when queries ended, in seconds.
        caps: (when, cap) at each change.
    """

    ends: Sequence[float]
    caps: Sequence[tuple[float, int]]

    def throughput(self, since: float, until: float) -> float:
        """Queries per second between two times."""
        return (bisect_right(self.ends, until) - bisect_right(self.ends, since)) / (until - since)


def run(
    policy: CapPolicy,
    server: Callable[[float], Knee],
    clients: int | Callable[[float], int],
    seconds: float,
    seed: int = 0,
    spread: float = 0.3,
) -> Ran:
    """Callers who ask again at once, through a policy's cap, to a server that may change.

    Args:
        policy: says how many may run.
        server: what it is like at a time.
        clients: how many ask; or how many at a time.
        seconds: for how long.
        seed: of chance; the same gives the same.
        spread: the standard deviation of a query's time, as a share of its mean.
    """
    chance = random.Random(seed)
    shape = 1.0 / spread**2 if spread else 0.0
    now, in_use = 0.0, 0
    running: list[tuple[float, float]] = []
    ends: list[float] = []
    caps = [(0.0, policy.cap)]
    while now < seconds:
        asking = clients if isinstance(clients, int) else clients(now)
        while in_use < min(policy.cap, asking):
            in_use += 1
            factor = chance.gammavariate(shape, 1.0 / shape) if shape else 1.0
            heappush(running, (now + factor * server(now).seconds(in_use), now))
        if not running:
            break
        now, since = heappop(running)
        policy.returned(now, now - since, in_use, max(0, asking - in_use))
        in_use -= 1
        ends.append(now)
        if policy.cap != caps[-1][1]:
            caps.append((now, policy.cap))
    return Ran(ends, caps)
