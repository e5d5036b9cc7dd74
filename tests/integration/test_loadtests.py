"""The load tests, from their command line: short runs on real servers, and what is made of them."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gevent
import pytest
from sqlalchemy import create_engine, inspect
from sqlalchemy.pool import NullPool

from loadtests import figures, page
from loadtests.paths import DESK_PATHS, parse_path
from loadtests.pools import VARIANTS, parse
from loadtests.shapes import SHAPES
from loadtests.soak import Sample, Soak
from loadtests.turn import Plan, Turn
from tools.servers import _free_port

from .dbapi import eventually
from .proxy import Proxy

ROOT = Path(__file__).resolve().parents[2]
PNG = b"\x89PNG\r\n\x1a\n"
OURS, TUNED = VARIANTS["geventpool"], VARIANTS["queuepool-50-25"]


def loadtest(*arguments: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    """The command line."""
    return subprocess.run(
        [sys.executable, "-m", "loadtests", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def told(done: subprocess.CompletedProcess[str]) -> str:
    """What it said, when it ended well."""
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def compare(url: str, output: Path, *arguments: str) -> list[Turn]:
    """A comparison on a server that runs; its turns."""
    short = ["--rounds", "1", "--seconds", "3", "--peak", "30"]
    where = ["--url", url, "--output", str(output)]
    said = told(loadtest("compare", *where, *short, *arguments))
    assert f"The report: {output / 'index.html'}" in said
    return page.read(output)[0]


def errors(turn: Turn) -> list[str]:
    """What the failed requests said."""
    return [row[4] for row in turn.requests if row[4] is not None]


@pytest.fixture(params=[("mariadb", "pymysql"), ("postgresql", "psycopg")], ids=lambda one: one[1])
def url(request: pytest.FixtureRequest) -> str:
    """A database on each server."""
    server, driver = request.param
    address: str = request.getfixturevalue(server).url(driver)
    return address


# The load


@pytest.mark.parametrize("shape", SHAPES.values(), ids=list(SHAPES))
def test_a_shape_is_the_same_for_the_same_seed_and_another_for_another(shape: Any) -> None:
    def users(seed: int) -> list[int]:
        return [shape.users(float(at), 60.0, 100, seed) for at in range(60)]

    assert users(1) == users(1)
    assert users(1) != users(2)
    assert all(1 <= count <= 2 * 110 for count in users(1))
    assert max(users(1)) >= (170 if shape.name == "overload" else 60)


def test_time_is_compressed_into_the_seconds_that_are_asked_for() -> None:
    shape = SHAPES["step"]
    for seconds in (10.0, 1000.0):
        quiet, busy, late = (
            shape.users(seconds * part, seconds, 100, 1) for part in (0.1, 0.5, 0.9)
        )
        assert max(quiet, late) <= 11 < 90 <= busy


def test_a_pool_of_ones_own_is_json() -> None:
    variant = parse('mine={"pool_size": 3, "max_overflow": 0}')
    engine = variant.create_engine("sqlite://")
    assert (variant.title, type(engine.pool).__name__) == ("mine", "QueuePool")
    assert engine.pool.size() == 3  # type: ignore[attr-defined]
    assert parse(TUNED.to_text()) is TUNED


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("hikari", "there is no pool 'hikari': give one of geventpool, "),
        ("mine={", "the settings of 'mine' are not JSON"),
        ('mine={"poolclass": "StaticPool"}', "'mine': poolclass must be one of GeventPool, "),
    ],
)
def test_an_unknown_pool_is_refused_with_what_there_is(text: str, wrong: str) -> None:
    with pytest.raises(ValueError, match=re.escape(wrong)):
        parse(text)


def test_a_path_has_a_weight() -> None:
    assert [parse_path(text) for text in ("/", "3:/orders?page={}")] == [
        (1, "/"),
        (3, "/orders?page={}"),
    ]
    assert sum(parse_path(text)[0] for text in DESK_PATHS) > 50
    for wrong in ("orders", "x:/", "0:/", "http://127.0.0.1/"):
        with pytest.raises(ValueError, match="is no path"):
            parse_path(wrong)


# What is made of it


def turn(title: str, number: int = 1, **changes: Any) -> Turn:
    """A day of 100 requests of 10 ms, 10 connections held for 24 s, 10 of them opened."""
    plan = Plan().__dict__ | changes.pop("plan", {})
    requests = [[at / 5, "read", 0.01, 0.005, None] for at in range(100)]
    samples = [[at / 5, 10, 5, 10, 10] for at in range(100)]
    rest: dict[str, Any] = {
        "ended": 24.0,
        "requests": requests,
        "samples": samples,
        "opens": [float(number) for number in range(10)],
        "server": [[0.0, 10], [24.0, 10]],
    }
    return Turn(title, number, plan, **{**rest, **changes})


def test_a_turn_is_measured_in_requests_and_connection_seconds() -> None:
    requests = [[0.1 * at, "read", at / 1000, 0.0, None] for at in range(1, 101)]
    requests += [[11.0, "read", 9.0, 9.0, "OperationalError: gone"]]
    found = figures.measure(turn("one", requests=requests, server=[[0, 0], [10, 4], [20, 4]]))
    assert (found["requests"], found["errors"], found["opened"]) == (101, 1, 10)
    assert (found["p50"], found["p99"]) == (0.050, 0.099)
    assert found["connection seconds"] == 20 + 40


def test_errors_after_a_fault_are_told_from_those_in_it() -> None:
    requests = [[at, "read", 0.01, 0.0, problem] for at, problem in
                ((1.0, None), (11.0, "a"), (12.9, "b"), (14.5, "c"), (15.0, None))]  # fmt: skip
    found = figures.measure(turn("one", requests=requests, fault=[10.0, 12.0]))
    assert (found["errors in the fault"], found["errors after it"]) == (2, 1)
    assert (found["last error after its end"], found["served after it"]) == (2.5, 1)


def test_what_must_hold_is_judged_by_ratios_within_a_round() -> None:
    default, medium, large = (
        VARIANTS[name].title for name in ("queuepool", "queuepool-20-10", "queuepool-50-25")
    )
    many = [float(number) for number in range(60)]
    good = [
        turn(OURS.title, server=[[0.0, 4], [24.0, 4]]),
        turn(default, opens=many),
        turn(medium),
        turn(large),
    ]
    assert [verdict.holds for verdict in figures.judge(good)] == [True] * 4
    values = [round(verdict.value, 3) for verdict in figures.judge(good)]
    assert values == [0, 1.0, 0.4, 0.167]

    slow = [[0.0, "read", 0.02, 0.0, None]] * 99 + [[0.0, "read", 0.02, 0.0, "gone"]]
    bad = [turn(OURS.title, requests=slow), turn(default), turn(medium), turn(large)]
    assert [verdict.holds for verdict in figures.judge(bad)] == [False] * 4
    for plan in ({"shape": "burst"}, {"fault": "restart"}, {"seconds": 7.0}):
        other = [turn(OURS.title, plan=plan), turn(large, plan=plan)]
        assert figures.judge(other) == []


def test_a_soak_that_grows_is_seen() -> None:
    def soak(grow: Callable[[int], float], agreed: float | None = 0.1) -> list[bool]:
        samples = [
            Sample(float(at), {1: int(1e8 * (1 + grow(at)))}, {1: 20 + int(100 * grow(at))}, 5, 5, agreed)
            for at in range(100)
        ]  # fmt: skip
        found = Soak(100.0, requests=10, errors=0, samples=samples)
        assert found.holds == all(holds for holds, _ in found.checks())
        return [holds for holds, _ in found.checks()]

    assert soak(lambda at: 0.1 if at < 10 else 0.0) == [True, True, True, True]
    assert soak(lambda at: at / 1000) == [True, False, False, True]
    assert soak(lambda at: 0.0, None) == [True, True, True, False]


# The real thing


def test_a_comparison_writes_one_page_that_needs_no_network(url: str, tmp_path: Path) -> None:
    turns = compare(url, tmp_path, "--pool", "geventpool", "--pool", "nullpool")
    assert [one.title for one in turns] == [OURS.title, VARIANTS["nullpool"].title]
    ours, null = turns
    assert errors(ours) == errors(null) == []
    assert len(ours.requests) > 30
    assert len(null.opens) == len(null.requests)
    assert 1 <= len(ours.opens) <= 20
    assert max(count for _, count in ours.server) == max(row[3] for row in ours.samples)
    assert ours.counters["commits"] >= len(ours.requests)

    text = (tmp_path / "index.html").read_text()
    assert re.findall(r'(?:src|href)="(?!data:)[^"]*"', text) == []
    assert re.findall(r"https?://|@import|url\(", text) == []
    pictures = sorted(tmp_path.glob("*.png"))
    assert len(pictures) == text.count('src="data:image/png') == 5
    assert all(picture.read_bytes().startswith(PNG) for picture in pictures)
    with create_engine(url, poolclass=NullPool).connect() as connection:
        assert not inspect(connection).has_table("geventpool_loadtest")


def test_rounds_go_back_and_forth_with_the_same_load(mariadb: Any, tmp_path: Path) -> None:
    pools = ["--pool", "geventpool", "--pool", 'two={"pool_size": 2}']
    said = told(loadtest("compare", "--url", mariadb.url("pymysql"), "--output", str(tmp_path),
                         "--rounds", "2", "--seconds", "2", "--peak", "20", *pools))  # fmt: skip
    order = re.findall(r"round (\d) of 2: (\w+)", said)
    assert order == [("1", "geventpool"), ("1", "two"), ("2", "two"), ("2", "geventpool")]
    turns, _ = page.read(tmp_path)
    assert [(one.round, one.title.split(",")[0]) for one in turns] == sorted(
        (int(number), name) for number, name in order
    )


def test_idle_connections_that_the_server_ends_cost_no_request_that_begins_later(
    url: str, tmp_path: Path
) -> None:
    (ours,) = compare(url, tmp_path, "--pool", "geventpool", "--fault", "kill-idle",
                      "--shape", "step", "--seconds", "4")  # fmt: skip
    ended = ours.fault[1]
    assert [row for row in ours.requests if row[4] is not None and row[0] - row[2] > ended] == []
    assert sum(row[0] - row[2] > ended for row in ours.requests) > 30
    assert sum(at >= ours.fault[0] for at in ours.opens) > 0


def test_a_server_that_refuses_costs_requests_only_while_it_does(
    mariadb: Any, tmp_path: Path
) -> None:
    # NullPool has to connect, so it shows that the fault is there.
    ours, null = compare(mariadb.url("pymysql"), tmp_path, "--pool", "geventpool",
                         "--pool", "nullpool", "--fault", "refuse", "--fault-seconds", "1",
                         "--shape", "soak", "--seconds", "5")  # fmt: skip
    found = figures.measure(null)
    assert found["errors in the fault"] > 0
    assert 0.9 < found["fault seconds"] < 3
    for one in (ours, null):
        assert figures.measure(one)["errors after it"] == 0
        assert figures.measure(one)["served after it"] > 0
    assert "The fault: refuse" in (tmp_path / "index.html").read_text()


def test_slow_connects_are_slow_and_end(mariadb: Any, tmp_path: Path) -> None:
    (null,) = compare(mariadb.url("pymysql"), tmp_path, "--pool", "nullpool", "--fault",
                      "slow-connect", "--fault-seconds", "1", "--seconds", "5",
                      "--peak", "5")  # fmt: skip
    assert errors(null) == []
    began, ended = null.fault
    slow = [row for row in null.requests if row[3] > 0.5]
    assert slow
    assert all(began <= row[0] <= ended + 2 for row in slow)


def test_a_restart_of_somebody_elses_server_is_refused(mariadb: Any, tmp_path: Path) -> None:
    done = loadtest("compare", "--url", mariadb.url("pymysql"), "--fault", "restart")
    assert done.returncode == 1
    assert "--fault restart wants a server of its own: leave out --url" in done.stderr


def test_who_gives_up_is_counted_as_an_error(mariadb: Any, tmp_path: Path) -> None:
    pool = 'one={"pool_size": 1, "max_overflow": 0}'
    (one,) = compare(mariadb.url("pymysql"), tmp_path, "--pool", pool, "--give-up", "0.1")
    assert set(errors(one)) == {"GaveUp: after 0.1 s"}


def test_transactions_of_ones_own_are_a_locustfile(mariadb: Any, tmp_path: Path) -> None:
    mine = tmp_path / "mine.py"
    mine.write_text(
        "from locust import task\n"
        "from sqlalchemy import text\n"
        "from loadtests.load import Load\n"
        "from loadtests.users import SQLAlchemyUser\n"
        "class Mine(SQLAlchemyUser):\n"
        "    @task\n"
        "    def look(self):\n"
        "        with self.transaction('look') as connection:\n"
        "            connection.execute(text('SELECT 1'))\n"
        "    @task\n"
        "    def fail(self):\n"
        "        with self.transaction('fail') as connection:\n"
        "            connection.execute(text('SELECT 1 FROM nowhere_at_all'))\n"
    )
    (turn,) = compare(
        mariadb.url("pymysql"), tmp_path, "--pool", "geventpool", "--locustfile", str(mine)
    )
    outcomes = {(row[1], row[4] is None) for row in turn.requests}
    assert outcomes == {("look", True), ("fail", False)}
    assert "nowhere_at_all" in (tmp_path / "index.html").read_text()


def a_user(engine: Any, told: list[dict[str, Any]]) -> Any:
    """A user of locust's, without a locust around it."""
    from loadtests.users import SQLAlchemyUser

    settings = SimpleNamespace(seed=1, rate=1.0, give_up=None)
    request = SimpleNamespace(fire=lambda **event: told.append(event))
    environment = SimpleNamespace(
        parsed_options=settings,
        events=SimpleNamespace(request=request),
        loadtest_engine=engine,
        loadtest_recorder=SimpleNamespace(in_flight=0),
    )
    return SQLAlchemyUser(environment)


