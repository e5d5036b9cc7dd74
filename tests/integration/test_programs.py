"""Programs around the pool: under eventlet, without the command's extra, and when they are interrupted."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from geventpool.cli import COMMANDS
from geventpool.cli import main as command_line

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


def test_every_command_that_the_help_names_is_there() -> None:
    for command in COMMANDS:
        assert CliRunner().invoke(command_line, [command, "--help"]).exit_code == 0


def is_caught(process: subprocess.Popen[str]) -> bool:
    """Has it a handler for Ctrl-C by now?"""
    status = Path(f"/proc/{process.pid}/status").read_text()
    (caught,) = (line.split()[1] for line in status.splitlines() if line.startswith("SigCgt"))
    return bool(int(caught, 16) >> (signal.SIGINT - 1) & 1)


DJANGO = """
import sys
import django
from django.conf import settings
from django.core.management import call_command

mysql = dict(zip(("HOST", "PORT", "USER", "PASSWORD", "NAME"), sys.argv[1:], strict=True))
settings.configure(
    INSTALLED_APPS=["geventpool.django"],
    DATABASES={"default": {"ENGINE": "geventpool.django.mysql", **mysql}},
)
django.setup()
call_command("geventpool", "top")
"""


@pytest.mark.parametrize("program", ["geventpool top", "manage.py geventpool top", "tools.servers"])
def test_ctrl_c_ends_what_nothing_else_ends_also_where_sigint_is_inherited_ignored(
    program: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    command = ["-m", "geventpool.cli", "top", "--directory", str(tmp_path)]
    if program == "tools.servers":
        request.getfixturevalue("mariadb")  # it is installed
        command = ["-m", "tools.servers", "mariadb"]
    elif program != "geventpool top":
        it = request.getfixturevalue("mariadb")
        words = (it.host, it.port, it.user, it.password, it.database)
        command = ["-c", DJANGO, *map(str, words)]
    process = subprocess.Popen(
        ["bash", "-c", 'trap "" INT; exec "$@"', "bash", sys.executable, "-u", *command],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        if program != "geventpool top":
            assert process.stdout.readline()
        deadline = time.monotonic() + 60
        while not is_caught(process):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
        process.communicate()
    assert (process.returncode, errors) == (0, "")
