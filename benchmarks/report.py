"""RESULTS.md and results.json: what was measured last of each benchmark."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from . import plots
from .result import Figure, Section, figures_table

PACKAGES = (
    "geventpool",
    "gevent",
    "greenlet",
    "SQLAlchemy",
    "PyMySQL",
    "psycopg",
    "psycopg-pool",
    "DBUtils",
    "django-db-geventpool",
    "gunicorn",
    "Flask",
)

HEAD = """\
# What was measured

Written by `make bench` (`python -m benchmarks`). Everything is measured beside its peers in one process,
or against one server, in turns; a ratio is made within each round, and what is given is the median of the
rounds and their quartiles. Ratios and counts are what is claimed: an absolute time says more of the
machine than of the code."""


def load(folder: Path) -> dict[str, list[Section]]:
    """What is saved there."""
    file = folder / "results.json"
    if not file.exists():
        return {}
    saved = json.loads(file.read_text())["benchmarks"]
    return {name: [Section.from_json(one) for one in parts] for name, parts in saved.items()}


def save(folder: Path, results: Mapping[str, Sequence[Section]], missing: Sequence[str]) -> None:
    """Writes all files."""
    folder.mkdir(parents=True, exist_ok=True)
    saved = {
        "machine": machine(),
        "benchmarks": {
            name: [dataclasses.asdict(section) for section in sections]
            for name, sections in results.items()
        },
    }
    (folder / "results.json").write_text(json.dumps(saved, indent=1) + "\n")
    pictures = plots.draw(_judged(results), results, folder)
    text = document(results, missing)
    text += "".join(f"\n![{Path(name).stem}]({name})\n" for name in pictures)
    (folder / "RESULTS.md").write_text(text)


def document(results: Mapping[str, Sequence[Section]], missing: Sequence[str]) -> str:
    """Everything as Markdown."""
    judged = _judged(results)
    parts = [HEAD, machine()]
    if missing:
        parts.append(f"**Could not be measured:** {', '.join(missing)}.")
    if judged:
        parts += ["## Targets", figures_table(judged)]
    for name, sections in results.items():
        parts.append(f"## {name}")
        parts += [section.markdown() for section in sections]
    return "\n\n".join(parts) + "\n"


def machine() -> str:
    """On what it was measured."""
    found = []
    for package in PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            found.append(f"{package} missing")
    cores = len(os.sched_getaffinity(0))
    return f"Python {platform.python_version()}, {cores} cores, {', '.join(found)}."


def _judged(results: Mapping[str, Sequence[Section]]) -> list[Figure]:
    """The figures that have a target, each with the question that it answers."""
    return [
        dataclasses.replace(figure, what=f"{section.title}: {figure.what}")
        for sections in results.values()
        for section in sections
        for figure in section.figures
        if figure.target is not None
    ]
