"""What an observer is to watch."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import ConfigError


@dataclass(frozen=True)
class Settings:
    """What is watched. Durations are seconds.

    Attributes:
        figures_only: the histograms, and nothing else.
        queries: keep statistics of queries by fingerprint.
        stacks: the share of checkouts, from 0 to 1, of which the stacks are kept.
        idle_in_transaction_after: warn when a connection is idle in a transaction for longer.
        held_after: warn when a connection is held for longer.
        slow_query_after: warn of a query that takes longer.
        kill: close the connection that is warned of, unless it is in a query.
        max_fingerprints: most different queries to keep statistics of.

    Raises:
        ConfigError: naming the setting, its value and the cure.
    """

    figures_only: bool = False
    queries: bool = True
    stacks: float = 1.0
    idle_in_transaction_after: float | None = 10.0
    held_after: float | None = 30.0
    slow_query_after: float | None = 1.0
    kill: bool = False
    max_fingerprints: int = 1000

    def __post_init__(self) -> None:
        for name in ("figures_only", "queries", "kill"):
            if not isinstance(getattr(self, name), bool):
                raise ConfigError(name, getattr(self, name), "give True or False")
        for name in ("idle_in_transaction_after", "held_after", "slow_query_after"):
            value = getattr(self, name)
            if value is not None and not (_is_number(value) and 0.001 <= value <= 1e9):
                raise ConfigError(name, value, "give a number of seconds above 0, or None")
        if not (_is_number(self.stacks) and 0 <= self.stacks <= 1):
            raise ConfigError("stacks", self.stacks, "give a share from 0 (none) to 1 (all)")
        if not isinstance(self.max_fingerprints, int) or not 1 <= self.max_fingerprints <= 10**6:
            raise ConfigError(
                "max_fingerprints", self.max_fingerprints, "give a whole number from 1"
            )


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
