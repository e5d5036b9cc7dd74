"""`make release`: builds the source distribution and the wheel, checks them, and says what is left to do.

Nothing is published. `GEVENTPOOL_URL=https://… make release` says where the project lives.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_IN_SOURCE = ("tests", "docs", "examples", "tools", "LICENSE", "CHANGELOG.md", "Makefile")
_MOST_CPU = 0.15  # seconds, for `import geventpool` in an environment that has nothing else
_IMPORT = "import time; t = time.process_time(); import geventpool; print(time.process_time() - t)"


def run(*command: str | Path, at: Path = ROOT) -> str:
    """What a command says.

    Raises:
        SystemExit: it fails.
    """
    done = subprocess.run(
        list(map(str, command)), cwd=at, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))}:\n{done.stdout}{done.stderr}")
    return done.stdout + done.stderr


def build(root: Path, into: Path) -> tuple[Path, Path]:
    """The source distribution and the wheel, which is built from it.

    Raises:
        SystemExit: one cannot be built, or what they are built by calls something of ours deprecated.
    """
    said = run(sys.executable, "-m", "build", "--outdir", into, root)
    deprecated = [line for line in said.splitlines() if "deprecat" in line.lower()]
    if deprecated:
        raise SystemExit("\n".join(["The build says:", *deprecated]))
    (source,), (wheel,) = into.glob("*.tar.gz"), into.glob("*.whl")
    run(sys.executable, "-m", "twine", "check", "--strict", source, wheel)
    return source, wheel


def check_contents(source: Path, wheel: Path) -> None:
    """Who has the source can run the tests and read the docs; who has the wheel gets the package alone.

    Raises:
        SystemExit: that is not so.
    """
    with tarfile.open(source) as archive:
        inside = {name.partition("/")[2].partition("/")[0] for name in archive.getnames()}
    missing = set(_IN_SOURCE) - inside
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    alien = [name for name in names if not re.match(r"geventpool(/|-[\d.]+\.dist-info/)", name)]
    if missing or alien or "geventpool/py.typed" not in names:
        raise SystemExit(f"{source.name} lacks {missing}, {wheel.name} has {alien}")


def import_cpu(wheel: Path) -> float:
    """Seconds of CPU that `import geventpool` takes where nothing else is installed; the best of five."""
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        python = Path(folder, "bin", "python")
        run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", wheel)
        return min(float(run(python, "-c", _IMPORT, at=Path(folder))) for _ in range(5))


def left_to_do(version: str) -> list[str]:
    """What no program can do, or should."""
    left = []
    if not os.environ.get("GEVENTPOOL_URL"):
        left.append("GEVENTPOOL_URL=https://… make release: so far its page has no links")
    if f"## {version} (unreleased)" in (ROOT / "CHANGELOG.md").read_text():
        left.append(f"CHANGELOG.md: the date of {version} in place of (unreleased)")
    if run("git", "status", "--porcelain"):
        left.append("git commit: not all of this is in the repository")
    left.append("make check test matrix stress, on a quiet machine")
    if not run("git", "tag", "--list", f"v{version}"):
        left.append(f"git tag v{version}, and push it")
    return [*left, f"python -m twine upload dist/geventpool-{version}*"]


def main() -> None:
    """The command line."""
    dist = ROOT / "dist"
    for old in dist.glob("*"):
        old.unlink()
    source, wheel = build(ROOT, dist)
    run(sys.executable, "-m", "check_manifest")
    check_contents(source, wheel)
    print(f"{source.name} and {wheel.name} are sound.")
    cpu = import_cpu(wheel)
    print(f"`import geventpool` takes {cpu:.3f} s of CPU.")
    if cpu > _MOST_CPU:
        print(f"That is more than {_MOST_CPU} s: is this machine busy?")
    print("Left to do:")
    for number, one in enumerate(left_to_do(wheel.name.split("-")[1]), 1):
        print(f"  {number}. {one}")


if __name__ == "__main__":
    main()
