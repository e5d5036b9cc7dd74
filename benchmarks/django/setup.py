"""Django in one process with an alias for each contender on the same server."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import django
import gevent
from django.conf import settings
from sqlalchemy.engine import make_url

MOST = 20
"""Connections that a pool may open."""

POSTGRESQL: Mapping[str, dict[str, Any]] = {
    "geventpool": {"ENGINE": "geventpool.django.postgresql", "POOL": {"max_size": MOST}},
    "CONN_MAX_AGE = 0": {"ENGINE": "django.db.backends.postgresql"},
    'OPTIONS["pool"]': {
        "ENGINE": "django.db.backends.postgresql",
        "OPTIONS": {"pool": {"min_size": 1, "max_size": MOST}},
    },
    "django-db-geventpool": {
        "ENGINE": "django_db_geventpool.backends.postgresql_psycopg3",
        "OPTIONS": {"MAX_CONNS": MOST, "REUSE_CONNS": MOST},
    },
}
MYSQL: Mapping[str, dict[str, Any]] = {
    "geventpool": {"ENGINE": "geventpool.django.mysql", "POOL": {"max_size": MOST}},
    "CONN_MAX_AGE = 0": {"ENGINE": "django.db.backends.mysql"},
}


def set_up(contenders: Mapping[str, dict[str, Any]], address: str) -> None:
    """Configures Django; the alias of a contender is its name. Once for each process."""
    url = make_url(address)
    common = {
        "NAME": url.database,
        "USER": url.username,
        "PASSWORD": url.password,
        "HOST": url.host,
        "PORT": str(url.port),
    }
    databases = {name: {**common, **more} for name, more in contenders.items()}
    settings.configure(
        USE_TZ=True, DATABASES={"default": databases["geventpool"], **databases}, INSTALLED_APPS=[]
    )
    django.setup()


@dataclass
class Rates:
    """Of one contender, by rounds.

    Attributes:
        per_second: units of work.
        cpu: microseconds of this process for each.
    """

    per_second: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)


def measure(unit: Callable[[], object], seconds: float, greenlets: int, rates: Rates) -> None:
    """How often a unit of work is done by so many greenlets at once, and what it costs."""
    count = 0
    ends = time.perf_counter() + seconds

    def work() -> None:
        nonlocal count
        while time.perf_counter() < ends:
            unit()
            count += 1

    began, before = time.perf_counter(), time.process_time()
    gevent.joinall([gevent.spawn(work) for _ in range(greenlets)], raise_error=True)
    rates.per_second.append(count / (time.perf_counter() - began))
    rates.cpu.append((time.process_time() - before) / count * 1e6)


def compare(
    units: Mapping[str, Callable[[], object]], rounds: int, seconds: float, greenlets: int
) -> dict[str, Rates]:
    """Their rates, in turns."""
    for unit in units.values():
        measure(unit, seconds, greenlets, Rates())
    rates = {name: Rates() for name in units}
    for _ in range(rounds):
        for name, unit in units.items():
            measure(unit, seconds, greenlets, rates[name])
    return rates


def table(rates: Mapping[str, Rates], unit: str, ours: str = "geventpool") -> list[str]:
    """Lines of Markdown: medians, and how many times better ours is, with quartiles of the rounds."""
    lines = [
        f"| | {unit}/s | ours is better by | CPU of the client per {unit} | ours is better by |",
        "|---|---|---|---|---|",
    ]
    mine = rates[ours]
    for name, found in rates.items():
        speed = [a / b for a, b in zip(mine.per_second, found.per_second, strict=True)]
        cost = [b / a for a, b in zip(mine.cpu, found.cpu, strict=True)]
        lines.append(
            f"| {name} | {statistics.median(found.per_second):,.0f} | {_spread(speed)} | "
            f"{statistics.median(found.cpu):,.0f} µs | {_spread(cost)} |"
        )
    return lines


def _spread(ratios: list[float]) -> str:
    low, middle, high = statistics.quantiles(ratios, n=4)
    return f"{middle:.2f} ({low:.2f} to {high:.2f})"