def test_a_kill_in_the_middle_of_a_ping_is_no_failed_request(postgresql: Any) -> None:
    # psycopg and pre-ping: an error of the ping's own end comes in place of the kill, and a user that
    # went on after it would keep locust from ever ending.
    events: list[dict[str, Any]] = []
    with Proxy(postgresql.host, postgresql.port) as proxy:
        url = proxy.url(postgresql.url("psycopg"))
        engine = create_engine(url, pool_size=1, pool_pre_ping=True)
        user = a_user(engine, events)
        engine.connect().close()
        proxy.stall()

        def work() -> None:
            with user.transaction("never") as connection:
                user.take_time(connection, 5.0)
            raise AssertionError("it was killed")

        greenlet = gevent.spawn(work)
        gevent.sleep(0.3)
        greenlet.kill()
        assert isinstance(greenlet.value, gevent.GreenletExit)
        assert (events, user.environment.loadtest_recorder.in_flight) == ([], 0)
        proxy.resume()
        engine.dispose()


def test_a_transaction_without_a_connection_is_one_failed_request() -> None:
    from locust.exception import RescheduleTask

    engine = create_engine(f"mysql+pymysql://nobody@127.0.0.1:{_free_port()}/nothing")
    events: list[dict[str, Any]] = []
    with pytest.raises(RescheduleTask), a_user(engine, events).transaction("never"):
        raise AssertionError("there is no connection")
    assert ["Can't connect" in str(event["exception"]) for event in events] == [True]


