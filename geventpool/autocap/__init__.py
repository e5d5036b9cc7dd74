"""`max_size="auto"`: a pool whose cap follows what its server can do; the rule is in `sizing/cap.py`."""

from __future__ import annotations

from .follower import decision_of, follow

__all__ = ["decision_of", "follow"]
