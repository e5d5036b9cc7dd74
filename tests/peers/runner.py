"""Runs the tests that a peer ships in its source distribution, with our pool in the place of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from .excluded import IN_TIME

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".cache" / "peers"
IS_WHOLE = bool(os.environ.get("GEVENTPOOL_PEERS_WHOLE"))  # `make peers`


@dataclass
class Outcome:
    """What became of a peer's tests, by class and name."""

    passed: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    output: str = ""

    def check(self, theirs: Outcome | None, excluded: Mapping[str, str]) -> None:
        """Fails unless all that passes with their pool passes with ours, but for what is excluded.

        Args:
            theirs: what became of the same tests with their own pool; `None`: all of them pass.
            excluded: tests that ours is not meant to pass; one that passes is an error too.
        """
        assert self.passed, f"nothing ran:\n{self.output[-3000:]}"
        expected = set(self.failed) if theirs is None else set(theirs.passed)
        lost = sorted(expected - set(self.passed) - set(excluded))
        texts = [f"{name}\n{self.failed.get(name, 'was not run')}" for name in lost]
        assert not lost, "\n\n".join([*texts, self.output[-3000:]])
        passing = sorted(set(excluded) & set(self.passed) - IN_TIME)
        assert not passing, f"excluded, but they pass: {passing}"


def source_of(requirement: str) -> Path:
    """The unpacked source distribution of the newest release that meets a requirement."""
    folder = CACHE / re.sub(r"[^\w.]+", "-", requirement)
    done = folder / "unpacked"
    if not done.exists():
        folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps"]
        # Only this one from its source: not also what pip needs to read its metadata.
        name = re.split(r"[^\w-]", requirement)[0]
        command += ["--no-binary", name, "-d", str(folder), requirement]
        got = subprocess.run(command, capture_output=True, text=True, check=False)
        assert got.returncode == 0, f"pip could not download {requirement}:\n{got.stderr}"
        (archive,) = folder.glob("*.tar.gz")
        with tarfile.open(archive) as tar:
            tar.extractall(folder, filter="data")
        done.touch()
    (unpacked,) = (path for path in folder.iterdir() if path.is_dir())
    return unpacked


def run_both(
    folder: Path, plugin: str, tests: list[str], paths: list[Path], all_pass: bool = False
) -> tuple[Outcome, Outcome | None]:
    """Runs a peer's tests with our pool and with its own; both under monkey-patching.

    Where all are known to pass with its own, that is seen in `make peers` only.
    """
    ours = _run(folder, plugin, tests, paths)
    if all_pass and not IS_WHOLE:
        return ours, None
    return ours, _run(folder, "only_patched", tests, paths)


def _run(folder: Path, plugin: str, tests: list[str], paths: list[Path]) -> Outcome:
    """Runs a peer's tests in a process of their own."""
    report = folder / f"report-{plugin}.xml"
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(map(str, [*paths, ROOT])),
    }
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:ddtrace",
        "-p",
        f"tests.peers.{plugin}",
    ]
    command += ["-W", "ignore::geventpool.errors.BlockingDriverWarning"]
    # Python 3.13 says so of each engine that a test drops, in whatever test runs at that moment.
    command += ["-W", "ignore:unclosed database in:ResourceWarning"]
    command += ["-p", "no:randomly", "-p", "no:cacheprovider", f"--junitxml={report}", *tests]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    outcome = Outcome(output=done.stdout + done.stderr)
    assert report.exists(), outcome.output[-3000:]
    for case in ET.parse(report).iter("testcase"):
        name = f"{case.get('classname', '').rpartition('.')[2]}::{case.get('name', '')}"
        problem = next((child for child in case if child.tag in ("failure", "error")), None)
        if problem is not None:
            outcome.failed[name] = (problem.text or "")[-1500:]
        elif case.find("skipped") is not None:
            outcome.skipped.append(name)
        else:
            outcome.passed.append(name)
    report.unlink()
    return outcome