def test_ones_own_application_is_tested_turn_by_turn(mariadb: Any, tmp_path: Path) -> None:
    sys.path.insert(0, str(ROOT / "examples"))
    from demo_support.server import gunicorn

    url = mariadb.url("pymysql")
    with gunicorn(url, 2, tmp_path, tmp_path / "log") as server:
        common = [server.url, "--url", url, "--path", "3:/orders", "--path", "/api/orders/{}"]
        common += ["--seconds", "2", "--peak", "10", "--output", str(tmp_path / "report")]
        for label in ("before", "after"):
            told(loadtest("app", *common, "--label", label))
        other = loadtest("app", *common, "--label", "other", "--peak", "5")
    turns, _ = page.read(tmp_path / "report")
    assert [one.title for one in turns] == ["before", "after"]
    assert {row[1] for one in turns for row in one.requests} == {"/orders", "/api/orders/{}"}
    assert [errors(one) for one in turns] == [[], []]
    assert max(count for _, count in turns[0].server) > 0
    assert other.returncode == 1
    assert "is of another load" in other.stderr


@contextmanager
def locusts_own_page(*arguments: str) -> Iterator[str]:
    """Locust without `--headless`: the address of its page."""
    port = _free_port()
    command = [sys.executable, "-m", "locust", "--web-host", "127.0.0.1", "--web-port", str(port)]
    process = subprocess.Popen(
        [*command, *arguments], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)


