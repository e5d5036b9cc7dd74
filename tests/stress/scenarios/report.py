"""RESULTS.md: who stood what, in one table, and the figures below."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from importlib import metadata
from typing import Any

from .base import ALL_POOLS, Row, Scenario

Results = Mapping[tuple[str, str, str], Mapping[str, Any]]

_PACKAGES = (
    "geventpool",
    "gevent",
    "greenlet",
    "SQLAlchemy",
    "PyMySQL",
    "psycopg2-binary",
    "psycogreen",
    "psycopg",
    "psycopg-pool",
    "django-db-geventpool",
    "Django",
)


def machine() -> str:
    """What it ran on, without a name or a date."""
    return (
        f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}, "
        f"Python {platform.python_version()}; servers on the same machine, by loopback"
    )


def versions() -> str:
    """Of everything that takes part."""
    told = []
    for package in _PACKAGES:
        try:
            told.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            told.append(f"{package} (not installed)")
    return ", ".join(told)


def write(
    scenarios: list[tuple[Scenario, Row]],
    results: Results,
    pools: tuple[str, ...],
    servers: str,
    scale: str,
) -> str:
    """The whole document."""
    parts = [
        "# Under fire: geventpool and its peers, side by side",
        "",
        "Written by `make stress` (`python -m tests.stress.scenarios`). Every scenario is run for every "
        "pool on the same machine in the same run, each in a fresh, monkey-patched process with a time "
        "limit: what exceeds it has failed. The pools have the same hard cap, the same queries and the "
        "same seeds. Nothing else is configured, except where a figure's note says so; the peers get "
        "the setting that helps them where they have one.",
        "",
        f"- Machine: {machine()}.",
        f"- Versions: {versions()}; {servers}.",
        f"- Lengths: {scale}.",
        "",
        *_table(scenarios, results, pools),
        "",
        "`n/a`: the pool does not work with that driver, or has no such setting.",
        "",
    ]
    told: set[str] = set()
    for scenario, row in scenarios:
        if scenario.name not in told:
            told.add(scenario.name)
            parts += [f"## {scenario.title}", "", scenario.about, ""]
        parts += [*_figures(scenario, row, results, pools), ""]
    return "\n".join(parts)


def _table(
    scenarios: list[tuple[Scenario, Row]], results: Results, pools: tuple[str, ...]
) -> list[str]:
    lines = ["| scenario | " + " | ".join(pools) + " |", "|---" * (len(pools) + 1) + "|"]
    for scenario, row in scenarios:
        cells = [
            _short(results.get((scenario.name, row.label, pool)), pool == ALL_POOLS[0])
            for pool in pools
        ]
        lines.append(f"| {scenario.title}: {row.label} | " + " | ".join(cells) + " |")
    passed = [
        sum(bool(result["passed"]) for key, result in results.items() if key[2] == pool)
        for pool in pools
    ]
    asked = [sum(key[2] == pool for key in results) for pool in pools]
    lines.append(
        "| **passed** | "
        + " | ".join(f"**{got} of {all_}**" for got, all_ in zip(passed, asked, strict=True))
        + " |"
    )
    return lines


def _short(result: Mapping[str, Any] | None, is_ours: bool) -> str:
    if result is None:
        return "n/a"
    if result["passed"]:
        return "pass"
    return "**fail: hung**" if result["reason"].startswith("hung") else "**fail**"


def _figures(scenario: Scenario, row: Row, results: Results, pools: tuple[str, ...]) -> list[str]:
    found = {
        pool: results[scenario.name, row.label, pool]
        for pool in pools
        if (scenario.name, row.label, pool) in results
    }
    names = list(dict.fromkeys(name for result in found.values() for name in result["figures"]))
    lines = [
        f"### {scenario.title}: {row.label}",
        "",
        "| | " + " | ".join(found) + " |",
        "|---" * (len(found) + 1) + "|",
        "| verdict | " + " | ".join(_short(one, False) for one in found.values()) + " |",
    ]
    for name in names:
        cells = [_cell(one["figures"].get(name, "")) for one in found.values()]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    told = [f"- {pool}: {_cell(one['reason'])}" for pool, one in found.items() if one["reason"]] + [
        f"- {pool} has {', '.join(one['notes'])}." for pool, one in found.items() if one["notes"]
    ]
    return [*lines, "", *told] if told else lines


def _cell(value: Any) -> str:
    if isinstance(value, dict):
        value = ", ".join(f"{name} {count}" for name, count in value.items())
    return str(value).replace("|", "\\|").replace("\n", " ")
