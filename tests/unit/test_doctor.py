"""The doctor's checks that need no server: processes, gunicorn, running pools; its report, its secrets."""

from __future__ import annotations

import copy
import itertools
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import gevent
import pytest
from click.testing import CliRunner
from flask import Flask
from flask.cli import ScriptInfo
from flask_sqlalchemy import SQLAlchemy
from gevent.monkey import get_original
from sqlalchemy import create_engine
from sqlalchemy.pool import QueuePool

import geventpool.observe
from geventpool import ConfigError, ConnectionPool, PoolDeadlock, PoolTimeout
from geventpool.cli import main
from geventpool.doctor import (
    CHECKS,
    Case,
    Deployment,
    Finding,
    Judgement,
    Level,
    Process,
    Target,
    examine,
)
from geventpool.doctor.finding import look, ok, unseen, wrong
from geventpool.doctor.sources.gunicorn import read_deployment
from geventpool.doctor.symptoms import SYMPTOMS, symptom_of
from geventpool.doctor.tell import exit_code
from geventpool.flask import GeventPool as Extension
from geventpool.flask import commands
from geventpool.observe.snapshot import snapshot
from geventpool.testing import FakeDriver

pytestmark = pytest.mark.usefixtures("no_pools_of_other_tests")

GEVENT = Deployment(workers=2, source="the test", worker_class="gevent", timeout=30.0)
PATCHED = Process(is_loaded=True, patched_by="the program")


def faults(case: Case) -> list[str]:
    return [one.check for one in examine(case) if one.level in (Level.LOOK, Level.WRONG)]


def test_a_healthy_program_has_no_faults() -> None:
    assert faults(Case(PATCHED, [], GEVENT)) == []
    by_worker = Process(is_loaded=True)
    assert faults(Case(by_worker, [], GEVENT)) == []


@pytest.mark.parametrize(
    ("process", "deployment", "expected"),
    [
        ({"early": ("psycopg",)}, {}, "process.early_imports"),
        ({"left_out": ("thread",)}, {}, "process.patched_whole"),
        ({"shares_django": True}, {}, "process.django_shared"),
        ({}, {"worker_class": "sync"}, "gunicorn.worker_class"),
        ({}, {"worker_class": "gthread"}, "gunicorn.worker_class"),
        ({"patched_by": ""}, {"preload": True}, "gunicorn.preload"),
        ({}, {"max_requests": 50}, "gunicorn.max_requests"),
    ],
)
def test_a_program_with_one_fault_is_told_that_one(
    process: dict[str, Any], deployment: dict[str, Any], expected: str
) -> None:
    case = Case(
        Process(**{"is_loaded": True, "patched_by": "the program", **process}),
        [],
        Deployment(**{"workers": 2, "source": "the test", "worker_class": "gevent", **deployment}),
    )
    assert faults(case) == [expected]


def pool_target(pool: ConnectionPool) -> Target:
    return Target("desk", "pymysql", ("h", "1", "d"), pool._connect, "pool", True, pool.config)


def test_fewer_greenlets_than_connections_are_told() -> None:
    pool = make_pool(max_size=50)
    few = Deployment(workers=1, source="the test", worker_class="gevent", worker_connections=10)
    assert "gunicorn.worker_connections" in faults(Case(PATCHED, [pool_target(pool)], few))


def test_more_processes_than_are_counted_with_are_told() -> None:
    said = _published(make_pool())
    case = Case(PATCHED, [], GEVENT, [{**said, "pid": pid} for pid in (1, 2, 3)])
    assert faults(case) == ["deployment.processes"]


def test_a_setting_that_cannot_be_used_is_told() -> None:
    problem = ConfigError("DATABASES['default']['POOL']['max_size']", -3, "give 1 or more")
    broken = Target("default", "", ("", "", ""), lambda: 1 / 0, "", True, None, problem=problem)
    found = [one for one in examine(Case(targets=[broken])) if one.check == "settings.usable"]
    assert found[0].judgement.measured == "DATABASES['default']['POOL']['max_size']=-3"
    assert found[0].judgement.cure == "give 1 or more"


_numbers = itertools.count()


def make_pool(**settings: Any) -> ConnectionPool:
    return ConnectionPool(FakeDriver().connect, name=f"desk {next(_numbers)}", **settings)


