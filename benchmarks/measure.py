"""Times by turns and ratios by rounds, and counts of frames and calls, which do not depend on the machine.

All subjects are measured in every round, one after the other, so that a machine that drifts, or is busy
with something else for a while, does so for all of them; a ratio is made within a round, and what is
reported of the rounds is the median and the quartiles.
"""

from __future__ import annotations

import gc
import statistics
import sys
import time
import timeit
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import geventpool

from .result import Figure

Sample = Callable[[int], float]
"""Does something so many times, and says how many seconds that took."""

Times = dict[str, list[float]]
"""Seconds for doing it once, of each round, by subject."""

_OURS = str(Path(geventpool.__file__).parent)


@dataclass(frozen=True)
class Scale:
    """How long to measure.

    Attributes:
        rounds: how often each subject has its turn.
        seconds: how long a turn is, where nothing but this process works.
        busy_seconds: how long it is where a server works, too.
        end_to_end_rounds: turns of each web server.
        end_to_end_seconds: how long they are.
        is_full: on all servers and with all settings.
    """

    rounds: int
    seconds: float
    busy_seconds: float
    end_to_end_rounds: int
    end_to_end_seconds: float
    is_full: bool = False


FULL = Scale(21, 0.1, 0.7, 3, 3.0, is_full=True)
QUICK = Scale(7, 0.02, 0.2, 3, 1.5)
TINY = Scale(1, 0.0002, 0.002, 1, 0.2)


def statement(
    text: str, timer: Callable[[], float] = time.process_time, /, **names: object
) -> Sample:
    """A statement as a sample. It is compiled into the loop, so that no call comes on top of it.

    CPU time by default: what others do on the machine counts less.
    """
    return timeit.Timer(text, timer=timer, globals=names).timeit


def interleave(samples: Mapping[str, Sample], rounds: int, seconds: float) -> Times:
    """Measures all, in turns of about so many seconds; every other round backwards."""
    counts = {name: _count_for(sample, seconds) for name, sample in samples.items()}
    times: Times = {name: [] for name in samples}
    order = list(samples)
    for _ in range(rounds):
        gc.collect()
        for name in order:
            gc.disable()
            try:
                took = samples[name](counts[name])
            finally:
                gc.enable()
            times[name].append(took / counts[name])
        order.reverse()
        print(".", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return times


def ratio(
    times: Times,
    ours: str,
    theirs: str,
    target: float | None = None,
    stretch: float | None = None,
    *,
    what: str = "",
) -> Figure:
    """What ours takes, theirs being 1."""
    ratios = [mine / other for mine, other in zip(times[ours], times[theirs], strict=True)]
    return spread(what or f"{ours} / {theirs}", ratios, target, stretch)


def speed(
    times: Times,
    ours: str,
    theirs: str,
    target: float | None = None,
    stretch: float | None = None,
) -> Figure:
    """How much faster ours is than theirs, which is 1."""
    ratios = [other / mine for mine, other in zip(times[ours], times[theirs], strict=True)]
    return spread(f"{ours}, times as fast as {theirs}", ratios, target, stretch, is_least=True)


def spread(
    what: str,
    values: Sequence[float],
    target: float | None = None,
    stretch: float | None = None,
    *,
    is_least: bool = False,
) -> Figure:
    """The median and the quartiles of what the rounds gave."""
    low, middle, high = (
        statistics.quantiles(values, method="inclusive") if len(values) > 1 else list(values) * 3
    )
    return Figure(what, middle, low, high, target, stretch, is_least)


@dataclass(frozen=True)
class Calls:
    """What Python did.

    Attributes:
        own: Python frames of geventpool.
        frames: all Python frames.
        c_calls: calls of functions written in C.
    """

    own: int
    frames: int
    c_calls: int


def count_calls(do: Callable[[], Any]) -> tuple[Calls, Any]:
    """Counts frames and calls of what is called; and what that returns.

    A function's own frame counts, unless it is a `partial` or the like, which has none.
    """
    own = frames = c_calls = 0

    def see(frame: Any, event: str, _argument: object) -> None:
        nonlocal own, frames, c_calls
        if event == "call":
            frames += 1
            own += frame.f_code.co_filename.startswith(_OURS)
        elif event == "c_call":
            c_calls += 1

    gc.disable()
    sys.setprofile(see)
    try:
        result = do()
    finally:
        sys.setprofile(None)
        gc.enable()
    return Calls(own, frames, c_calls - 1), result  # setprofile itself is one


def _count_for(sample: Sample, seconds: float) -> int:
    """How often to do it so that it takes about so long."""
    sample(1)  # which may have to connect
    count = 1
    while True:
        took = min(sample(count), sample(count))  # the machine may have paused once
        if took >= seconds / 8 or count >= 10_000_000:
            return max(1, round(count * seconds / max(took, 1e-9)))
        count *= 4