def fetch(address: str, form: bytes | None = None) -> str:
    """The answer to a GET, or a POST of a form; nothing if there is none."""
    try:
        with urllib.request.urlopen(address, form, timeout=5) as response:
            return str(response.read().decode())
    except OSError:
        return ""


def test_locusts_own_page_runs_the_same_load(mariadb: Any) -> None:
    arguments = ["-f", "loadtests/shop.py", "--url", mariadb.url("pymysql"), "--pool", "geventpool"]
    with locusts_own_page(*arguments, "--peak", "20", "--seconds", "30") as address:
        eventually(lambda: "shape" in fetch(address))
        assert json.loads(fetch(f"{address}/swarm", b"shape=step&seconds=20"))["success"]

        def served() -> int:
            stats = json.loads(fetch(f"{address}/stats/requests") or '{"stats": []}')["stats"]
            return sum(one["num_requests"] for one in stats if one["name"] == "read")

        eventually(lambda: served() > 5)
        assert json.loads(fetch(f"{address}/exceptions"))["exceptions"] == []
        assert json.loads(fetch(f"{address}/stats/requests"))["fail_ratio"] == 0


def test_a_soak_shows_that_nothing_grows(tmp_path: Path) -> None:
    done = loadtest("soak", "--minutes", "0.4", "--workers", "2", "--output", str(tmp_path))
    saved = json.loads((tmp_path / "soak.json").read_text())
    assert (tmp_path / "soak.png").read_bytes().startswith(PNG)
    assert len(saved["samples"]) > 10
    lines = done.stdout.splitlines()[-4:]
    assert [line.partition(":")[0] for line in lines if "memory" not in line] == ["holds"] * 3
    # Memory has not settled after so short a time; but it is told, and so is the exit code.
    assert done.returncode == (0 if "holds: memory" in done.stdout else 1)