def _published(pool: ConnectionPool) -> dict[str, Any]:
    """What a process publishes in which only this pool is, as a reader gets it."""
    said: dict[str, Any] = json.loads(json.dumps(snapshot()))
    mine = [one for one in said["pools"] if one["name"] == pool.core.name]
    assert mine
    return {**said, "pools": mine, "gone": [], "hub": None}


def _busy(pool: ConnectionPool, greenlets: int, uses: int, hold: float = 0.0) -> None:
    def work() -> None:
        for _ in range(uses):
            with pool.connection():
                gevent.sleep(hold)

    gevent.joinall([gevent.spawn(work) for _ in range(greenlets)], raise_error=True)


def _case(pool: ConnectionPool) -> Case:
    return Case(PATCHED, [], GEVENT, [_published(pool)])


def test_nothing_is_wrong_with_a_pool_that_serves_everybody() -> None:
    pool = make_pool(max_size=10)
    _busy(pool, greenlets=5, uses=50)
    assert faults(_case(pool)) == []


def test_a_pool_that_is_too_small_is_told() -> None:
    pool = make_pool(max_size=2)
    _busy(pool, greenlets=10, uses=20)
    assert faults(_case(pool)) == ["pools.saturated"]


def test_callers_that_got_nothing_are_told() -> None:
    pool = make_pool(max_size=1, timeout=0.001)
    with pool.connection():
        for _ in range(3):
            with pytest.raises(PoolTimeout):
                gevent.spawn(pool.connection).get()
    assert faults(_case(pool)) == ["pools.refused"]


def test_a_program_that_takes_two_connections_at_once_is_told() -> None:
    pool = make_pool(max_size=1)
    with pool.connection(), pytest.raises(PoolDeadlock):
        pool.connection()
    assert faults(_case(pool)) == ["pools.deadlock"]


def test_a_leaking_program_is_told() -> None:
    pool = make_pool(reclaim_after=0.001)
    kept: list[Any] = []
    gevent.spawn(lambda: kept.append(pool.connection())).join()
    gevent.sleep(0.01)
    assert pool.stats().owners_ended == 1
    assert faults(_case(pool)) == ["pools.leaks"]


def test_a_hub_that_is_kept_from_running_is_told() -> None:
    watch = geventpool.observe.watch_hub(0.05)
    try:
        gevent.sleep(0.01)
        get_original("time", "sleep")(0.15)
        gevent.sleep(0.01)
        case = _case(make_pool())
        case.snapshots[0]["hub"] = snapshot()["hub"]
    finally:
        watch.stop()
    assert faults(case) == ["pools.hub"]


HOLDER = {
    "connection": 1,
    "state": "idle in transaction",
    "owner": "Greenlet",
    "held_for": 9.0,
    "idle_for": 8.0,
    "in_transaction_for": 9.0,
    "queries": 1,
    "query": "",
    "site": "shop/orders.py:12 in pay",
    "execute_site": "",
    "now_at": [],
}
SITE = {
    "site": "shop/orders.py:12 in pay",
    "count": 9,
    "held": 100.0,
    "busy": 5.0,
    "busy_share": 0.05,
    "longest": 20.0,
}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"wait_reasons": {"connecting": 100}}, "pools.connecting"),
        ({"open_errors": 5}, "pools.open_errors"),
        ({"closed": {"dead": 3}}, "pools.died"),
        ({"opened": 200, "closed": {"expired": 195}}, "pools.churn"),
        ({"cancel_failures": 2}, "pools.abandoned"),
        ({"observed": {"holders": [HOLDER], "sites": []}}, "pools.idle_in_transaction"),
        ({"observed": {"holders": [], "sites": [SITE]}}, "pools.held"),
    ],
)
def test_what_a_pool_counts_is_judged(changes: dict[str, Any], expected: str) -> None:
    pool = make_pool(max_size=10)
    observer = geventpool.observe.attach(pool)
    try:
        _busy(pool, greenlets=5, uses=50)
        case = _case(pool)
    finally:
        observer.detach()
    assert faults(case) == []
    changed = copy.deepcopy(changes)
    observed = {**case.snapshots[0]["pools"][0]["observed"], **changed.pop("observed", {})}
    case.snapshots[0]["pools"][0].update(changed, observed=observed)
    assert faults(case) == [expected]


