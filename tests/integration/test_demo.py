"""The demo, from its command line."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

DEMO = Path(__file__).resolve().parents[2] / "examples" / "demo.py"
PNG = b"\x89PNG\r\n\x1a\n"


def command(*arguments: str) -> list[str]:
    """The demo's command line."""
    return [sys.executable, str(DEMO), "--no-color", *arguments]


def environment(mark: str) -> dict[str, str]:
    """An environment that the demo's processes inherit, to know them by."""
    environ = {name: value for name, value in os.environ.items() if name != "DATABASE_URL"}
    return {**environ, "DEMO_TEST_MARK": mark, "COLUMNS": "100"}


def left_running(mark: str) -> list[str]:
    """The command lines of the processes with this mark."""
    found = []
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            if f"DEMO_TEST_MARK={mark}\0".encode() in (directory / "environ").read_bytes():
                found.append((directory / "cmdline").read_bytes().decode().replace("\0", " "))
        except OSError:
            continue  # it ended, or it is somebody else's
    return found


@pytest.mark.parametrize("kind", ["sqlite", "mysql", "postgresql"])
def test_the_demo_shows_the_pool_and_leaves_nothing_running(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    environ = environment(str(tmp_path))
    if kind != "sqlite":
        server, driver = {"mysql": ("mariadb", "pymysql"), "postgresql": ("postgresql", "psycopg")}[
            kind
        ]
        environ["DATABASE_URL"] = request.getfixturevalue(server).url(driver)
    plot = tmp_path / "pool.png"
    done = subprocess.run(
        command(kind, "--seconds", "6", "--plot", str(plot)),
        env=environ,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    assert re.search(r"failed requests\W+0\b", done.stdout)
    assert re.search(r"connections opened\W+[1-9]", done.stdout)
    assert str(plot) in done.stdout
    assert plot.read_bytes().startswith(PNG)
    assert left_running(str(tmp_path)) == []


@pytest.mark.parametrize("shell", [[], ["bash", "-c", 'trap "" INT; exec "$@"', "bash"]])
def test_ctrl_c_ends_the_demo_also_where_the_shell_has_it_ignored(
    shell: list[str], tmp_path: Path
) -> None:
    process = subprocess.Popen(
        shell + command("--seconds", "60", "--plot", str(tmp_path / "pool.png")),
        env=environment(str(tmp_path)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        deadline = time.monotonic() + 30
        while not any("load.py" in line for line in left_running(str(tmp_path))):
            assert time.monotonic() < deadline
            time.sleep(0.1)
    finally:
        process.send_signal(signal.SIGINT)
        try:
            output, errors = process.communicate(timeout=40)
        finally:
            process.kill()
    assert process.returncode == 130
    assert "nothing is left running" in output
    assert errors == ""
    assert left_running(str(tmp_path)) == []


def test_the_page_shows_the_workers_and_is_kept_if_that_is_wanted(tmp_path: Path) -> None:
    with subprocess.Popen(
        command("--seconds", "4", "--keep", "--plot", str(tmp_path / "pool.png")),
        env=environment(str(tmp_path)),
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            lines = iter(process.stdout.readline, "")
            address = next(line.split()[-1] for line in lines if "shown at http" in line)
            assert any("are kept" in line for line in lines)
            with urllib.request.urlopen(f"{address}api/fleet", timeout=20) as answer:
                fleet = json.load(answer)
            assert fleet["processes"] == 2
        finally:
            process.send_signal(signal.SIGINT)
            process.stdout.read()
            process.wait(40)
    assert process.returncode == 0
    assert left_running(str(tmp_path)) == []


def test_a_server_that_does_not_start_is_told_with_its_log(tmp_path: Path) -> None:
    environ = environment(str(tmp_path))
    environ["DATABASE_URL"] = "sqlite:////nowhere/at/all.sqlite3"
    done = subprocess.run(
        command("--seconds", "6", "--plot", str(tmp_path / "pool.png")),
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    log = tmp_path / "pool.gunicorn.log"
    assert f"gunicorn didn't start; its log is {log}" in done.stdout
    assert "unable to open database file" in done.stdout
    assert left_running(str(tmp_path)) == []


def test_an_unknown_database_is_refused(tmp_path: Path) -> None:
    done = subprocess.run(
        command("oracle"),
        env=environment(str(tmp_path)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "'oracle' is not one of 'sqlite', 'mysql', 'postgresql'" in done.stderr
