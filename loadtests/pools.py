"""The pools that are compared, each as a program would configure it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine, create_engine
from sqlalchemy.pool import NullPool, QueuePool

from geventpool.sqlalchemy import GeventPool

CLASSES = {kind.__name__: kind for kind in (GeventPool, QueuePool, NullPool)}
_TUNED = {"poolclass": "QueuePool", "pool_pre_ping": True}


@dataclass(frozen=True)
class Variant:
    """A pool with its settings.

    Attributes:
        name: for `--pool`.
        title: for people.
        options: `create_engine`'s; `poolclass` by name.
        is_aside: nothing is claimed beside it, so that one turn is enough when all are compared.
    """

    name: str
    title: str
    options: dict[str, Any]
    is_aside: bool = False

    def engine_options(self) -> dict[str, Any]:
        """What `create_engine` takes."""
        return {**self.options, "poolclass": CLASSES[self.options.get("poolclass", "QueuePool")]}

    def create_engine(self, url: str) -> Engine:
        """An engine with this pool."""
        return create_engine(url, **self.engine_options())

    def to_text(self) -> str:
        """What `parse` reads."""
        return f"{self.name}={json.dumps(self.options)}"


VARIANTS = {
    one.name: one
    for one in (
        Variant("geventpool", "geventpool, nothing configured", {"poolclass": "GeventPool"}),
        Variant("queuepool", "QueuePool, nothing configured (5+10)", {"poolclass": "QueuePool"}),
        Variant(
            "queuepool-20-10",
            "QueuePool 20+10, pre-ping",
            {**_TUNED, "pool_size": 20, "max_overflow": 10},
        ),
        Variant(
            "queuepool-50-25",
            "QueuePool 50+25, pre-ping",
            {**_TUNED, "pool_size": 50, "max_overflow": 25},
        ),
        Variant("nullpool", "NullPool", {"poolclass": "NullPool"}, is_aside=True),
        Variant(
            "geventpool-poisson",
            "geventpool, sizing=poisson",
            {"poolclass": "GeventPool", "sizing": "poisson"},
            is_aside=True,
        ),
    )
}


def parse(text: str) -> Variant:
    """A variant by its name, or a new one: `mine={"poolclass": "QueuePool", "pool_size": 8}`.

    Raises:
        ValueError: naming what is wrong with it.
    """
    if text in VARIANTS:
        return VARIANTS[text]
    name, equals, settings = text.partition("=")
    if not equals or not name:
        raise ValueError(
            f"there is no pool {text!r}: give one of {', '.join(VARIANTS)}, or "
            'NAME={"poolclass": "QueuePool", "pool_size": 8}'
        )
    try:
        options = json.loads(settings)
    except ValueError as error:
        raise ValueError(f"the settings of {name!r} are not JSON: {error}") from None
    if not isinstance(options, dict) or options.get("poolclass", "QueuePool") not in CLASSES:
        raise ValueError(f"{name!r}: poolclass must be one of {', '.join(CLASSES)}")
    known = VARIANTS.get(name)
    return known if known is not None and known.options == options else Variant(name, name, options)
