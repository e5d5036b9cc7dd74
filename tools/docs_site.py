"""Builds the site of the documentation: `python -m tools.docs_site [DIRECTORY]`.

The pages are the files that the repository has, where they are: links between them work in both.
Added are the pages of reference, made from docstrings and from the commands' own help.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Final

import click
from mkdocs.__main__ import cli as mkdocs

from geventpool.cli import main as program

ROOT: Final = Path(__file__).resolve().parents[1]
SITE: Final = ROOT / "build" / "docs"
_SOURCES: Final = ROOT / ".cache" / "docs"
_TREES: Final = ("docs", "examples")
_FILES: Final = ("LICENSE", "*.md", "loadtests/*.md", "tests/stress/*.md")
_RESULTS: Final = ("benchmarks/**/*.md", "benchmarks/**/*.png", "benchmarks/**/*.json")
# What a page would load by itself; a link is only followed by who clicks on it.
_LOADED: Final = re.compile(
    r"<(?:script|img|iframe|source)[^>]*\ssrc=[\"']?(?:https?:)?//[^\"'\s>]+"
    r"|<link[^>]*rel=[\"']?(?:stylesheet|preload|preconnect|icon)[^>]*href=[\"']?(?:https?:)?//[^>]+"
    r"|url\([\"']?(?:https?:)?//[^)]+"
)


def stage(folder: Path) -> Path:
    """Links to all pages, and to what they show, as the repository has them."""
    folder.mkdir(parents=True, exist_ok=True)
    patterns = [*_FILES, *_RESULTS, *(f"{tree}/**/*" for tree in _TREES)]
    wanted = {path for pattern in patterns for path in ROOT.glob(pattern) if _is_shown(path)}
    for old in [path for path in folder.rglob("*") if path.is_symlink()]:
        old.unlink()
    for path in wanted:
        link = folder / path.relative_to(ROOT)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(path)
    reference = folder / "reference"
    reference.mkdir(exist_ok=True)
    (reference / "commands.md").write_text(commands())
    return folder


def _is_shown(path: Path) -> bool:
    hidden = {"__pycache__", "templates", "instance"}
    return path.is_file() and not hidden & set(path.parts) and ".sqlite3" not in path.name


def commands() -> str:
    """A page with what each command says of itself."""
    page = ["# Commands\n", "What `geventpool NAME --help` says.\n"]
    top = click.Context(program, info_name="geventpool", max_content_width=96)
    for name in program.list_commands(top):
        command = program.get_command(top, name)
        assert command is not None
        context = click.Context(command, info_name=name, parent=top, max_content_width=96)
        page.append(f"## geventpool {name}\n\n```text\n{command.get_help(context)}\n```\n")
    return "\n".join(page)


def make(site: Path) -> Path:
    """The site. A dead link, a page that no menu leads to, and a foreign host are errors.

    Raises:
        SystemExit: with what is wrong; of pages that mkdocs refuses it has told that itself.
    """
    os.environ["NO_MKDOCS_2_WARNING"] = "1"  # a note of the theme on its successor, each time
    stage(_SOURCES)
    arguments = ["build", "--strict", "--site-dir", str(site.resolve())]
    try:
        mkdocs([*arguments, "--config-file", str(ROOT / "mkdocs.yml")], standalone_mode=False)
    except click.ClickException as error:
        raise SystemExit(str(error)) from None
    if foreign := sorted({found for page in site.rglob("*.html") for found in loaded(page)}):
        raise SystemExit("pages load from another host:\n" + "\n".join(foreign))
    return site


def loaded(page: Path) -> list[str]:
    """What a page, or a style sheet, loads from another host by itself."""
    return _LOADED.findall(page.read_text())


if __name__ == "__main__":
    made = make(Path(sys.argv[1]) if len(sys.argv) > 1 else SITE)
    print(f"python -m http.server -d {made}    # and the search, too, works without a network")
