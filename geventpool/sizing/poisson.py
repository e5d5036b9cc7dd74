"""Poisson and Erlang formulas, stable up to a mean of ten million.

With Poisson arrivals and any distribution of the time that a connection is held, the number in use
(an M/G/∞ queue) is Poisson-distributed: L. Takács, Introduction to the Theory of Queues (1962).
Nothing here takes more than O(√mean) steps beyond the mean. Never switches.
"""

from __future__ import annotations

import math
from typing import Final

_NEGLIGIBLE: Final = 1e-17
_HOPELESS: Final = 1e15


def log_pmf(count: int, mean: float) -> float:
    """The logarithm of P(L = count), L Poisson-distributed: count·ln(mean) - mean - ln(count!)."""
    if mean <= 0.0:
        return 0.0 if count == 0 else -math.inf
    return count * math.log(mean) - mean - math.lgamma(count + 1.0)


def log_tail(count: int, mean: float) -> float:
    """The logarithm of P(L ≥ count), L Poisson-distributed.

    Above the mean the tail is pmf(count)·(1 + mean/(count+1) + mean²/((count+1)(count+2)) + …), all
    terms positive (Abramowitz & Stegun 6.5.29 with 26.4.21); below it, the complement of the same
    downwards.
    """
    if count <= 0:
        return 0.0
    if mean <= 0.0:
        return -math.inf
    if count > mean:
        return log_pmf(count, mean) + math.log(_upward(count, mean))
    below = math.exp(log_pmf(count - 1, mean)) * _downward(count - 1, mean)
    return math.log1p(-below) if below < 1.0 else -math.inf


def level_for(mean: float, chance: float) -> int:
    """The smallest n ≥ 1 with P(L ≥ n) ≤ chance.

    That is one more than the quantile `scipy.stats.poisson.ppf(1 - chance, mean)`: with n
    connections another is opened when somebody asks while n are in use, which has the chance
    1 - CDF(n - 1).

    Args:
        mean: mean number in use.
        chance: accepted chance that n do not suffice, above 0 and at most 1/2.
    """
    if mean <= 0.0:
        return 1
    count = int(mean)
    pmf = math.exp(log_pmf(count, mean))
    # Upwards from the mode until the geometric series that bounds the tail from above fits.
    while pmf * (count + 1) > chance * (count + 1 - mean):
        count += 1
        pmf *= mean / count
    tail = pmf * _upward(count, mean)
    # Then back while the exact tail still fits: only additions of positive terms, nothing cancels.
    while count > 1:
        pmf *= count / mean
        tail += pmf
        if tail > chance:
            return count
        count -= 1
    return 1


def mean_gap(level: int, mean: float, rate: float) -> float:
    """Mean seconds for which connection `level` of a LIFO pool lies idle between two uses.

    Requests overflow from the first level - 1 connections at rate·B(level - 1, mean), where B is
    Erlang's loss formula (A. K. Erlang 1917). By its recursion in the inverse, I = 1/B:
    I(0) = 1, I(n) = 1 + I(n-1)·n/mean (D. L. Jagerman 1974). Far below a large mean I is within
    1.3 % of 1/(1 - n/mean), so that the recursion can start nine standard deviations under it.

    Args:
        level: 1 for the connection that is used first.
        mean: mean number in use.
        rate: requests per second.

    Returns:
        Seconds; `inf` if they are beyond reckoning.
    """
    if rate <= 0.0:
        return math.inf
    busy = level - 1
    if busy <= 0:
        return 1.0 / rate
    if mean <= 0.0:
        return math.inf
    count, inverse = 0, 1.0
    if mean > 100.0:
        count = min(busy, int(mean - 9.0 * math.sqrt(mean)))
        inverse = 1.0 / (1.0 - count / mean)
    while count < busy:
        count += 1
        inverse = 1.0 + inverse * count / mean
        if inverse > _HOPELESS:
            return math.inf
    return inverse / rate


def _upward(count: int, mean: float) -> float:
    """P(L ≥ count) / P(L = count), for a count above mean - 1."""
    total = term = 1.0
    while term > total * _NEGLIGIBLE:
        count += 1
        term *= mean / count
        total += term
    return total


def _downward(count: int, mean: float) -> float:
    """P(L ≤ count) / P(L = count), for a count below the mean."""
    total = term = 1.0
    while count > 0 and term > total * _NEGLIGIBLE:
        term *= count / mean
        total += term
        count -= 1
    return total
