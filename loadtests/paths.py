"""What web users ask for."""

from __future__ import annotations

import re

DESK_PATHS = (
    "20:/orders?page={}",
    "25:/orders/{}",
    "12:/customers/{}",
    "10:/api/orders?status=paid",
    "12:/bad/hold",
    "2:/reports/bought-together",
)
"""What people look at in the example's order desk, and how often."""


def parse_path(text: str) -> tuple[int, str]:
    """A weight and a path, in which each `{}` stands for a number.

    Raises:
        ValueError: it is neither `/path` nor `WEIGHT:/path`.
    """
    found = re.fullmatch(r"(?:([1-9]\d*):)?(/\S*)", text)
    if found is None:
        raise ValueError(f"{text!r} is no path: give /path, or WEIGHT:/path")
    return int(found[1] or 1), found[2]
