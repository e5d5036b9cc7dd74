"""The blocks of code in the docs: Python runs, commands exist with their options, all is counted."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import pytest

from geventpool.cli import main as geventpool
from tools import docs_site

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for pattern in (
        "README.md",
        "CONTRIBUTING.md",
        "docs/*.md",
        "loadtests/*.md",
        "examples/**/*.md",
    )
    for path in ROOT.glob(pattern)
)
# Those of the tutorial are run in an empty folder, by test_tutorial.py; the driver by its own test.
ELSEWHERE = ("docs/tutorial.md", "docs/write_a_driver.md")
MYSQL = "mysql+pymysql://shop@127.0.0.1/shop"
POSTGRESQL = "postgresql+psycopg://shop@127.0.0.1/shop"
# What a page takes for granted, as its reader has it: before its first block.
ENGINE = f"""
import pymysql
from sqlalchemy import create_engine, text
from geventpool.sqlalchemy import GeventPool
from geventpool import ConnectionPool
url = "{MYSQL}"
engine = create_engine(url, poolclass=GeventPool)
connect = lambda: pymysql.connect(host="127.0.0.1", user="shop", database="shop")
pool = ConnectionPool(connect)
write = lambda connection: connection.cursor().execute("select 1")
"""
DJANGO = """
import django
from django.conf import settings
settings.configure(INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth"],
    DATABASES={"default": {"ENGINE": "geventpool.django.postgresql", "NAME": "shop"}})
