"""Django in one process with an alias for each contender on the same server."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import django
import gevent
from django.conf import settings
from sqlalchemy import make_url

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


def per_second(unit: Callable[[], object], seconds: float, greenlets: int) -> float:
    """How often a unit of work is done in a second by so many greenlets at once."""
    count = 0
    ends = time.perf_counter() + seconds

    def work() -> None:
        nonlocal count
        while time.perf_counter() < ends:
            unit()
            count += 1

    began = time.perf_counter()
    gevent.joinall([gevent.spawn(work) for _ in range(greenlets)], raise_error=True)
    return count / (time.perf_counter() - began)


def compare(
    units: Mapping[str, Callable[[], object]], rounds: int, seconds: float, greenlets: int
) -> dict[str, list[float]]:
    """Their rates, in turns."""
    for unit in units.values():
        per_second(unit, seconds / 3, greenlets)
    rates: dict[str, list[float]] = {name: [] for name in units}
    for _ in range(rounds):
        for name, unit in units.items():
            rates[name].append(per_second(unit, seconds, greenlets))
    return rates


def table(rates: Mapping[str, list[float]], unit: str) -> list[str]:
    """Lines of Markdown: the medians, and ours as a multiple of each, by the median of the rounds."""
    lines = [f"| | {unit} | geventpool's rate ÷ this one | quartiles |", "|---|---|---|---|"]
    for name, found in rates.items():
        ratios = [
            ours / theirs for ours, theirs in zip(rates["geventpool"], found, strict=True)
        ]
        low, middle, high = statistics.quantiles(ratios, n=4)
        lines.append(
            f"| {name} | {statistics.median(found):,.0f} | {middle:.2f} | {low:.2f} to {high:.2f} |"
        )
    return lines