def test_gunicorns_settings_are_put_together_as_gunicorn_does(tmp_path: Path) -> None:
    file = tmp_path / "gunicorn.conf.py"
    file.write_text("workers = 1 + 2\nworker_class = 'gevent'\ntimeout = 20\npreload_app = True\n")
    read = read_deployment(str(file), None, 2, {})
    assert (read.workers, read.hosts, read.processes, read.source) == (3, 2, 6, str(file))
    assert (read.worker_class, read.timeout, read.preload) == ("gevent", 20.0, True)
    assert read_deployment(str(file), 5, 1, {}).workers == 5
    arguments = {"GUNICORN_CMD_ARGS": "-w4 --worker-class=sync --max-requests 9"}
    read = read_deployment(str(file), None, 1, arguments)
    assert (read.workers, read.worker_class, read.max_requests) == (4, "sync", 9)
    assert read_deployment(None, None, 1, {"WEB_CONCURRENCY": "7"}).workers == 7
    assert read_deployment(None, None, 1, {"WEB_CONCURRENCY": "many"}) == Deployment()
    with pytest.raises(ConfigError, match="no such file"):
        read_deployment("nowhere.py", None, 1, {})
    with pytest.raises(ConfigError, match="give a whole number"):
        read_deployment(str(file), None, 1, {"GUNICORN_CMD_ARGS": "--timeout soon"})
    file.write_text("raise OSError('mysql://u:hunter2@h/d')")
    with pytest.raises(ConfigError, match="OSError") as caught:
        read_deployment(str(file), None, 1, {})
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("QueuePool limit of size 5 overflow 10 reached, connection timed out", "pool limit"),
        ("(2006, 'MySQL server has gone away')", "gone away"),
        ("FATAL: sorry, too many clients already", "too many connections"),
        ("memory", "memory"),
        ("slow acquisition", "slow"),
        ("Deadlock found when trying to get lock", "deadlock"),
    ],
)
def test_an_errors_text_leads_to_its_symptom(text: str, name: str) -> None:
    assert symptom_of(text) == name


def test_an_unknown_symptom_is_refused_with_the_known_ones() -> None:
    for name in SYMPTOMS:
        assert symptom_of(name) == name
    with pytest.raises(ConfigError, match="gone away"):
        symptom_of("purple")


def test_the_docs_have_each_check_that_can_find_a_fault() -> None:
    docs = (Path(__file__).parents[2] / "docs/doctor.md").read_text()
    named = set(re.findall(r"^\| `([a-z_]+\.[a-z_]+)` \|", docs, re.MULTILINE))
    only_unseen = {"pools.published", "server.rights"}
    assert named == CHECKS.keys() - only_unseen


def test_the_exit_code_says_the_worst() -> None:
    def of(*judgements: Judgement) -> int:
        return exit_code([Finding("a", "b", one) for one in judgements])

    assert of() == of(ok("fine")) == of(ok("fine"), unseen("dark", "light")) == 0
    assert of(ok("fine"), look("odd", "so", "do")) == 1
    assert of(look("odd", "so", "do"), wrong("bad", "so", "do")) == 2


def test_no_judgement_shows_a_password_or_moves_the_cursor() -> None:
    said = wrong("mysql://u:hunter2@h/d", "password='hunter2'", "\x1b[2Jline\nline")
    assert "hunter2" not in f"{said.measured}{said.why}{said.cure}"
    assert said.cure == "?[2Jline line"


def test_a_drivers_text_shows_no_password_of_the_target() -> None:
    one = Target("d", "", ("", "", ""), lambda: None, "", True, None, secrets=("hunter2",))
    assert Case(targets=[one]).hide("cannot log in with hunter2\nmore") == "cannot log in with ***"


