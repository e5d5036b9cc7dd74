"""Snapshots in files, their sums, Prometheus' text, and `geventpool top`."""

from __future__ import annotations

import copy
import io
import json
import math
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console
from sqlalchemy import create_engine

import geventpool.observe
from geventpool import ConfigError, ConnectionPool
from geventpool.cli import main
from geventpool.core import registry
from geventpool.errors import printable
from geventpool.observe import files
from geventpool.observe.prometheus import Collector, exposition
from geventpool.observe.shape import is_snapshot
from geventpool.observe.snapshot import add_up, began, snapshot
from geventpool.observe.text import by_name, seconds, tell
from geventpool.observe.top import Screen, short, sparkline
from geventpool.sqlalchemy import GeventPool
from geventpool.testing import FakeDriver

pytestmark = pytest.mark.usefixtures("no_pools_of_other_tests")


@pytest.fixture
def pool() -> Any:
    pool = ConnectionPool(FakeDriver().connect, name="desk", max_size=7)
    observer = geventpool.observe.attach(pool)
    for _ in range(3):
        with pool.connection() as connection:
            connection.cursor().execute("select 'planted'")
    yield pool
    observer.detach()
    pool.close()


@pytest.fixture
def publisher(tmp_path: Path, pool: ConnectionPool) -> Any:
    publisher = geventpool.observe.publish(tmp_path / "snapshots", interval=60)
    yield publisher
    publisher.stop()


def metrics(text: bytes) -> dict[tuple[str, str], float]:
    """The samples of the pool "desk", by name and their other labels."""
    return {
        (sample.name, ",".join(value for key, value in sample.labels.items() if key != "pool")): (
            sample.value
        )
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
        if sample.labels.get("pool", "desk") == "desk"
    }


def pretend_another_process(directory: Path, pid: int, began: str, **counts: int) -> None:
    """Its snapshot: ours, with counts of its own."""
    said = snapshot()
    [desk] = [one for one in said["pools"] if one["name"] == "desk"]
    said = {**said, "pid": pid, "began": began, "pools": [{**desk, **counts}]}
    (directory / f"geventpool-{pid}.json").write_text(json.dumps(said))


def test_a_snapshot_is_for_this_user_alone(publisher) -> None:
    assert stat.S_IMODE(publisher.directory.stat().st_mode) == 0o700
    assert stat.S_IMODE(publisher.path.stat().st_mode) == 0o600
    [said] = geventpool.observe.read_snapshots(publisher.directory)
    assert said["pid"] == os.getpid()
    [desk] = [pool for pool in said["pools"] if pool["name"] == "desk"]
    assert desk["checkouts"] == 3
    assert desk["observed"]["queries"]["top"][0]["query"] == "select ?"
    assert "planted" not in publisher.path.read_text()


def test_an_unbounded_pool_is_valid_json(publisher) -> None:
    endless = ConnectionPool(FakeDriver().connect, name="endless", max_size=float("inf"))
    publisher.write()
    assert "Infinity" not in publisher.path.read_text()
    assert b'geventpool_connections_max{pool="endless"} +Inf' in exposition()
    assert "no limit" in geventpool.observe.report()
    endless.close()


def test_a_directory_where_others_may_write_is_refused(tmp_path) -> None:
    tmp_path.chmod(0o777)
    with pytest.raises(ConfigError, match="chmod 700"):
        geventpool.observe.publish(tmp_path)
    link = tmp_path / "link"
    link.symlink_to("/")
    with pytest.raises(ConfigError, match="directory"):
        geventpool.observe.publish(link)
    for interval in (0, math.nan, math.inf, "1", None):
        with pytest.raises(ConfigError, match="interval"):
            geventpool.observe.publish(tmp_path / "new", interval=interval)


