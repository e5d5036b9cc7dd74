"""docs/tutorial.md, done as it stands there: from an empty folder, with what it prints."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tools.servers import _free_port

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "tutorial.md").read_text()
# A file's name before its block, or a block; what a command prints is the `text` after it.
STEP = re.compile(r"^(?:`([\w.]+\.py)`[^\n]*:\n\n)?```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PREPARES = "python3 -m venv"
SERVES = "gunicorn shop:app\n"
SHOWS_A_PAGE = "geventpool dashboard\n"  # tests/integration/test_dashboard.py


def pattern_of(told: str) -> str:
    """What a machine may print where the page says this: other figures, and anything for an ellipsis."""
    figure = r"\d+(?:[.,]\d+)*(?: (?:ms|µs|s)\b)?"
    parts = []
    for line in told.splitlines():
        if line == "…":
            parts.append(r"(?:.*\n)*?")
            continue
        known = re.split(rf"(…|{figure})", line)
        parts.append(
            "".join(
                ".*" if one == "…" else figure if re.fullmatch(figure, one) else re.escape(one)
                for one in known
            )
            + r"\n"
        )
    return "".join(parts)


class Terminal:
    """A shell in the folder, and the server in the other one."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder, self.port = folder, port
        bin_folder = Path(sys.executable).parent
        self.environ = {
            **{name: value for name, value in os.environ.items() if name != "DATABASE_URL"},
            "PATH": f"{bin_folder}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "GEVENTPOOL_SNAPSHOTS": str(folder / "said"),
        }
        self.server: Any = None

    def run(self, command: str) -> str:
        """What the commands print; the doctor's exit code says what it has found."""
        done = subprocess.run(
            ["bash", "-c", command.replace(":8000", f":{self.port}")],
            cwd=self.folder,
            env=self.environ,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode in ((1, 2) if "doctor" in command else (0,)), done.stderr
        return done.stdout

    def serve(self) -> None:
        """Starts gunicorn, again if it has run, and waits until it answers."""
        self.stop()
        with (self.folder / "log").open("a") as log:
            self.server = subprocess.Popen(
                [Path(sys.executable).parent / "gunicorn", "shop:app"],
                cwd=self.folder,
                env=self.environ,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        until = time.monotonic() + 60
        while time.monotonic() < until and self.server.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.1)
        pytest.fail((self.folder / "log").read_text())

    def stop(self) -> None:
        """Ctrl-C."""
        if self.server is not None:
            self.server.terminate()
            self.server.wait(60)


@pytest.fixture
def terminal(tmp_path: Path) -> Any:
    made = Terminal(tmp_path, _free_port())
    yield made
    made.stop()


def test_the_tutorial_prints_what_it_says(terminal: Terminal) -> None:
    steps = [found.groups() for found in STEP.finditer(PAGE)]
    printed, compared = "", 0
    for name, language, text in steps:
        if language == "text":
            wanted = pattern_of(text)
            assert re.match(wanted, printed), f"{text}\n--- but it prints ---\n{printed}"
            compared += 1
        elif name:
            (terminal.folder / name).write_text(text.replace(":8000", f":{terminal.port}"))
        elif text == SERVES:
            terminal.serve()
        elif not text.startswith(PREPARES) and text != SHOWS_A_PAGE:
            printed = terminal.run(text)
            if text.startswith("sed"):
                terminal.serve()
    assert compared == 7
    # Held only while it is asked, a connection is never what the last hundred requests wait for.
    address = f"http://127.0.0.1:{terminal.port}/pool"
    with urllib.request.urlopen(address) as answer:
        assert " 0 timeouts" in answer.read().decode()
