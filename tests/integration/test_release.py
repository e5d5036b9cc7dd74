"""What is published: the two distributions, their metadata, and the extras that the docs name."""

from __future__ import annotations

import re
import shutil
import subprocess
import tarfile
import zipfile
from email.message import Message
from email.parser import Parser
from pathlib import Path

import pytest

from geventpool import __version__
from tools import release

ROOT = Path(__file__).parents[2]
URL = "https://example.org/geventpool"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Of a copy, so that nothing is left here; with the address of a project."""
    copy, into = tmp_path_factory.mktemp("copy"), tmp_path_factory.mktemp("dist")
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    for name in filter(None, listed.stdout.splitlines()):
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, copy / name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GEVENTPOOL_URL", URL)
        return release.build(copy, into)


@pytest.fixture(scope="module")
def metadata(built: tuple[Path, Path]) -> Message:
    _, wheel = built
    with zipfile.ZipFile(wheel) as archive:
        name = f"geventpool-{__version__}.dist-info/METADATA"
        return Parser().parsestr(archive.read(name).decode())


def test_the_source_has_tests_and_docs_and_the_wheel_the_package_alone(
    built: tuple[Path, Path],
) -> None:
    source, wheel = built
    release.check_contents(source, wheel)
    with tarfile.open(source) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    tracked = {name for name in listed.stdout.splitlines() if (ROOT / name).is_file()}
    assert {name for name in tracked - inside if not name.startswith(".ci/")} == set()


def test_the_licence_is_an_spdx_expression_and_python_s_versions_are_those_that_are_tested(
    metadata: Message,
) -> None:
    assert (metadata["License-Expression"], metadata["Version"]) == ("MIT", __version__)
    said = {one.rpartition(" :: ")[2] for one in metadata.get_all("Classifier", [])}
    (tested,) = re.findall(r"python=(\[.*?3\.13.*?\])", (ROOT / "noxfile.py").read_text())
    assert {one for one in said if re.fullmatch(r"3\.\d+", one)} == set(
        re.findall(r"3\.\d+", tested)
    )
    assert metadata["Requires-Python"] == ">=3.10"


def test_nothing_but_gevent_is_required(metadata: Message) -> None:
    required = [one for one in metadata.get_all("Requires-Dist", []) if "extra ==" not in one]
    assert [re.split(r"[<>=]", one)[0] for one in required] == ["gevent"]


def test_the_page_s_links_lead_to_the_project(metadata: Message) -> None:
    urls = dict(one.split(", ") for one in metadata.get_all("Project-URL", []))
    assert urls["Homepage"] == URL
    assert set(urls) == {"Homepage", "Documentation", "Changelog", "Issues"}
    page = metadata.get_payload()
    assert isinstance(page, str)
    links = re.findall(r"\]\((.*?)\)", page)
    assert links
    assert all(link.startswith(("https://", "#")) for link in links)


def test_extras_that_are_named_exist(metadata: Message) -> None:
    extras = set(metadata.get_all("Provides-Extra", []))
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "examples").rglob("*.md")]
    pages += [ROOT / "CHANGELOG.md", *(ROOT / "loadtests").glob("*.md")]
    sources = [*(ROOT / "geventpool").rglob("*.py"), *(ROOT / "examples").rglob("*.py")]
    texts = [path.read_text() for path in [*pages, *sources]]
    named = {
        extra
        for text in texts
        for several in re.findall(r"geventpool\[([\w,-]+)\]", text)
        for extra in several.split(",")
    }
    install = (ROOT / "docs/install.md").read_text()
    named |= set(re.findall(r"`\[(\w+)\]`", install))
    assert len(named) > 15
    assert named - extras == set()
