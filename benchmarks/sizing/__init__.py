"""What each pool's sizing costs, beside a pool that knows the future."""

from __future__ import annotations

from .figures import measure

__all__ = ["measure"]
