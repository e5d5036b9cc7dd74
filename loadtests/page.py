"""The report: one HTML page with everything in it, and its pictures as files beside it."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryFile

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from . import figures, plots
from .turn import Turn

HERE = Path(__file__).parent
PAGE, DATA = "index.html", "turns.json"


def write(turns: Sequence[Turn], folder: Path, notes: Sequence[str]) -> Path:
    """Write the page, its pictures, and the turns themselves.

    Args:
        turns: what happened.
        folder: where to write; made if it is not there.
        notes: paragraphs about how it was measured.

    Returns:
        The page.
    """
    make_folder(folder)
    saved = {"notes": list(notes), "turns": [turn.to_json() for turn in turns]}
    (folder / DATA).write_text(json.dumps(saved))
    pictures = plots.draw(turns, folder)
    rounds = figures.by_pool(turns)
    has_fault = any(turn.fault for turn in turns)
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined
    )
    text = environment.get_template("page.html.j2").render(
        plan=turns[0].plan,
        notes=notes,
        verdicts=figures.judge(turns),
        table=figures.table(rounds, figures.COLUMNS),
        faults=figures.table(rounds, figures.FAULT_COLUMNS) if has_fault else [],
        ratios=figures.ratio_table(rounds),
        server=figures.server_table(turns),
        problems=problems(turns),
        pictures=[(about, _inline(folder / name)) for name, about in pictures],
        ours=figures.OURS,
    )
    page = folder / PAGE
    page.write_text(text)
    return page


def make_folder(folder: Path) -> None:
    """Make it, and see that one may write there: to be known before an hour's load, not after.

    Raises:
        OSError: one may not.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryFile(dir=folder):
        pass


def read(folder: Path) -> tuple[list[Turn], list[str]]:
    """The turns that are saved there, and the notes."""
    file = folder / DATA
    if not file.exists():
        return [], []
    saved = json.loads(file.read_text())
    return [Turn.from_json(one) for one in saved["turns"]], saved["notes"]


def problems(turns: Sequence[Turn]) -> list[tuple[str, int, str]]:
    """Which errors there were: the pool, how often, and what it said."""
    counts: dict[tuple[str, str], int] = {}
    for turn in turns:
        for row in turn.requests:
            if row[4] is not None:
                key = turn.title, row[4]
                counts[key] = counts.get(key, 0) + 1
    most = sorted(counts.items(), key=lambda item: -item[1])[:20]
    return [(title, count, text) for (title, text), count in most]


def _inline(picture: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(picture.read_bytes()).decode()
