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

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".cache" / "peers"


@dataclass
class Outcome:
    """What became of a peer's tests, by name."""

    passed: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    output: str = ""

    def check(self, excluded: Mapping[str, str], at_least: int) -> None:
        """Fails unless exactly the excluded tests failed, and enough passed to mean anything."""
        surprising = {name: text for name, text in self.failed.items() if name not in excluded}
        text = "\n\n".join(f"{name}\n{message}" for name, message in surprising.items())
        assert not surprising, f"{text}\n{self.output[-3000:]}"
        passing = sorted(set(excluded) & set(self.passed))
        assert not passing, f"excluded, but they pass: {passing}"
        assert len(self.passed) >= at_least, self.output[-3000:]


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


def run(folder: Path, plugin: str, tests: list[str], paths: list[Path]) -> Outcome:
    """Runs a peer's tests in a process of their own."""
    report = folder / f"report-{plugin}.xml"
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(map(str, [*paths, ROOT])),
    }
    command = [sys.executable, "-m", "pytest", "-q", "-p", f"tests.peers.{plugin}"]
    command += ["-W", "ignore::geventpool.errors.BlockingDriverWarning"]
    command += ["-p", "no:randomly", "-p", "no:cacheprovider", f"--junitxml={report}", *tests]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    outcome = Outcome(output=done.stdout + done.stderr)
    assert report.exists(), outcome.output[-3000:]
    for case in ET.parse(report).iter("testcase"):
        name = case.get("name", "")
        problem = next((child for child in case if child.tag in ("failure", "error")), None)
        if problem is not None:
            outcome.failed[name] = (problem.text or "")[-1500:]
        elif case.find("skipped") is not None:
            outcome.skipped.append(name)
        else:
            outcome.passed.append(name)
    report.unlink()
    return outcome