def test_the_directory_is_what_the_environment_says(monkeypatch, tmp_path) -> None:
    for variable in ("GEVENTPOOL_SNAPSHOTS", "PROMETHEUS_MULTIPROC_DIR", "XDG_RUNTIME_DIR"):
        monkeypatch.delenv(variable, raising=False)
    assert files.default_directory().name == f"geventpool-{os.getuid()}"
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert files.default_directory() == tmp_path / "geventpool"
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", "/prometheus")
    assert files.default_directory() == Path("/prometheus")
    monkeypatch.setenv("GEVENTPOOL_SNAPSHOTS", "/here")
    assert files.default_directory() == Path("/here")


def test_sums_never_fall_when_a_process_ends(publisher) -> None:
    directory = publisher.directory
    one = files.read_total(directory).pools["desk"]["checkouts"]
    pretend_another_process(directory, 999_999_999, "1", checkouts=100, size=50)
    for _ in range(3):
        total = files.read_total(directory)
        assert total.pools["desk"]["checkouts"] == one + 100
        assert total.pools["desk"]["size"] == 1  # nobody holds those any more
        assert total.processes == 1
    assert not (directory / "geventpool-999999999.json").exists()
    pretend_another_process(directory, 999_999_998, "1", checkouts=10)
    assert files.read_total(directory).pools["desk"]["checkouts"] == one + 110
    assert stat.S_IMODE((directory / "geventpool-ended.json").stat().st_mode) == 0o600


def test_a_later_process_of_the_same_number_is_another_one(publisher) -> None:
    pretend_another_process(publisher.directory, os.getppid(), "not its start")
    assert len(geventpool.observe.read_snapshots(publisher.directory)) == 1


def test_what_is_no_snapshot_is_left_alone(publisher) -> None:
    for name, text in (("geventpool-1.json", "{"), ("geventpool-2.json", "[1]"), ("x.json", "{}")):
        (publisher.directory / name).write_text(text)
    assert len(geventpool.observe.read_snapshots(publisher.directory)) == 1


def test_pools_of_one_name_are_added_up() -> None:
    one = snapshot_of(in_use=1, checkouts=5, closed={"idle": 1}, wait_counts=(1, 0))
    other = snapshot_of(in_use=2, checkouts=6, closed={"idle": 2, "dead": 1}, wait_counts=(0, 4))
    total = add_up([one, other]).pools["desk"]
    assert (total["in_use"], total["checkouts"], total["max_size"]) == (3, 11, 14)
    assert (total["closed"], total["wait_counts"]) == ({"idle": 3, "dead": 1}, [1, 4])


def snapshot_of(**figures: Any) -> dict[str, Any]:
    pool = ConnectionPool(FakeDriver().connect, name="desk", max_size=7)
    [said] = [one for one in snapshot()["pools"] if one["name"] == "desk"]
    pool.close()
    registry._pools.discard(pool.core)
    return {"pools": [{**said, **figures}], "hub": None}


def test_prometheus_text_agrees_with_the_pool(pool) -> None:
    stats = pool.stats()
    said = metrics(exposition())
    assert said["geventpool_checkouts_total", ""] == stats.checkouts == 3
    assert said["geventpool_connections", "idle"] == stats.idle == 1
    assert said["geventpool_connections_max", ""] == 7
    assert said["geventpool_acquire_seconds_count", ""] == 3
    assert said["geventpool_hold_seconds_sum", ""] == pytest.approx(stats.hold_seconds)
    assert said["geventpool_wait_seconds_count", ""] == stats.waits
    assert said["geventpool_waits_total", "connecting"] == 1
    assert said["geventpool_query_seconds_count", ""] == 3


def test_a_registry_of_the_programs_own_may_have_the_collector(pool) -> None:
    registry = CollectorRegistry()
    registry.register(Collector())
    assert metrics(generate_latest(registry))["geventpool_checkouts_total", ""] == 3


def test_who_is_asked_answers_for_all_who_publish(publisher, pool) -> None:
    pretend_another_process(publisher.directory, 999_999_999, "1", checkouts=100)
    with pool.connection():
        pass
    assert metrics(exposition())["geventpool_checkouts_total", ""] == 104


