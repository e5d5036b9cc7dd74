"""Erlang's formula of waiting (M/M/c): how many connections a load needs so that few wait for long.

Callers come at random (Poisson) and hold a connection for a random time (exponential); who finds none
waits in line. A. K. Erlang (1917); L. Kleinrock, Queueing Systems I (1975), section 3.5. The load is in
Erlang: the mean number in use, by Little's law the rate times the mean hold. Never switches.
"""

from __future__ import annotations

import math


def erlang_b(servers: int, load: float) -> float:
    """The chance that all are in use where nobody waits: B(n) = a·B(n-1) / (n + a·B(n-1)).

    By its inverse, I(n) = 1 + I(n-1)·n/a, which only adds what is positive (D. L. Jagerman 1974).
    """
    if load <= 0.0:
        return 0.0 if servers else 1.0
    inverse = 1.0
    for count in range(1, servers + 1):
        inverse = 1.0 + inverse * count / load
    return 1.0 / inverse


def erlang_c(servers: int, load: float) -> float:
    """The chance that a caller has to wait; 1 if the load is above what there is.

    C = B / (1 - a/c · (1 - B)).
    """
    if load >= servers:
        return 1.0
    loss = erlang_b(servers, load)
    return loss / (1.0 - load / servers * (1.0 - loss))


def mean_wait(servers: int, load: float, hold: float) -> float:
    """Mean seconds that a caller waits, those who need not wait included; infinite without end.

    Args:
        servers: connections.
        load: mean number in use.
        hold: mean seconds for which one is held.
    """
    if load >= servers:
        return math.inf
    return erlang_c(servers, load) * hold / (servers - load)


def chance_beyond(servers: int, load: float, hold: float, wait: float) -> float:
    """The chance that a caller waits for longer: C·exp(-(c - a)·wait/hold)."""
    if load >= servers:
        return 1.0
    return erlang_c(servers, load) * math.exp(-(servers - load) * wait / hold)


def servers_for(load: float, hold: float, wait: float, share: float) -> int:
    """The fewest connections with which at most this share of callers waits for longer.

    Args:
        load: mean number in use.
        hold: mean seconds for which one is held.
        wait: seconds that are acceptable.
        share: of the callers, above 0.
    """
    count = math.floor(load) + 1
    while chance_beyond(count, load, hold, wait) > share:
        count += 1
    return count
