"""The table of versions in docs/support.md, made from what test runs have seen.

A test run for which `GEVENTPOOL_SEEN` names a file adds a line to it (`tests/conftest.py`), as those of
`make matrix` do. `python -m tools.support_table FILE` then writes the table anew.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "support.md"
VARIABLE = "GEVENTPOOL_SEEN"
_BEGIN = "<!-- versions: written by python -m tools.support_table -->\n"
_END = "<!-- end of versions -->\n"
_PACKAGES = ("SQLAlchemy", "Django", "gevent")


def record(file: str, tests: list[str], keyword: str, outcomes: dict[str, int]) -> None:
    """Adds what a run has seen to a file.

    Args:
        file: its path.
        tests: which were run, as given on the command line.
        keyword: given by `-k`, if only those were run that match it.
        outcomes: how many `passed`, `failed`, had an `error`, were `skipped`.
    """
    from gevent import get_hub

    from geventpool.core.watch import is_libuv

    seen = {
        "tests": ", ".join(map(_relative, tests or ["tests"]))
        + (f" -k {keyword}" if keyword else ""),
        "python": platform.python_version(),
        **{name: _version(name) for name in _PACKAGES},
        "loop": "libuv" if is_libuv(get_hub().loop) else "libev",
        "outcomes": outcomes,
    }
    Path(file).parent.mkdir(parents=True, exist_ok=True)
    with open(file, "a") as out:
        out.write(json.dumps(seen) + "\n")


def table(lines: list[str]) -> str:
    """The table in Markdown: of equal runs the last one."""
    rows: dict[tuple[Any, ...], str] = {}
    for line in lines:
        seen = json.loads(line)
        is_django = "django" in seen["tests"]
        framework = "Django" if is_django else "SQLAlchemy"
        python = tuple(map(int, seen["python"].split(".")[:2]))
        key = (framework, seen["tests"], python, tuple(seen[framework].split(".")), seen["loop"])
        cells = (
            seen["python"],
            f"{framework} {seen[framework]}",
            f"{seen['gevent']}, {seen['loop']}",
            f"`{seen['tests']}`",
            _told(seen["outcomes"]),
        )
        rows[key] = f"| {' | '.join(cells)} |\n"
    head = "| Python | framework | gevent | tests | result |\n|---|---|---|---|---|\n"
    return head + "".join(rows[key] for key in sorted(rows))


def page_with(text: str, lines: list[str]) -> str:
    """The page with the table as it has to be."""
    before, _, rest = text.partition(_BEGIN)
    return f"{before}{_BEGIN}{table(lines)}{_END}{rest.partition(_END)[2]}"


def _told(outcomes: dict[str, int]) -> str:
    bad = outcomes.get("failed", 0) + outcomes.get("error", 0)
    said = [f"**{bad} failed**"] if bad else []
    said.append(f"{outcomes.get('passed', 0)} passed")
    if outcomes.get("skipped"):
        said.append(f"{outcomes['skipped']} skipped")
    return ", ".join(said)


def _relative(path: str) -> str:
    return os.path.relpath(ROOT / path.partition("::")[0], ROOT)


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "none"


def main() -> None:
    """The command line."""
    if len(sys.argv) != 2:
        sys.exit("usage: python -m tools.support_table FILE")
    lines = Path(sys.argv[1]).read_text().splitlines()
    PAGE.write_text(page_with(PAGE.read_text(), lines))


if __name__ == "__main__":
    main()
