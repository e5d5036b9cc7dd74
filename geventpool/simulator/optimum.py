"""What a pool that knows the future would cost, and what `QueuePool` would with the best size.

Level k is busy while at least k connections are in use. With the connection that was returned last lent
first, the idle gaps of a connection are the gaps of a level: docs/sizing.md has the argument.
"""

from __future__ import annotations

from array import array

from .trace import Trace


def optimum(trace: Trace, breakeven: float) -> float:
    """The least possible cost, exact: C for the first use of each level, and min(gap, C) for each gap.

    Args:
        trace: the load.
        breakeven: C, the seconds of idling that one connect is worth.

    Returns:
        Seconds. Idling after the last use of a level is not needed, so the horizon does not matter.
    """
    return _clairvoyant(trace, breakeven)[0]


def optimum_opens(trace: Trace, breakeven: float) -> int:
    """How many connections the optimum opens."""
    return _clairvoyant(trace, breakeven)[1]


def _clairvoyant(trace: Trace, breakeven: float) -> tuple[float, int]:
    fell_at: list[float] = [float("-inf")]
    in_use, cost, opens = 0, 0.0, 0
    for now, is_rise in trace.events():
        if is_rise:
            in_use += 1
            if in_use == len(fell_at):
                fell_at.append(float("-inf"))
            gap = now - fell_at[in_use]
            if gap < breakeven:
                cost += gap
            else:
                cost += breakeven
                opens += 1
        else:
            fell_at[in_use] = now
            in_use -= 1
    return cost, opens


def best_queuepool_size(trace: Trace, breakeven: float, max_size: int, horizon: float) -> int:
    """The `pool_size` with which SQLAlchemy's QueuePool would have cost least.

    It keeps up to `pool_size` idle connections for ever and closes what comes back beyond. With
    instant connects that is a walk between 0 and `pool_size`. Sizes are tried on a grid, then those
    around the best.

    Args:
        trace: the load.
        breakeven: C.
        max_size: the largest size that counts.
        horizon: until when idling is charged.
    """
    pauses, steps, peak = _steps(trace, horizon)
    costs: dict[int, float] = {}

    def cost(size: int) -> float:
        if size not in costs:
            costs[size] = _walk(pauses, steps, size, breakeven)
        return costs[size]

    top = max(1, min(peak, max_size))
    grid = {min(top, int(8 * 1.25**power)) for power in range(-9, 60)} - {0}
    best = min(sorted(grid), key=cost)
    step = max(1, best // 8)
    while step:
        around = [near for near in (best - step, best + step) if 1 <= near <= top]
        better = min([best, *around], key=cost)
        if better == best:
            step //= 2
        best = better
    return best


def _steps(trace: Trace, horizon: float) -> tuple[array[float], array[int], int]:
    """Pauses between events, with the one up to the horizon; rises and falls; most in use."""
    pauses, steps = array("d"), array("b")
    before, in_use, peak = trace.start, 0, 0
    for now, is_rise in trace.events():
        pauses.append(now - before)
        steps.append(1 if is_rise else -1)
        in_use += steps[-1]
        peak, before = max(peak, in_use), now
    pauses.append(max(0.0, horizon - before))
    return pauses, steps, peak


def _walk(pauses: array[float], steps: array[int], size: int, breakeven: float) -> float:
    idle, opens, idle_seconds = 0, 0, 0.0
    for pause, step in zip(pauses, steps, strict=False):
        idle_seconds += idle * pause
        if step > 0:
            if idle:
                idle -= 1
            else:
                opens += 1
        elif idle < size:
            idle += 1
    return opens * breakeven + idle_seconds + idle * pauses[-1]
