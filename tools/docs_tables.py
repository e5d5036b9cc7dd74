"""The tables of settings, profiles, and checks by symptom, made from where these are declared.

`python -m tools.docs_tables` writes them anew.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from geventpool import PROFILES
from geventpool.config import SETTINGS
from geventpool.doctor.registry import CHECKS
from geventpool.doctor.symptoms import SYMPTOMS

_DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGES = (_DOCS / "settings.md", _DOCS / "troubleshooting.md")
_SPELT = {True: "on", False: "off", None: "none"}


def settings() -> str:
    """Each setting, its default, and what it means."""
    rows = ["| setting | default | meaning |", "|---|---|---|"]
    rows += [
        f"| `{name}` | {_told(one.default)} | {one.meaning} |" for name, one in SETTINGS.items()
    ]
    return "".join(f"{row}\n" for row in rows)


def profiles() -> str:
    """Each profile, and what it sets."""
    rows = ["| profile | settings |", "|---|---|"]
    for name, chosen in PROFILES.items():
        rows.append(
            f"| `{name}` | {', '.join(f'`{key}={value}`' for key, value in chosen.items())} |"
        )
    return "".join(f"{row}\n" for row in rows)


def _told(default: Any) -> str:
    if default is None or isinstance(default, bool):
        return _SPELT[default]
    return f'`"{default}"`' if isinstance(default, str) else f"{default:g}"


def checks(symptom: str) -> str:
    """What the doctor asks first."""
    named = [f"`{one.name}`" for one in CHECKS.values() if symptom in one.symptoms]
    return textwrap.fill(f"Checks: {', '.join(named)}.", 100, break_on_hyphens=False) + "\n"


def _tables() -> Iterator[tuple[str, str]]:
    yield "settings", settings()
    yield "profiles", profiles()
    for symptom in SYMPTOMS:
        yield f"checks of {symptom}", checks(symptom)


def page_with(text: str) -> str:
    """A page with those tables that it has, as they have to be."""
    for name, table in _tables():
        begin = f"<!-- {name}: written by python -m tools.docs_tables -->\n"
        end = f"<!-- end of {name} -->\n"
        before, found, rest = text.partition(begin)
        if found:
            text = f"{before}{begin}{table}{end}{rest.partition(end)[2]}"
    return text


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(page_with(page.read_text()))
