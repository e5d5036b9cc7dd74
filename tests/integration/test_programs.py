"""Programs around the pool: under eventlet, without the command's extra, and when they are interrupted."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


def run(program: str, *arguments: str, code: int = 0) -> Any:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done


@pytest.mark.parametrize("door", ["geventpool", "geventpool.sqlalchemy", "geventpool.flask"])
@pytest.mark.parametrize("patch", ["monkey_patch()", "monkey_patch(select=True, socket=False)"])
def test_an_import_under_eventlets_patching_says_what_is_wrong(door: str, patch: str) -> None:
    done = run(f"import eventlet; eventlet.{patch}; import {door}", code=1)
    said = done.stderr.splitlines()[-1]
    assert said.startswith("ImportError: "), done.stderr
    assert "eventlet" in said
    assert "gevent.monkey.patch_all()" in said


@pytest.mark.parametrize("order", ["import eventlet, geventpool", "import geventpool, eventlet"])
def test_eventlet_may_be_there_as_long_as_it_patches_nothing(order: str) -> None:
    run(order)


WITHOUT = """
import sys

missing = sys.argv[1].split(",")

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in missing:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
sys.argv = ["geventpool", *sys.argv[2:]]
from geventpool.cli import main
main()
"""


@pytest.mark.parametrize(
    "missing", ["rich", "rich,matplotlib,sqlglot,prometheus_client,flask,django"]
)
def test_the_help_needs_click_alone(missing: str) -> None:
    for question in ("--help", "-h"):
        told = run(WITHOUT, missing, question).stdout
        for command in ("record", "simulate", "top", "trace"):
            assert f"  {command} " in told
    assert "0." in run(WITHOUT, missing, "--version").stdout


@pytest.mark.parametrize("command", ["top", "simulate", "trace"])
def test_a_command_without_what_it_needs_says_how_to_get_it(command: str) -> None:
    done = run(WITHOUT, "rich", command, "--help", code=1)
    assert done.stderr.splitlines()[-1].startswith(
        f"Error: {command} needs rich: pip install 'geventpool[cli"
    )


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["top"], []])
def test_without_click_a_sentence_names_the_extra(arguments: list[str]) -> None:
    done = run(WITHOUT, "click,rich", *arguments, code=1)
    assert (
        done.stderr
        == "The geventpool command needs click and rich: pip install 'geventpool[cli]'\n"
    )
