"""How a pool is told of its fleet, which one that is, and what is refused."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine

from geventpool import ConfigError, ConnectionPool
from geventpool.fleet import joining
from geventpool.fleet.host import folder_of
from geventpool.sqlalchemy import GeventPool
from geventpool.testing import FakeDriver

MYSQL = "mysql+pymysql://shop:secret@db.example:3307/orders"


@pytest.fixture
def folder(tmp_path: Path) -> str:
    return str(tmp_path / "fleets")


def pool(**settings: Any) -> ConnectionPool:
    return ConnectionPool(FakeDriver().connect, **settings)


def members(folder: str) -> list[str]:
    return sorted(os.listdir(folder))


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"fleet": "hosts"}, r"fleet='hosts': give \"host\", or the absolute path"),
        ({"fleet": "redis://cache"}, "Redis is not supported yet"),
        ({"fleet": 7}, "fleet=7: give"),
        ({"fleet": "host"}, "fleet_size=None: give how many connections"),
        ({"fleet": "host", "fleet_size": 0}, "fleet_size=0: give 1 or more"),
        ({"fleet": "host", "fleet_size": "many"}, "fleet_size='many': give a whole number"),
        ({"fleet": "host", "fleet_size": 70_000}, "fleet_size=70000: give no more than 65,536"),
        ({"fleet": "host", "fleet_size": 5, "fleet_name": " "}, "fleet_name=' ': give a name"),
    ],
)
def test_what_cannot_be_used_is_refused_with_the_cure(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        pool(**settings)


def test_the_environment_alone_is_enough(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEVENTPOOL_FLEET", folder)
    monkeypatch.setenv("GEVENTPOOL_FLEET_SIZE", "7")
    made = pool()
    assert (made.config.fleet, made.config.fleet_size, made.config.max_size) == (folder, 7, 7)
    assert made.core.permits is not None
    assert pool(fleet_size=9, max_size=3).config.max_size == 3


@pytest.mark.parametrize(("variable", "text"), [("FLEET", "here"), ("FLEET_SIZE", "many")])
def test_a_variable_that_cannot_be_used_is_named(
    variable: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"GEVENTPOOL_{variable}", text)
    with pytest.raises(ConfigError, match=f"GEVENTPOOL_{variable}='{text}': give"):
        pool()


def test_a_pool_is_a_member_from_its_first_connection_on(folder: str) -> None:
    made = pool(fleet=folder, fleet_size=3, fleet_name="shop")
    assert members(folder) == []
    with made.connection():
        (name,) = members(folder)
        assert name == folder_of("shop")
        fleet = Path(folder, name)
        assert sorted(os.listdir(fleet)) == ["0", "permits"]
        assert [stat.S_IMODE(path.stat().st_mode) for path in (fleet, *fleet.iterdir())] == [
            0o700,
            0o600,
            0o600,
        ]


def test_a_directory_of_others_or_that_others_may_enter_is_refused(folder: str) -> None:
    os.mkdir(folder, 0o755)
    with pytest.raises(ConfigError, match="others may enter it: chmod 700"):
        pool(fleet=folder, fleet_size=3)
    os.chmod(folder, 0o700)
    os.symlink(folder, f"{folder}-link")
    with pytest.raises(ConfigError, match="no link"):
        pool(fleet=f"{folder}-link", fleet_size=3)
    with pytest.raises(ConfigError, match="fleet='/proc/nothing': cannot be used"):
        pool(fleet="/proc/nothing", fleet_size=3)


def test_the_directory_of_the_host_is_the_same_whatever_the_environment_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    before = joining.directory_of_host()
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert joining.directory_of_host() == before


def test_a_fleet_is_named_after_database_host_port_and_user(folder: str) -> None:
    def name_of(url: str, **more: Any) -> str:
        engine = create_engine(url, poolclass=GeventPool, fleet=folder, fleet_size=3, **more)
        return joining.name_of(engine.pool.core)  # type: ignore[attr-defined]

    assert name_of(MYSQL) == "mysql db.example 3307 orders shop"
    assert name_of(MYSQL.replace("secret", "changed")) == name_of(MYSQL)
    assert name_of(MYSQL.replace("3307", "3308")) != name_of(MYSQL)
    assert name_of(MYSQL.replace("mysql+pymysql", "postgresql+psycopg2")).startswith("postgresql")
    assert name_of(MYSQL, fleet_name="all of them") == "all of them"
    # Where it cannot be seen whom a function connects to.
    assert name_of(MYSQL, creator=FakeDriver().connect) == "mysql"
    assert joining.name_of(pool(name="shop", fleet=folder, fleet_size=3).core) == "shop"


def test_a_folder_has_a_name_that_can_be_read_and_is_no_other_fleets() -> None:
    one, other = folder_of("mysql a/b 3306"), folder_of("mysql a b/3306")
    assert one.startswith("mysql-a-b-3306-")
    assert one != other
    assert "/" not in folder_of("../../etc")
    assert len(folder_of("x" * 1000)) < 60


def test_sqlite_has_no_server_and_no_fleet(folder: str, tmp_path: Path) -> None:
    engine = create_engine(
        f"sqlite:///{tmp_path}/one.db", poolclass=GeventPool, fleet=folder, fleet_size=3
    )
    assert engine.pool.core.permits is None  # type: ignore[attr-defined]


@pytest.mark.parametrize("loop", ["libev-cext", "libuv-cffi"])
def test_a_fork_leaves_a_member_that_is_woken_and_keeps_no_loop_alive(loop, tmp_path) -> None:
    code = """
import gevent, os, sys
from pathlib import Path
from weakref import WeakMethod
from geventpool.core import registry
from geventpool.fleet.host import HostFleet

class Member:
    looks = 0
    def look(self):
        self.looks += 1

member = Member()
here, there = (HostFleet(Path(sys.argv[1]), WeakMethod(member.look)) for _ in range(2))
registry.at_fork(here.forget)
gevent.sleep(0.001)  # libuv begins to watch in a turn of the loop
pid = os.fork()
if not pid:
    gevent.reinit()
    gevent.sleep(0.001)
    os._exit(member.looks)
assert os.waitpid(pid, 0)[1] == 0
there._socket.sendto(b"", there._folder.address(here.slot))
for _ in range(1000):
    gevent.sleep(0.001)
    if member.looks:
        break
assert member.looks == 1, "it was not woken"
assert gevent.get_hub().join(timeout=20), "the loop has something to wait for"
"""
    tmp_path.chmod(0o700)
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "fleet")],
        env={**os.environ, "GEVENT_LOOP": loop},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr + done.stdout