django.setup()
from django.contrib.auth.models import Group as Order
from django.urls import include, path
"""
FLASK = """
from flask import Flask
app = Flask("shop")
class current_user: is_admin = True
"""
BEFORE = {
    "docs/failover.md": ENGINE,
    "docs/fleet.md": ENGINE,
    "docs/observe.md": ENGINE,
    "docs/sizing.md": ENGINE,
    "docs/uwsgi.md": "",
    "docs/dashboard.md": DJANGO + FLASK,
    "docs/django.md": DJANGO,
    "examples/flask_app/README.md": ENGINE + FLASK,
}
# Why a block cannot run. Each is a text in it; the number of them is bounded below.
NOT_RUN = {
    "add_prepare_target(Order": "a model of the reader's; tests/integration/django_cases has its own",
    "host=db1,db2": "two hosts; tests/integration/test_failover.py has them",
    'fleet="/run/shop/fleet"': "a directory of the system; tests/integration/test_fleet.py",
}
# Programs that are not ours: their options are their documentation's.
OTHERS = {"celery", "python", "python3", "curl", "sed", "sleep", "for"}


@dataclass(frozen=True)
class Block:
    """A block of code, and the line where it begins."""

    page: str
    line: int
    language: str
    text: str


def blocks(page: str) -> Iterator[Block]:
    """All of a page."""
    text = (ROOT / page).read_text()
    for found in re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        yield Block(page, text[: found.start()].count("\n") + 2, found[1], found[2])


ALL = [block for page in PAGES for block in blocks(page)]
PYTHON = [block for block in ALL if block.language == "python" and block.page not in ELSEWHERE]
SHELL = [block for block in ALL if block.language == "sh"]


def why_not_run(block: Block) -> str:
    """Empty: it is run."""
    return next((why for text, why in NOT_RUN.items() if text in block.text), "")


def statements(block: Block) -> str:
    """A block that shows entries of a dict is that dict."""
    return f"{{{block.text}}}" if block.text.startswith('"') else block.text


@pytest.mark.parametrize("page", sorted({block.page for block in PYTHON}))
def test_the_python_of_a_page_runs_from_top_to_bottom(
    page: str, mariadb: Any, postgresql: Any, tmp_path: Path
) -> None:
    run = [block for block in PYTHON if block.page == page and not why_not_run(block)]
    if not run:
        return
    # Line numbers of errors are those of the page.
    lines = [f"exec(compile({BEFORE.get(page, '')!r}, 'before', 'exec'))"]
    lines += [
        f"exec(compile({chr(10) * (block.line - 1) + statements(block)!r}, {page!r}, 'exec'))"
        for block in run
    ]
    code = "\n".join(["from gevent import monkey; monkey.patch_all()", *lines])
    for server, driver, url in ((mariadb, "pymysql", MYSQL), (postgresql, "psycopg", POSTGRESQL)):
        code = code.replace(url, server.url(driver))
    code = code.replace(
        'host="127.0.0.1", user="shop", database="shop"',
        f'host="127.0.0.1", port={mariadb.port}, user="{mariadb.user}", '
        f'password="{mariadb.password or ""}", database="{mariadb.database}"',
    )
    conninfo = postgresql.url("psycopg").replace("postgresql+psycopg", "postgresql")
    code = code.replace("host=127.0.0.1 user=shop dbname=shop", conninfo)
    (tmp_path / "page.py").write_text(code)
    done = subprocess.run(
        [sys.executable, "page.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "GEVENTPOOL_SNAPSHOTS": str(tmp_path / "said")},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_blocks_that_cannot_run_are_few_and_each_has_its_reason() -> None:
    not_run = [block for block in PYTHON if why_not_run(block)]
    assert len(not_run) == len(NOT_RUN) == 3
    assert len(PYTHON) - len(not_run) >= 25


def commands(block: Block) -> Iterator[list[str]]:
    """The words of each command, without variables before it."""
    for line in block.text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        for command in " ".join(map(shlex.quote, words)).split(" '|' "):
            words = shlex.split(command)
            while words and re.match(r"\w+=", words[0]):
                words.pop(0)
            if words:
                yield words


@pytest.mark.parametrize("block", SHELL, ids=lambda block: f"{block.page}:{block.line}")
def test_each_command_and_option_of_a_shell_block_exists(block: Block) -> None:
    for words in commands(block):
        judge(words)


def judge(words: list[str]) -> None:
    name, *rest = words
    if name == "geventpool":
        judge_ours(rest)
    elif name in ("flask", "manage.py") or rest[:1] == ["manage.py"]:
        if "geventpool" in rest:
            own = rest[rest.index("geventpool") + 1 :]
            assert own[0] in ("doctor", "status", "top")
    elif name == "make":
        targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert next(word for word in rest if "=" not in word) in targets
    elif name == "pip":
        for extra in re.findall(r"[\[,](\w+)", " ".join(rest)):
            assert f'"{extra}": ' in (ROOT / "setup.py").read_text()
    elif name == "gunicorn":
        from gunicorn.config import Config

        Config().parser().parse_args([word.replace("…", "conf.py") for word in rest])
    elif rest[:1] == ["-m"]:
        assert importlib.util.find_spec(rest[1]) is not None, rest[1]
    else:
        assert name in (*OTHERS, "."), name


def judge_ours(words: list[str]) -> None:
    top = click.Context(geventpool, info_name="geventpool")
    command = geventpool.get_command(top, words[0])
    assert command is not None, words[0]
    given = [word for word in words[1:] if word != "…"]
    # Options have to exist, and to take what they are given; nothing is run.
    options = [one for one in command.params if isinstance(one, click.Option)]
    known = {flag for one in options for flag in one.opts} | {"--help"}
    ours = given[:1] if words[0] == "record" else given
    assert {word.partition("=")[0] for word in ours if word.startswith("--")} <= known, words
    if not any(isinstance(one.type, click.Path) and one.type.exists for one in command.params):
        command.make_context(words[0], given, parent=top)


def test_the_site_is_whole_and_loads_nothing_from_another_host(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tools.docs_site", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for page in PAGES:
        name = re.sub(r"(README)?\.md$", "", page)
        assert (tmp_path / name / "index.html").exists(), page
    index = (tmp_path / "search" / "search_index.json").read_text()
    for word in ("reclaim_after", "server.max_connections", "ConnectionPool.warm_up"):
        assert word in index
    commands_page = (tmp_path / "reference/commands/index.html").read_text()
    assert all(
        f"geventpool {name}" in commands_page for name in ("doctor", "advise", "migrate", "top")
    )


def test_a_page_that_loads_from_another_host_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text(
        '<script src="https://cdn.example/a.js"></script><a href="https://b.example">b</a>'
    )
    assert docs_site.loaded(page) == ['<script src="https://cdn.example/a.js']


def test_a_dead_link_stops_the_build(tmp_path: Path) -> None:
    (tmp_path / "pages").mkdir()
    (tmp_path / "pages/index.md").write_text("[there](nowhere.md) [here](#nothing)")
    config = (ROOT / "mkdocs.yml").read_text().partition("nav:\n  - README")[0]
    config = re.sub(r"docs_dir: .*", "docs_dir: pages", config).replace("build/docs", "site")
    (tmp_path / "mkdocs.yml").write_text(config)
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 1
    assert "2 warnings in strict mode" in done.stderr + done.stdout
