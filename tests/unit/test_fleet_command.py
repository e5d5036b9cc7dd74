"""`geventpool fleet`: who has how many."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gevent
import pytest
from click.testing import CliRunner
from gevent.event import Event

from geventpool import ConnectionPool
from geventpool.cli import main
from geventpool.testing import FakeDriver, settle


def run(*arguments: Any) -> Any:
    return CliRunner().invoke(main, ["fleet", *map(str, arguments)], env={"COLUMNS": "100"})


def test_it_shows_each_member_and_who_is_short(tmp_path: Path) -> None:
    directory, is_over = tmp_path / "fleets", Event()
    pools = [
        ConnectionPool(FakeDriver().connect, fleet=directory, fleet_size=2, fleet_name="shop")
        for _ in range(2)
    ]

    def hold(pool: ConnectionPool) -> None:
        with pool.connection():
            is_over.wait()

    holders = [gevent.spawn(hold, pools[0]) for _ in range(2)]
    settle()
    holders.append(gevent.spawn(hold, pools[1]))
    settle()
    told = run("--directory", directory, "shop").output
    is_over.set()
    gevent.joinall(holders)
    assert "shop" in told
    assert ": 2 of 2" in told
    (short,) = (line for line in told.splitlines() if line.strip().endswith("is short"))
    assert short.split()[2:6] == ["0", "0", "1", "1"]


@pytest.mark.parametrize("arguments", [["other"], []])
def test_it_says_what_is_missing(arguments: list[str], tmp_path: Path) -> None:
    where = tmp_path if arguments else tmp_path / "nothing"
    told = run("--directory", where, *arguments)
    assert told.exit_code == 1
    assert "no such fleet" in told.output or "is fleet= set?" in told.output
