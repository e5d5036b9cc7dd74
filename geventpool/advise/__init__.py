"""How many connections a load needs, by several ways of reckoning side by side: `geventpool advise`."""

from __future__ import annotations

from .expected import Expectation, Sizes, sizes_for

__all__ = ["Expectation", "Sizes", "sizes_for"]
