"""The table of versions says what runs have seen, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tools import support_table


def line(**changes: Any) -> str:
    seen: dict[str, Any] = {
        "tests": "tests/unit",
        "python": "3.11.7",
        "SQLAlchemy": "2.0.40",
        "Django": "5.2.1",
        "gevent": "26.9",
        "loop": "libev",
        "outcomes": {"passed": 10},
    }
    return json.dumps({**seen, **changes})


def test_a_run_that_has_failed_is_shown_as_that_and_the_last_of_equal_runs_counts() -> None:
    lines = [
        line(outcomes={"passed": 9, "failed": 1}),
        line(tests="tests/test_django.py", outcomes={"passed": 5, "error": 2}),
        line(python="3.10.13", outcomes={"passed": 10, "skipped": 3}),
        line(),
    ]
    assert support_table.table(lines).splitlines()[2:] == [
        "| 3.11.7 | Django 5.2.1 | 26.9, libev | `tests/test_django.py` | **2 failed**, 5 passed |",
        "| 3.10.13 | SQLAlchemy 2.0.40 | 26.9, libev | `tests/unit` | 10 passed, 3 skipped |",
        "| 3.11.7 | SQLAlchemy 2.0.40 | 26.9, libev | `tests/unit` | 10 passed |",
    ]


def test_what_a_run_records_can_be_made_a_row_of(tmp_path: Path) -> None:
    file = tmp_path / "folder" / "seen"
    test = str(support_table.ROOT / "tests" / "unit" / "test_config.py")
    support_table.record(str(file), [f"{test}::test_one"], "one", {"passed": 1})
    support_table.record(str(file), [], "", {"failed": 1})
    rows = support_table.table(file.read_text().splitlines()).splitlines()[2:]
    assert [row.split(" | ")[-2:] for row in rows] == [
        ["`tests`", "**1 failed**, 0 passed |"],
        ["`tests/unit/test_config.py -k one`", "1 passed |"],
    ]


def test_only_what_is_between_the_marks_is_written_anew() -> None:
    page = support_table.PAGE.read_text()
    once = support_table.page_with(page, [line()])
    assert support_table.page_with(once, [line()]) == once
    assert once.partition("<!--")[0] == page.partition("<!--")[0]
    assert once.count("<!--") == 2