def test_the_flask_view_shows_the_same(pool) -> None:
    from flask import Flask

    import geventpool.flask

    app = Flask(__name__)
    app.add_url_rule("/metrics", view_func=geventpool.flask.metrics)
    answer = app.test_client().get("/metrics")
    assert answer.content_type.startswith("text/plain; version=")
    assert metrics(answer.data)["geventpool_checkouts_total", ""] == 3


def test_top_prints_a_report(publisher) -> None:
    done = CliRunner().invoke(main, ["top", "--once", "--directory", str(publisher.directory)])
    assert done.exit_code == 0
    for part in ("pool desk: max 7", "select ?", "test_observe_files.py", f"process {os.getpid()}"):
        assert part in done.output
    assert "planted" not in done.output


def test_top_prints_json(publisher) -> None:
    command = ["top", "--once", "--json", "--directory", str(publisher.directory)]
    [said] = json.loads(CliRunner().invoke(main, command).output)
    assert said["pid"] == os.getpid()


def test_top_says_what_is_missing(tmp_path) -> None:
    runner = CliRunner()
    nowhere = runner.invoke(main, ["top", "--once", "--directory", str(tmp_path / "no")])
    assert nowhere.exit_code == 1
    assert "publish()" in nowhere.output
    assert (
        "publish()" in runner.invoke(main, ["top", "--once", "--directory", str(tmp_path)]).output
    )
    assert runner.invoke(main, ["top", "--json"]).exit_code == 2


