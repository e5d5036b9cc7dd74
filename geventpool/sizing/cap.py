"""Finds the smallest cap with the best throughput, from what saturated periods tell. Pure, no gevent.

Throughput is compared, never hold times: a connection that is kept during an outbound call only looks
as if more connections were better, which is true then.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Generator
from dataclasses import dataclass
from typing import Final

LEAST: Final = 2
"""Of one, whoever needs a second connection waits for itself."""

_TOLERANCE: Final = 0.015
"""Half of the 3 % that a smaller cap may cost: climbing may miss one half, shrinking the other."""

_LOOKS: Final = {3: 6.965, 4: 4.541, 6: 3.365, 8: 2.998, 12: 2.718}
"""After how many pairs a comparison is looked at, and Student's t (1908) for a chance of 1 % on one side.

Five looks share an error of 5 % (Bonferroni's inequality; Dunn 1961).
"""
_LAST_LOOK: Final = max(_LOOKS)

_SPAN: Final = 0.1
_LONGEST: Final = 2.0
_FORGET: Final = 600.0
"""Seconds: a window is no shorter; it ends even with few returns; what was learnt is forgotten."""
_RETURNS: Final = 64
_ROUNDS: Final = 4
"""A window has this many returns, and this many for each connection: one slow query is not all of it."""

_BASELINE: Final = 16
_SLACK: Final = 1.0
_ALARM: Final = 8.0
_QUIET: Final = 0.04
"""Page's cumulative sum (1954): windows that make the baseline, slack and limit in deviations, and the
least deviation, a share, so that a very even load does not raise an alarm at nothing. The slack is half
of the change that is looked for: two deviations. Half of that let chance raise alarms, as the mean of the
baseline is itself off by a quarter of a deviation."""
_MOVED: Final = 0.25
_DROPPED: Final = 3


class _Restart(Exception):
    """The load has changed in the midst of a search."""


@dataclass(frozen=True)
class Decision:
    """Why the cap is what it is.

    Attributes:
        before: the cap.
        cap: what it is from then on.
        reason: for people.
        at: seconds.
    """

    before: int
    cap: int
    reason: str
    at: float

    def __str__(self) -> str:
        return f"cap {self.before} → {self.cap}: {self.reason}"


@dataclass
class _Window:
    """What was seen at one cap."""

    since: float
    count: int = 0
    empty: int = 0

    @property
    def is_saturated(self) -> bool:
        return self.empty * 20 <= self.count


@dataclass(frozen=True)
class _Seen:
    rate: float
    is_saturated: bool


_Steps = Generator[int, _Seen, None]


class CapController:
    """Moves a cap between `LEAST` and a bound.

    Args:
        bound: the cap is never higher.
        start: where it begins.

    Attributes:
        cap: what holds now, probes included.
        point: where the cap is between probes.
        is_searching: probes are under way.
        last: the last decision; `None`: there was none yet.
    """

    def __init__(self, bound: int, start: int = 20) -> None:
        self.bound = max(1, bound)
        self.cap = self.point = max(min(start, self.bound), min(LEAST, self.bound))
        self.is_searching = False
        self.last: Decision | None = None
        self._reason = "first search"
        self._least, self._least_until = LEAST, -math.inf
        self._steps: _Steps | None = None
        self._changed_at = self._saturated_at = -math.inf
        self._is_settled = True
        self._held = 0.0
        self._window: _Window | None = None
        self._started_from = self.cap
        self._forget()

    def returned(self, now: float, held: float, in_use: int, waiting: int) -> Decision | None:
        """A connection has come back. O(1) but at the end of a window. Never switches.

        Args:
            now: monotonic seconds.
            held: seconds that it was lent.
            in_use: connections that are lent, this one included.
            waiting: callers in line.

        Returns:
            What was decided, if something was; `cap` may have changed for a probe without it.
        """
        self._held += (held - self._held) * (0.1 if self._held else 1.0)
        if not self._is_settled:
            self._is_settled = self._has_settled(now, in_use, waiting)
            self._window = None
            return None
        window = self._window
        if window is None:
            self._window = _Window(now)
            return None
        window.count += 1
        window.empty += not waiting
        elapsed = now - window.since
        is_full = window.count >= max(_RETURNS, _ROUNDS * self.cap) and elapsed >= _SPAN
        if not is_full and elapsed < _LONGEST:
            return None
        self._window = None
        if elapsed > 2 * _LONGEST:  # a pause, which tells nothing
            return None
        return self._finish(now, _Seen(window.count / elapsed, window.is_saturated))

    def found_ring(self, now: float) -> Decision | None:
        """Callers that hold connections wait for each other: one more, if the bound has room.

        Returns:
            The decision; `None`: there is no room, and somebody has to be refused.
        """
        if self.cap >= self.bound:
            return None
        before = self.cap  # perhaps of a probe, which says nothing against a higher cap
        self._least, self._least_until = before + 1, now + _FORGET
        self._end_search(now, max(before + 1, self.point))
        reason = "holders waited for each other"
        self.last = Decision(before, self.cap, reason, now)
        return self.last

    def _has_settled(self, now: float, in_use: int, waiting: int) -> bool:
        """Is the cap in use, and is what was begun under the one before over?"""
        elapsed = now - self._changed_at
        if elapsed < 2.0 * self._held:
            return False
        return in_use == self.cap or not waiting or elapsed >= 1.0 + 4.0 * self._held

    def _finish(self, now: float, seen: _Seen) -> Decision | None:
        if seen.is_saturated:
            if now - self._saturated_at > _FORGET:
                self._forget()
            self._saturated_at = now
        if self._steps is None:
            why = self._notice(seen) if seen.is_saturated else ""
            if not why:
                return None
            self._begin_search(why)
        assert self._steps is not None
        try:
            self._move(now, self._steps.send(seen))
        except StopIteration:
            return self._decide(now)
        except _Restart:
            self._begin_search("the load changed during the search")
            self._move(now, self._steps.send(seen))
        return None

    def _begin_search(self, why: str) -> None:
        self.is_searching, self._reason = True, why
        self._started_from = self.point
        self._steps = self._search()
        next(self._steps)

    def _end_search(self, now: float, point: int) -> None:
        self._steps, self.is_searching = None, False
        self.point = point
        self._forget(is_known=True)
        self._move(now, point)

    def _decide(self, now: float) -> Decision | None:
        before = self._started_from
        self._end_search(now, self.point)
        if before == self.point:
            return None
        self.last = Decision(before, self.point, f"{self._told} ({self._reason})", now)
        return self.last

    def _move(self, now: float, cap: int) -> None:
        if cap != self.cap:
            self.cap, self._changed_at, self._is_settled = cap, now, False

    # The search.

    def _search(self) -> _Steps:
        """Climbs by doubling while that pays, then the smallest by bisection, all against the best.

        Each candidate is compared with the best itself, not with its neighbour, so that small losses do
        not add up.
        """
        self._told = "nothing could be told"
        yield 0
        now_least = self._least if self._saturated_at < self._least_until else LEAST
        least = min(now_least, self.bound)
        best = start = self.point
        gain = 0.0  # ln(throughput of the best / of where it started)
        while best < self.bound:
            higher = min(2 * best, self.bound)
            found = yield from self._compare(higher, best, math.log1p(_TOLERANCE))
            if found is None:
                return
            if found <= math.log1p(_TOLERANCE):
                break
            best = self.point = higher
            gain += found
            self._told = _change(gain)
        good, bad = best, least - 1
        while good - bad > max(1, good // 8):
            lower = min(max(round(math.sqrt(good * max(1, bad))), bad + 1), good - 1)
            found = yield from self._compare(lower, best, math.log1p(-_TOLERANCE))
            if found is None:
                return
            if found < math.log1p(-_TOLERANCE):
                bad = lower
                continue
            good = self.point = lower
            self._told = _change(gain + found)
            if found > math.log1p(_TOLERANCE):
                best = lower
                gain += found
        if good == start:
            self._told = "as before"

    def _compare(
        self, candidate: int, best: int, threshold: float
    ) -> Generator[int, _Seen, float | None]:
        """Paired windows, the order turned round from pair to pair, which cancels a steady drift.

        Returns:
            The mean of ln(throughput of the candidate / of the best): surely on one side of the
            threshold, or what it is after the last look. `None`: callers wait no more.
        """
        ratios: list[float] = []
        first, moved, dropped = 0.0, 0, 0
        while dropped < _DROPPED:
            order = (candidate, best) if len(ratios) % 2 else (best, candidate)
            seen = {order[0]: (yield order[0])}
            seen[order[1]] = yield order[1]
            one, other = seen[candidate], seen[best]
            if not other.is_saturated or (candidate < best and not one.is_saturated):
                dropped += 1
                continue
            dropped = 0
            first = first or other.rate
            moved = moved + 1 if abs(math.log(other.rate / first)) > _MOVED else 0
            if moved >= 2:
                raise _Restart
            ratios.append(math.log(one.rate / other.rate))
            if len(ratios) in _LOOKS:
                mean = statistics.fmean(ratios)
                error = statistics.stdev(ratios) / math.sqrt(len(ratios))
                is_sure = abs(mean - threshold) > _LOOKS[len(ratios)] * error
                if is_sure or len(ratios) >= _LAST_LOOK:
                    return mean
        return None

    # What is noticed between searches.

    def _forget(self, is_known: bool = False) -> None:
        self._is_known = is_known
        self._baseline: list[float] = []
        self._above = self._below = 0.0

    def _notice(self, seen: _Seen) -> str:
        """Why to search; empty: nothing has changed."""
        if not self._is_known:
            return "first search" if self.last is None else "the last one is long ago"
        value = math.log(seen.rate)
        if len(self._baseline) < _BASELINE:
            self._baseline.append(value)
            return ""
        mean = statistics.fmean(self._baseline)
        off = (value - mean) / max(_QUIET, statistics.stdev(self._baseline))
        self._above = max(0.0, self._above + off - _SLACK)
        self._below = max(0.0, self._below - off - _SLACK)
        if max(self._above, self._below) < _ALARM:
            return ""
        return f"throughput had changed by {math.expm1(value - mean):+.0%}"


def _change(found: float) -> str:
    share = math.expm1(found)
    if abs(share) <= 2 * _TOLERANCE:
        return "throughput the same"
    return f"throughput {abs(share):.0%} {'higher' if share > 0 else 'lower'}"
