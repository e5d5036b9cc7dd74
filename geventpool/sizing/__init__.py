"""How many connections to keep: pure mathematics, with time as an argument.

No gevent, no I/O, no clock, standard library only. `adaptive`, `poisson` and `fixed` make the three
policies, `paced` holds one of them back; `docs/sizing.md` explains them.
"""

from __future__ import annotations

from .demand import Demand
from .levels import adaptive
from .paced import paced
from .policy import SizingPolicy, fixed, poisson

__all__ = ["Demand", "SizingPolicy", "adaptive", "fixed", "paced", "poisson"]
