"""Replays a load in virtual time: through the real pool, and through models of other pools.

    from geventpool.simulator import Setting, make_trace, simulate

    trace = make_trace("bursts", seed=1)
    print(simulate(trace, "adaptive", Setting(breakeven=30)))

docs/simulator.md has the file format, the policies and what the figures mean.
"""

from __future__ import annotations

from .families import FAMILIES, make_trace
from .optimum import best_queuepool_size, optimum
from .outcome import KEYS, Outcome, Timeline
from .policies import DEFAULTS, Setting, simulate
from .trace import Trace, read_traces

__all__ = [
    "DEFAULTS",
    "FAMILIES",
    "KEYS",
    "Outcome",
    "Setting",
    "Timeline",
    "Trace",
    "best_queuepool_size",
    "make_trace",
    "optimum",
    "read_traces",
    "simulate",
]