def run(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "geventpool.cli", "doctor", *arguments],
        cwd=cwd,
        env={**os.environ, "GEVENTPOOL_SNAPSHOTS": str(cwd / "none"), **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def names(done: subprocess.CompletedProcess[str], *verdicts: str) -> list[str]:
    found = json.loads(done.stdout)["findings"]
    return [one["check"] for one in found if one["verdict"] in verdicts]


APP = """
from sqlalchemy import create_engine, text
from geventpool.sqlalchemy import GeventPool
engine = create_engine("sqlite://", poolclass=GeventPool)
def app(environ, start_response): ...
"""
PATCH = "from gevent import monkey; monkey.patch_all()\n"


@pytest.mark.parametrize(
    ("source", "gunicorn", "expected"),
    [
        (PATCH + APP, "", []),
        (APP, "worker_class = 'gevent'", []),
        (APP, "worker_class = 'sync'", ["gunicorn.worker_class"]),
        (APP, "worker_class = 'gevent'; preload_app = True", ["gunicorn.preload"]),
        ("import urllib3\n" + PATCH + APP, "", ["process.early_imports"]),
        (PATCH.replace("()", "(thread=False)") + APP, "", ["process.patched_whole"]),
    ],
    ids=["itself", "worker", "sync", "preload", "early", "partly"],
)
def test_a_program_is_loaded_as_its_server_does_and_its_patching_is_judged(
    tmp_path: Path, source: str, gunicorn: str, expected: list[str]
) -> None:
    pytest.importorskip("urllib3")
    (tmp_path / "shop.py").write_text(source)
    if gunicorn:
        (tmp_path / "gunicorn.conf.py").write_text(gunicorn)
    done = run("--app", "shop:app", "--json", cwd=tmp_path)
    found = names(done, "wrong", "look")
    assert [name for name in found if name != "driver.sqlite"] == expected, done.stderr
    assert done.returncode == (2 if "wrong" in done.stdout.split('"findings"')[0] else 1)


def test_a_program_that_cannot_be_loaded_is_told(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text("raise RuntimeError('mysql://u:hunter2@h/d is no place')")
    done = run("--app", "shop:app", cwd=tmp_path)
    assert done.returncode == 1
    assert "RuntimeError" in done.stderr
    assert "hunter2" not in done.stderr + done.stdout


def test_the_url_may_come_from_the_environment_and_is_never_shown(tmp_path: Path) -> None:
    url = "mysql+pymysql://shop:hunter2@127.0.0.1:1/shop?ssl_key=hunter2"
    done = run(cwd=tmp_path, DATABASE_URL=url)
    assert done.returncode == 2
    assert done.stdout.startswith("wrong     server.reached  127.0.0.1:1/shop: cannot be reached")
    assert "hunter2" not in done.stdout + done.stderr
    wrong_one = CliRunner().invoke(main, ["doctor", "nonsense+driver://u:hunter2@h/d"])
    assert wrong_one.exit_code == 1
    assert "hunter2" not in wrong_one.output


def test_a_command_without_anything_to_look_at_says_what_to_give(tmp_path: Path) -> None:
    environment = {"GEVENTPOOL_SNAPSHOTS": str(tmp_path), "DATABASE_URL": ""}
    done = CliRunner(env=environment).invoke(main, ["doctor"])
    assert done.exit_code == 2
    assert "give URL, --app" in done.output
    done = CliRunner(env=environment).invoke(main, ["doctor", "--pid", "1"])
    assert done.exit_code == 1
    assert "publishes nothing" in done.output


def test_flask_geventpool_doctor_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GEVENTPOOL_SNAPSHOTS", str(tmp_path))
    app = Flask("shop")
    app.config["SQLALCHEMY_DATABASE_URI"] = f"sqlite:///{tmp_path / 'shop.db'}"
    database = SQLAlchemy(app)
    Extension(app, database)

    def invoke(*arguments: str) -> Any:
        loaded = ScriptInfo(create_app=lambda: app)
        return CliRunner().invoke(commands, ["doctor", *arguments], obj=loaded)

    done = invoke("--workers", "2", "--json")
    told = json.loads(done.output)
    assert done.exit_code == 1
    assert told["verdict"] == "look"
    assert [one["check"] for one in told["findings"] if one["verdict"] == "look"] == [
        "driver.sqlite"
    ]
    done = invoke("--symptom", "purple")
    assert done.exit_code == 1
    assert "symptom='purple'" in done.output
    with app.app_context():
        database.engine.dispose()


def test_a_stock_engine_is_found_in_a_program(tmp_path: Path) -> None:
    from geventpool.doctor.sources.engines import engines_in_process

    engine = create_engine(f"sqlite:///{tmp_path / 'a.db'}", poolclass=QueuePool)
    assert str(tmp_path / "a.db") in [one.name for one in engines_in_process()]
    engine.dispose()