def test_top_shows_a_live_screen(publisher) -> None:
    from rich.console import Console

    screen = Screen()
    console = Console(width=200, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    said = geventpool.observe.read_snapshots(publisher.directory)
    for _ in range(2):
        console.print(screen.render(said))
    text = console.export_text()
    console.file.close()
    for part in ("desk", "select ?", "slowest queries"):
        assert part in text
    assert screen.render([]) is not None


def test_the_live_screen_fits_into_80_columns(publisher, pool) -> None:
    from rich.console import Console

    with pool.connection() as connection:
        connection.cursor().execute(
            "select a_column_with_a_long_name from a_table where x = 'planted'"
        )
        publisher.write()
        said = geventpool.observe.read_snapshots(publisher.directory)
    with open(os.devnull, "w") as nowhere:
        console = Console(width=80, record=True, file=nowhere)
        console.print(Screen().render(said))
        lines = console.export_text().splitlines()
    assert max(map(len, lines)) <= 80
    heads = ("demand over time", "in trans.", "query, sent at")
    assert all(any(head in line for line in lines) for head in heads)
    [figures] = [line for line in lines if " desk " in line]
    assert figures.split()[:6] == [str(os.getpid()), "desk", "1", "0", "7", "0"]
    assert any("unit/test_observe_files.py:" in line for line in lines)


def test_a_path_is_shown_by_its_last_two_names() -> None:
    site = "/srv/shop/desk/orders.py:60 in list_orders, called by /srv/a b/app.py:3 in <lambda>"
    assert short(site).startswith("desk/orders.py:60 in list_orders, called by ")
    assert short("relative.py:3 in f") == "relative.py:3 in f"


def test_a_report_moves_no_cursor() -> None:
    said = snapshot_of()
    said |= {"pid": 1, "program": "\x1b[2Jevil\n"}
    assert "\x1b" not in tell([said])
    assert printable("a\x1b\nb") == "a??b"


def test_figures_are_short() -> None:
    assert [seconds(value) for value in (12.345, 0.01234, 2e-6)] == ["12.3 s", "12.3 ms", "2 µs"]
    assert by_name({"a": 1, "b": 2}) == "b 2, a 1"
    assert sparkline([0, 4, 8], 8.0) == " ▄█"
    assert sparkline([0, 0], 0) == "  "


def test_importing_the_package_needs_no_extra_and_starts_nothing() -> None:
    code = (
        "import sys, threading\n"
        "for name in ('sqlglot', 'prometheus_client', 'click', 'rich', 'sqlalchemy', 'opentelemetry'):\n"
        "    sys.modules[name] = None\n"
        "import geventpool, geventpool.observe as o\n"
        "pool = geventpool.ConnectionPool(lambda: None)\n"
        "o.attach(pool, queries=False); print(o.report())\n"
        "try: o.attach(geventpool.ConnectionPool(lambda: None))\n"
        "except geventpool.ConfigError as error: print(error)\n"
        "assert threading.active_count() == 1\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "pip install 'geventpool[observe]'" in done.stdout


ODD: Any = (None, "\x1b[2Jx", -1, 1.5, 10**400, math.nan, [], {})
A_LINE = ["/shop/orders.py", 60, "list_orders"]
A_BLOCK = {"seconds": 0.5, "at": 1.0, "site": "shop.py:1 in f", "stack": [A_LINE]}


def places(said: Any) -> Iterator[tuple[Any, Any]]:
    """Every value of a snapshot, the first of each list: what it is in, and where."""
    inside = said.items() if isinstance(said, dict) else enumerate(said[:1])
    for key, value in list(inside):
        yield said, key
        if isinstance(value, (dict, list)):
            yield from places(value)


def test_a_snapshot_of_odd_shape_breaks_neither_metrics_nor_top(publisher, pool) -> None:
    """Whatever is put in whichever place of it, by whoever may write there."""
    lent = pool.connection()
    lent.cursor().execute("select 1")
    said: Any = json.loads(json.dumps(snapshot()))
    lent.close()
    [desk] = said["pools"]
    assert desk["observed"]["holders"]
    assert desk["observed"]["queries"]["top"]
    assert desk["observed"]["sites"]
    [holder] = desk["observed"]["holders"]
    holder["taken_at"] = holder["now_at"] = [A_LINE]
    desk["observed"]["warnings"] = {"held": 1}
    desk["observed"]["recent"] = [{"at": 1.0, "what": "held", "site": "shop.py:1 in f"}]
    desk.update({name: {"one": 1} for name in ("closed", "wait_reasons", "timeout_reasons")})
    hub = {"threshold": 0.1, "blocks": 1, "blocked_seconds": 1.0}
    said["hub"] = {**hub, "longest": A_BLOCK, "last": A_BLOCK}
    said["gone"] = [copy.deepcopy(desk)]
    said["pid"], said["began"] = os.getppid(), began(os.getppid())
    file = publisher.directory / f"geventpool-{os.getppid()}.json"
    screen, console = Screen(), Console(file=io.StringIO(), width=100)

    def read() -> int:
        file.write_text(json.dumps(said))
        found = geventpool.observe.read_snapshots(publisher.directory)
        exposition(publisher.directory)
        assert "\x1b" not in tell(found)
        console.print(screen.render(found))
        return len(found)

    assert read() == 2, "it is understood as it is"
    for where, key in list(places(said)):
        kept = where[key]
        for odd in ODD:
            where[key] = odd
            if is_snapshot(said):  # else it is not read at all
                read()
        where[key] = kept
    assert read() == 2


def test_names_of_pools_are_text() -> None:
    for name in (3, b"desk", ["desk"]):
        with pytest.raises(ConfigError, match="name"):
            ConnectionPool(FakeDriver().connect, name=name)  # type: ignore[arg-type]
    engine = create_engine("sqlite://", poolclass=GeventPool, pool_logging_name=3)
    with engine.connect():
        assert [pool["name"] for pool in snapshot()["pools"]] == ["3"]
    engine.dispose()


def test_the_name_of_a_pool_adds_no_line_to_messages() -> None:
    pool = ConnectionPool(FakeDriver().connect, name="desk\n\x1b[2JFORGED")
    assert repr(pool).isprintable()
    assert pool.status().isprintable()


@pytest.mark.parametrize("interval", ["nan", "0.01", "inf"])
def test_top_refuses_an_interval_that_is_none(interval: str, publisher) -> None:
    arguments = ["top", "--directory", str(publisher.directory), "--interval", interval]
    assert CliRunner().invoke(main, arguments).exit_code == 2
