"""What would have to change in a program that uses another pool: `geventpool migrate`.

Sources are read by `ast` and never run, and nothing is written: a plan has the text before and after.
"""

from __future__ import annotations

from .plan import Plan
from .tree import plan_for, plans_in

__all__ = ["Plan", "plan_for", "plans_in"]
